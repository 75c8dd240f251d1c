import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { onReload, shutdownSignal, systemdNotifier } from '../../src/runtime/lifecycle.ts';
import { MemoryLog } from '../support/memory-log.ts';
import { settle } from '../support/virtual-clock.ts';

class FakeProcess {
  readonly listeners = new Map<string, () => void>();
  readonly exits: number[] = [];

  on(event: string, listener: () => void): void {
    this.listeners.set(event, listener);
  }

  exit(code: number): void {
    this.exits.push(code);
  }

  send(event: string): void {
    this.listeners.get(event)?.();
  }
}

test('the first signal asks, the second one ends', () => {
  const fake = new FakeProcess();
  const signal = shutdownSignal(fake);
  assert.equal(signal.aborted, false);
  fake.send('SIGTERM');
  assert.equal(signal.aborted, true);
  assert.deepEqual(fake.exits, []);
  fake.send('SIGINT');
  assert.deepEqual(fake.exits, [130]);
  fake.send('SIGTERM');
  assert.deepEqual(fake.exits, [130, 143]);
});

test('a real process: SIGTERM drains and ends with 0, SIGHUP reloads', async () => {
  const url = JSON.stringify(new URL('../../src/runtime/lifecycle.js', import.meta.url).href);
  const script = `
    const { shutdownSignal, onReload } = await import(${url});
    const timer = setInterval(() => {}, 1000);
    onReload(process, () => console.log('reloaded'));
    shutdownSignal(process).addEventListener('abort', () => { console.log('draining'); clearInterval(timer); });
    console.log('ready');`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let text = '';
  child.stdout.on('data', (chunk) => {
    text += chunk;
    if (text === 'ready\n') child.kill('SIGHUP');
    if (text === 'ready\nreloaded\n') child.kill('SIGTERM');
  });
  const code = await new Promise((resolve) => child.on('close', resolve));
  assert.equal(text, 'ready\nreloaded\ndraining\n');
  assert.equal(code, 0);
});

test('reloads come one after the other', async () => {
  const fake = new FakeProcess();
  const seen: string[] = [];
  let release = () => {};
  onReload(fake, async () => {
    seen.push('begin');
    await new Promise<void>((resolve) => {
      release = resolve;
    });
    seen.push('end');
  });
  fake.send('SIGHUP');
  fake.send('SIGHUP');
  await settle();
  assert.deepEqual(seen, ['begin']);
  release();
  await settle();
  assert.deepEqual(seen, ['begin', 'end', 'begin']);
});

function notifier(env: Record<string, string>) {
  const sent: string[][] = [];
  const releases: (() => void)[] = [];
  const log = new MemoryLog();
  const send = (assignments: readonly string[]) => {
    sent.push([...assignments]);
    return new Promise<void>((resolve) => releases.push(resolve));
  };
  return { sent, releases, log, notify: systemdNotifier({ env, log, pid: 42, send }) };
}

test('one message at a time, in order; of states and watchdogs only the latest', async () => {
  const { sent, releases, notify } = notifier({});
  const release = async () => {
    releases.shift()?.();
    await settle();
  };
  notify.ready();
  await settle();
  notify.status('one');
  notify.reloading();
  notify.watchdog();
  notify.status('two\nlines');
  notify.ready();
  notify.watchdog();
  notify.stopping();
  assert.deepEqual(sent, [['READY=1']]);
  for (let count = 0; count < 6; count++) await release();
  assert.match(sent[1]?.[1] ?? '', /^MONOTONIC_USEC=\d+$/);
  assert.deepEqual(
    sent.map(([first]) => first),
    ['READY=1', 'RELOADING=1', 'STATUS=two lines', 'READY=1', 'WATCHDOG=1', 'STOPPING=1'],
  );
  await notify.settled();
  notify.status('two  lines');
  await settle();
  assert.equal(sent.length, 6);
  notify.status('three');
  await settle();
  assert.deepEqual(sent[6], ['STATUS=three']);
});

test('a failure is said once', async () => {
  const log = new MemoryLog();
  const send = () => Promise.reject(new Error('no such program'));
  const notify = systemdNotifier({ env: {}, log, pid: 42, send });
  notify.ready();
  notify.stopping();
  await notify.settled();
  assert.deepEqual(log.lines, ['warn: systemd is not told of our state: no such program']);
});

test('the watchdog of this process, and no other', () => {
  assert.equal(notifier({ WATCHDOG_USEC: '180000000' }).notify.watchdogMs, 60_000);
  assert.equal(notifier({ WATCHDOG_USEC: '180000000', WATCHDOG_PID: '42' }).notify.watchdogMs, 60_000);
  assert.equal(notifier({ WATCHDOG_USEC: '180000000', WATCHDOG_PID: '43' }).notify.watchdogMs, undefined);
  assert.equal(notifier({ WATCHDOG_USEC: 'x' }).notify.watchdogMs, undefined);
  assert.equal(notifier({}).notify.watchdogMs, undefined);
});

test('without systemd nothing is started', async () => {
  const log = new MemoryLog();
  const notify = systemdNotifier({ env: { PATH: '/nonexistent' }, log, pid: 42 });
  notify.ready();
  await notify.settled();
  assert.deepEqual(log.lines, []);
});

function temporaryFolder(context: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'sysmon-lifecycle-'));
  context.after(() => rmSync(folder, { recursive: true }));
  return folder;
}

test('the child gets the assignments and the socket, nothing else of our environment', async (context) => {
  const folder = temporaryFolder(context);
  const program = join(folder, 'systemd-notify');
  writeFileSync(program, '#!/bin/sh\necho "$NOTIFY_SOCKET $SECRET $*" >> "$(dirname "$0")/calls"\n');
  chmodSync(program, 0o755);
  const log = new MemoryLog();
  const env = { NOTIFY_SOCKET: '/run/x', PATH: `${folder}:/usr/bin:/bin`, SECRET: 's' };
  const notify = systemdNotifier({ env, log, pid: 42 });
  notify.ready();
  notify.status('all is well');
  await notify.settled();
  assert.equal(readFileSync(join(folder, 'calls'), 'utf8'), '/run/x  READY=1\n/run/x  STATUS=all is well\n');
  writeFileSync(program, '#!/bin/sh\nexit 3\n');
  notify.stopping();
  await notify.settled();
  assert.deepEqual(log.lines, ["warn: systemd is not told of our state: 'systemd-notify STOPPING=1' ended with 3"]);
});

test('a datagram arrives by the real systemd-notify', async (context) => {
  const missing = ['systemd-notify', 'python3'].find((tool) => spawnSync('which', [tool]).status !== 0);
  if (missing !== undefined) {
    if (process.env.CI === 'true') assert.fail(`'${missing}' is missing`);
    return context.skip(`no ${missing}`);
  }
  const path = join(temporaryFolder(context), 'notify');
  // Node has no datagram sockets of this kind. The barrier that systemd-notify waits for is a descriptor that comes
  // with a message of its own: closing it answers.
  const script = `
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
  const receiver = spawn('python3', ['-c', script, path], { stdio: ['ignore', 'pipe', 'inherit'] });
  context.after(() => receiver.kill());
  let text = '';
  const saw = (words: string) =>
    new Promise<void>((resolve) => {
      const look = () => text.includes(words) && resolve();
      receiver.stdout.on('data', look);
      look();
    });
  receiver.stdout.on('data', (chunk) => {
    text += chunk;
  });
  await saw('bound');
  const log = new MemoryLog();
  const notify = systemdNotifier({ env: { NOTIFY_SOCKET: path, PATH: process.env.PATH }, log, pid: process.pid });
  notify.reloading();
  notify.ready();
  notify.status('3 reports wait');
  await notify.settled();
  await saw('STATUS=3 reports wait');
  assert.match(text, /RELOADING=1 MONOTONIC_USEC=\d+[\s\S]*READY=1[\s\S]*STATUS=3 reports wait/);
  assert.doesNotMatch(text, /MAINPID/); // it would make a child the main process
  assert.deepEqual(log.lines, []);
});
