import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { type HostProcess, systemdLifecycle, watchdogEveryMs } from '../../src/runtime/lifecycle.ts';
import { MemoryLog } from '../support/memory-log.ts';
import { until } from '../support/sockets.ts';
import { settle, VirtualClock } from '../support/virtual-clock.ts';

class FakeProcess implements HostProcess {
  readonly hrtime = process.hrtime;
  readonly pid = 42;
  readonly exits: number[] = [];
  /** Signals that it sent with no listener of its own: they end a process. */
  readonly kills: [pid: number, signal: NodeJS.Signals][] = [];
  readonly env: Record<string, string | undefined>;
  readonly #listeners = new Map<string, (signal: NodeJS.Signals) => void>();

  constructor(env: Record<string, string | undefined> = {}) {
    this.env = env;
  }

  on(event: 'SIGTERM' | 'SIGINT' | 'SIGHUP', listener: (signal: NodeJS.Signals) => void): void {
    this.#listeners.set(event, listener);
  }

  exit(code: number): void {
    this.exits.push(code);
  }

  removeAllListeners(event: NodeJS.Signals): void {
    this.#listeners.delete(event);
  }

  kill(pid: number, signal: NodeJS.Signals): void {
    if (!this.#listeners.has(signal)) this.kills.push([pid, signal]);
  }

  send(signal: NodeJS.Signals): void {
    this.#listeners.get(signal)?.(signal);
  }
}

/** A lifecycle whose messages are all delivered at once, or, `held`, when the test lets them. */
function world(env: Record<string, string> = {}, { held = false } = {}) {
  const clock = new VirtualClock();
  const log = new MemoryLog();
  const host = new FakeProcess(env);
  const sent: string[] = [];
  const releases: (() => void)[] = [];
  const send = (assignments: readonly string[], signal: AbortSignal) => {
    sent.push(assignments.join(' '));
    if (!held) return Promise.resolve();
    return new Promise<void>((resolve, reject) => {
      releases.push(resolve);
      signal.addEventListener('abort', reject);
    });
  };
  const deadlines: [ms: number, callback: () => void][] = [];
  const afterIfAlive = (ms: number, callback: () => void) => void deadlines.push([ms, callback]);
  const lifecycle = systemdLifecycle({ clock, log, process: host, send, afterIfAlive });
  const release = async () => {
    releases.shift()?.();
    await settle();
  };
  return { clock, log, host, sent, release, lifecycle, deadlines };
}

test('the first signal asks and is told to systemd, the second one ends', async () => {
  const { host, sent, log, lifecycle } = world();
  assert.equal(lifecycle.signal.aborted, false);
  host.send('SIGTERM');
  assert.equal(lifecycle.signal.aborted, true);
  await lifecycle.stopped;
  assert.deepEqual(host.exits, []);
  assert.deepEqual(sent, ['STOPPING=1']);
  host.send('SIGINT');
  assert.deepEqual(host.exits, [1]);
  assert.deepEqual(sent, ['STOPPING=1']);
  assert.match(log.lines.join('\n'), /SIGTERM: stopping\nwarn: SIGINT while stopping/);
});

test('a stop that hangs: systemd is given up first, then what is left is ended by SIGTERM itself', async () => {
  const { host, sent, log, lifecycle, deadlines } = world({}, { held: true });
  lifecycle.status('one');
  host.send('SIGTERM');
  const [notify, end] = deadlines;
  assert.deepEqual(
    deadlines.map(([ms]) => ms),
    [4500, 4800],
  );
  notify![1]();
  await settle();
  assert.deepEqual(sent, ['STATUS=one'], 'what waited is not sent any more');
  assert.deepEqual(log.lines, ['debug: SIGTERM: stopping'], 'nor is that a failure');
  assert.deepEqual(host.kills, []);
  end![1]();
  assert.deepEqual(host.kills, [[42, 'SIGTERM']]);
  assert.match(log.lines.at(-1)!, /^warn: shutdown blocked for 4.8 s by a pending system call; exiting without it$/);
});

test('a real process: SIGHUP reloads, SIGTERM ends it with 0 and nothing keeps it', async () => {
  const url = (name: string) => JSON.stringify(new URL(`../../src/runtime/${name}.js`, import.meta.url).href);
  const script = `
    const { systemdLifecycle } = await import(${url('lifecycle')});
    const { realClock } = await import(${url('clock')});
    const log = { error() {}, warn() {}, info() {}, debug() {} };
    const lifecycle = systemdLifecycle({ clock: realClock, log });
    const timer = setInterval(() => {}, 1000);
    lifecycle.onReload(() => console.log('reloaded'));
    lifecycle.status('well');
    lifecycle.watchdog(() => true);
    console.log('ready');
    await lifecycle.stopped;
    clearInterval(timer);
    console.log('drained');`;
  const env = { ...process.env, WATCHDOG_USEC: '180000000', NOTIFY_SOCKET: '' };
  const stdio = ['ignore', 'pipe', 'inherit'] as const;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], { env, stdio: [...stdio] });
  let text = '';
  child.stdout?.on('data', (chunk) => {
    text += chunk;
    if (text === 'ready\n') child.kill('SIGHUP');
    if (text === 'ready\nreloaded\n') child.kill('SIGTERM');
  });
  const code = await new Promise((resolve) => child.on('close', resolve));
  assert.equal(text, 'ready\nreloaded\ndrained\n');
  assert.equal(code, 0);
});

test('a reload is told to systemd before and after; one that fails changes nothing and is logged', async () => {
  const { host, sent, log, lifecycle } = world();
  host.send('SIGHUP');
  await settle();
  assert.equal(sent.length, 0); // nothing to read again yet
  let reloads = 0;
  lifecycle.onReload(() => {
    reloads++;
    if (reloads === 2) throw new Error('no such file');
  });
  host.send('SIGHUP');
  await settle();
  host.send('SIGHUP');
  await settle();
  assert.equal(reloads, 2);
  assert.deepEqual(
    sent.map((line) => line.replace(/=\d{6,}$/, '=…')),
    ['RELOADING=1 MONOTONIC_USEC=…', 'READY=1', 'RELOADING=1 MONOTONIC_USEC=…', 'READY=1'],
  );
  assert.deepEqual(log.lines, ['error: reload failed, nothing is changed: no such file']);
  host.send('SIGTERM');
  host.send('SIGHUP');
  assert.equal(reloads, 2);
});

test('the time of a reload is the clock that systemd compares it with', async () => {
  const { host, sent, lifecycle } = world();
  lifecycle.onReload(() => {});
  const before = uptimeUsec();
  host.send('SIGHUP');
  await settle();
  const usec = Number(/MONOTONIC_USEC=(\d+)/.exec(sent[0] ?? '')?.[1]);
  // /proc/uptime counts time asleep, too, and has hundredths; CLOCK_MONOTONIC is never ahead of it.
  assert.ok(usec > 0 && usec <= uptimeUsec() + 20_000, `${usec} and ${before}`);
});

function uptimeUsec(): number {
  return Number(readFileSync('/proc/uptime', 'utf8').split(' ', 1)[0]) * 1e6;
}

test('the status line: when it has changed, at most every five seconds, the latest', async () => {
  const { clock, sent, host, lifecycle } = world();
  lifecycle.status('one');
  lifecycle.status('two\nlines');
  lifecycle.status('three  words');
  await settle();
  assert.deepEqual(sent, ['STATUS=one']);
  await clock.advance(5000);
  lifecycle.status('three words');
  await clock.advance(20_000);
  assert.deepEqual(sent, ['STATUS=one', 'STATUS=three words']);
  lifecycle.status('four');
  lifecycle.status('five');
  host.send('SIGTERM');
  await clock.advance(60_000);
  assert.deepEqual(sent, ['STATUS=one', 'STATUS=three words', 'STATUS=four', 'STOPPING=1']);
  assert.equal(clock.timers, 0);
});

test('the watchdog is fed three times as often as it must be, while all is well', async () => {
  const { clock, sent, host, lifecycle } = world({ WATCHDOG_USEC: '180000000', WATCHDOG_PID: '42' });
  let alive = true;
  lifecycle.watchdog(() => alive);
  await clock.advance(180_000);
  assert.deepEqual(sent, ['WATCHDOG=1', 'WATCHDOG=1', 'WATCHDOG=1']);
  alive = false;
  await clock.advance(180_000);
  assert.equal(sent.length, 3);
  alive = true;
  await clock.advance(60_000);
  assert.equal(sent.length, 4);
  host.send('SIGTERM');
  await clock.advance(600_000);
  assert.equal(sent.length, 5);
  assert.equal(clock.timers, 0);
});

test('the watchdog of this process, and no other', () => {
  assert.equal(watchdogEveryMs({ WATCHDOG_USEC: '180000000' }, 42), 60_000);
  assert.equal(watchdogEveryMs({ WATCHDOG_USEC: '180000000', WATCHDOG_PID: '43' }, 42), undefined);
  assert.equal(watchdogEveryMs({ WATCHDOG_USEC: '0' }, 42), undefined);
  assert.equal(watchdogEveryMs({ WATCHDOG_USEC: 'x' }, 42), undefined);
  assert.equal(watchdogEveryMs({}, 42), undefined);
});

test('one message at a time, in order; of what waits, only the latest status and watchdog', async () => {
  const { clock, host, sent, release, lifecycle } = world({ WATCHDOG_USEC: '3000000' }, { held: true });
  lifecycle.onReload(() => {});
  lifecycle.ready();
  lifecycle.watchdog(() => true);
  lifecycle.status('one');
  host.send('SIGHUP');
  await clock.advance(5000);
  lifecycle.status('two');
  await clock.advance(5000);
  assert.deepEqual(sent, ['READY=1']);
  for (let count = 0; count < 10; count++) await release();
  assert.deepEqual(
    sent.map((line) => line.split(' ', 1)[0]),
    ['READY=1', 'RELOADING=1', 'READY=1', 'STATUS=two', 'WATCHDOG=1'],
  );
});

test('a message that cannot be sent is said once, and the next is tried', async () => {
  const log = new MemoryLog();
  let tries = 0;
  const send = () => {
    tries++;
    return Promise.reject(new Error('no such program'));
  };
  const lifecycle = systemdLifecycle({ clock: new VirtualClock(), log, process: new FakeProcess(), send });
  lifecycle.ready();
  await settle();
  lifecycle.ready();
  await settle();
  assert.equal(tries, 2);
  assert.deepEqual(log.lines, ['warn: cannot notify systemd: no such program']);
});

function temporaryFolder(context: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'sysmon-lifecycle-'));
  context.after(() => rmSync(folder, { recursive: true }));
  return folder;
}

/** A stand-in for systemd-notify that does as the script says; `calls` reads the file that it may write to. */
function standIn(context: TestContext, script: string) {
  const folder = temporaryFolder(context);
  const program = join(folder, 'systemd-notify');
  writeFileSync(program, `#!/bin/sh\n${script}\n`);
  chmodSync(program, 0o755);
  const env = { PATH: `${folder}:/usr/bin:/bin`, SECRET: 's' };
  const calls = () => {
    try {
      return readFileSync(join(folder, 'calls'), 'utf8');
    } catch {
      return ''; // not called yet
    }
  };
  return { env, calls };
}

const recordCall = 'echo "$NOTIFY_SOCKET $SECRET $*" >> "$(dirname "$0")/calls"';

test('the child gets the assignments and the socket, and nothing else of our environment', async (context) => {
  const { env, calls } = standIn(context, recordCall);
  const process = new FakeProcess({ ...env, NOTIFY_SOCKET: '/run/x' });
  const log = new MemoryLog();
  const lifecycle = systemdLifecycle({ clock: new VirtualClock(), log, process });
  lifecycle.ready();
  lifecycle.status('all is well');
  await until(() => calls().split('\n').length === 3);
  assert.equal(calls(), '/run/x  READY=1\n/run/x  STATUS=all is well\n');
  assert.deepEqual(log.lines, []);
});

test('a child that fails is named with its exit code', async (context) => {
  const { env } = standIn(context, 'exit 3');
  const process = new FakeProcess({ ...env, NOTIFY_SOCKET: '/run/x' });
  const log = new MemoryLog();
  systemdLifecycle({ clock: new VirtualClock(), log, process }).ready();
  await until(() => log.lines.length > 0);
  assert.deepEqual(log.lines, ["warn: cannot notify systemd: 'systemd-notify READY=1' ended with 3"]);
});

test('without systemd nothing is started', async (context) => {
  const { env, calls } = standIn(context, recordCall);
  const clock = new VirtualClock();
  const log = new MemoryLog();
  systemdLifecycle({ clock, log, process: new FakeProcess(env) }).ready();
  systemdLifecycle({ clock, log, process: new FakeProcess({ ...env, NOTIFY_SOCKET: '' }) }).ready();
  // Two that are started the same way and then seen: the ones before would have been, too.
  const started = systemdLifecycle({ clock, log, process: new FakeProcess({ ...env, NOTIFY_SOCKET: '/run/y' }) });
  started.ready();
  started.ready();
  await until(() => calls().split('\n').length === 3);
  assert.equal(calls(), '/run/y  READY=1\n/run/y  READY=1\n');
});

test('a datagram arrives by the real systemd-notify', async (context) => {
  const missing = ['systemd-notify', 'python3'].find((tool) => spawnSync('which', [tool]).status !== 0);
  if (missing !== undefined) return skipHere(context, `'${missing}' is missing: apt-get install systemd python3`);
  const path = join(temporaryFolder(context), 'notify');
  const receiver = spawn('python3', ['-c', receiverScript, path], { stdio: ['ignore', 'pipe', 'inherit'] });
  context.after(() => receiver.kill());
  let text = '';
  receiver.stdout.on('data', (chunk) => {
    text += chunk;
  });
  await until(() => text.includes('bound'));
  const log = new MemoryLog();
  const host = new FakeProcess({ NOTIFY_SOCKET: path, PATH: process.env.PATH });
  const lifecycle = systemdLifecycle({ clock: new VirtualClock(), log, process: host });
  lifecycle.onReload(() => {});
  host.send('SIGHUP');
  lifecycle.status('3 reports wait');
  await until(() => text.includes('STATUS=3 reports wait') || log.lines.length > 0);
  assert.match(text, /RELOADING=1 MONOTONIC_USEC=\d+[\s\S]*READY=1[\s\S]*STATUS=3 reports wait/);
  assert.doesNotMatch(text, /MAINPID/); // it would make a child the main process
  assert.deepEqual(log.lines, []);
});

// Node has no datagram sockets of this kind. The barrier that systemd-notify waits for is a descriptor that comes with
// a message of its own; closing it is the answer.
const receiverScript = `
import array, os, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
print('bound', flush=True)
while True:
    data, ancillary, _, _ = s.recvmsg(4096, 256)
    for _, _, fds in ancillary:
        numbers = array.array('i')
        numbers.frombytes(fds[:len(fds) - len(fds) % numbers.itemsize])
        for fd in numbers: os.close(fd)
    print(data.decode().replace(chr(10), ' '), flush=True)
`;

import { skipHere } from '../support/installed.ts';
