import { spawn } from 'node:child_process';
import type { Clock, Timer } from './clock.ts';
import type { Log } from './log.ts';
import { reasonOf } from './words.ts';

/** The life of a service: signals that stop and reload it, and what it reports to systemd. */
export interface Lifecycle {
  /** Aborts at SIGTERM or SIGINT. A second one ends the process at once. */
  readonly signal: AbortSignal;
  /** Resolves when the signal aborts. */
  readonly stopped: Promise<void>;
  /** What SIGHUP does. An error that it throws is logged, and the service goes on with what it had. */
  onReload(callback: () => void | Promise<void>): void;
  /** The service works: `systemctl start` returns now. */
  ready(): void;
  /** The line that `systemctl status` shows; sent when it has changed, and not more often than every five seconds. */
  status(text: string): void;
  /** Ends the process now, though a system call hangs; `reason` is logged. For systemd it is a success. */
  leave(reason: string): void;
  /** Pings systemd's watchdog, where the unit has one, as long as `isAlive` says so. */
  watchdog(isAlive: () => boolean): void;
}

/** What of `process` is used here. */
export type HostProcess = Pick<NodeJS.Process, 'env' | 'pid' | 'hrtime'> & {
  on(event: 'SIGTERM' | 'SIGINT' | 'SIGHUP', listener: (signal: NodeJS.Signals) => void): unknown;
  exit(code: number): void;
  kill(pid: number, signal: NodeJS.Signals): unknown;
  removeAllListeners(event: NodeJS.Signals): unknown;
};

export interface LifecycleOptions {
  readonly clock: Clock;
  readonly log: Log;
  readonly process?: HostProcess;
  /** Sends assignments such as `READY=1` to systemd; by a child process unless a test says otherwise. */
  readonly send?: Send;
  /** Calls back after so long, if the process still runs then: by itself it does not keep it. */
  readonly afterIfAlive?: (ms: number, callback: () => void) => void;
}

/** The lifecycle of this process. Without systemd (no NOTIFY_SOCKET) nothing is reported. */
export function systemdLifecycle(options: LifecycleOptions): Lifecycle {
  const { clock, log } = options;
  const host: HostProcess = options.process ?? process;
  const queue = new NotifyQueue(options.send ?? sendByChild(host.env), log);
  const notify = (assignments: readonly string[]) => queue.add(assignments);
  const controller = new AbortController();
  const { signal } = controller;
  let reload: (() => void | Promise<void>) | undefined;
  const stopped = new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));

  const afterIfAlive = options.afterIfAlive ?? ((ms, callback) => void setTimeout(callback, ms).unref());
  const leave = (reason: string) => {
    log.warn(reason);
    leaveProcess(host);
  };
  const stop = (name: NodeJS.Signals) => {
    if (signal.aborted) {
      log.warn(`${name} while stopping: exiting at once`);
      host.exit(1);
      return;
    }
    log.debug(`${name}: stopping`);
    notify(['STOPPING=1']);
    afterIfAlive(notifyStopMsMax, () => queue.giveUp());
    afterIfAlive(stopMsMax, () =>
      leave(`shutdown blocked for ${stopMsMax / 1000} s by a pending system call; exiting without it`),
    );
    controller.abort();
  };
  host.on('SIGTERM', stop);
  host.on('SIGINT', stop);
  host.on('SIGHUP', () => {
    if (reload === undefined || signal.aborted) return;
    // systemd compares this time with that of its own request: https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
    notify(['RELOADING=1', `MONOTONIC_USEC=${host.hrtime.bigint() / 1000n}`]);
    const failed = (error: unknown) => log.error(`reload failed, nothing is changed: ${reasonOf(error)}`);
    const done = () => notify(['READY=1']);
    try {
      const reloading = reload();
      if (reloading !== undefined) return void reloading.catch(failed).then(done);
    } catch (error) {
      failed(error);
    }
    done();
  });

  return {
    signal,
    stopped,
    onReload(callback) {
      reload = callback;
    },
    ready: () => notify(['READY=1']),
    status: statusLine(clock, notify, signal),
    leave,
    watchdog(isAlive) {
      const everyMs = watchdogEveryMs(host.env, host.pid);
      if (everyMs === undefined) return;
      let timer: Timer;
      const ping = () => {
        if (signal.aborted) return;
        if (isAlive()) notify(['WATCHDOG=1']);
        timer = clock.after(everyMs, ping);
      };
      timer = clock.after(everyMs, ping);
      signal.addEventListener('abort', () => timer.cancel(), { once: true });
    },
  };
}

/** Ends the process now: process.exit() would wait for ever for a thread whose system call hangs. */
export function leaveProcess(host: Pick<HostProcess, 'pid' | 'kill' | 'removeAllListeners'> = process): void {
  // systemd.service(5): an end by this signal is a success, like exit code 0.
  host.removeAllListeners('SIGTERM');
  host.kill(host.pid, 'SIGTERM');
}

// A stop takes 5 s at most, whatever hangs; this leaves the process time to exit.
const stopMsMax = 4800;
// For a systemd that is slow, as at a reboot.
const notifyStopMsMax = 4500;

/** A third of what the unit allows; undefined where it has no watchdog, or has it for another process. */
export function watchdogEveryMs(env: NodeJS.ProcessEnv, pid: number): number | undefined {
  const usec = Number(env.WATCHDOG_USEC ?? Number.NaN);
  const forUs = env.WATCHDOG_PID === undefined || Number(env.WATCHDOG_PID) === pid;
  return usec > 0 && forUs ? usec / 1000 / 3 : undefined;
}

function statusLine(
  clock: Clock,
  notify: (assignments: readonly string[]) => void,
  signal: AbortSignal,
): (text: string) => void {
  let shown = '';
  let wanted = '';
  let timer: Timer | undefined;
  const show = () => {
    timer = undefined;
    if (wanted === shown) return;
    shown = wanted;
    notify([`STATUS=${wanted}`]);
    timer = clock.after(statusEveryMs, show);
  };
  // A timer would keep a process that has nothing left to do.
  signal.addEventListener('abort', () => timer?.cancel(), { once: true });
  return (text) => {
    wanted = text.replace(/\s+/g, ' ').trim();
    if (timer === undefined && !signal.aborted) show();
  };
}

// Each is a process of its own: 20 ms of CPU.
const statusEveryMs = 5000;

/** Resolves when systemd has the message; ends at once when the signal aborts. */
export type Send = (assignments: readonly string[], signal: AbortSignal) => Promise<void>;

/** One message at a time, in order: READY must not overtake RELOADING. */
class NotifyQueue {
  readonly #send: Send | undefined;
  readonly #log: Log;
  #waiting: (readonly string[])[] = [];
  #running = false;
  #warned = false;
  readonly #givenUp = new AbortController();

  constructor(send: Send | undefined, log: Log) {
    this.#send = send;
    this.#log = log;
  }

  add(assignments: readonly string[]): void {
    if (this.#send === undefined) return;
    // A newer status or watchdog message replaces one that is still queued, also when systemd hangs.
    const kind = /^(?:STATUS|WATCHDOG)=/.exec(assignments[0] ?? '')?.[0];
    if (kind !== undefined) this.#waiting = this.#waiting.filter(([first = '']) => !first.startsWith(kind));
    this.#waiting.push(assignments);
    if (!this.#running) void this.#run(this.#send);
  }

  /** Drops the queued messages and ends the one that is being sent. */
  giveUp(): void {
    this.#waiting = [];
    this.#givenUp.abort();
  }

  async #run(send: Send): Promise<void> {
    this.#running = true;
    for (let next = this.#waiting.shift(); next !== undefined; next = this.#waiting.shift()) {
      try {
        await send(next, this.#givenUp.signal);
      } catch (error) {
        if (this.#givenUp.signal.aborted) break;
        const reason = reasonOf(error);
        if (!this.#warned) this.#log.warn(`cannot notify systemd: ${reason}`);
        this.#warned = true;
      }
    }
    this.#running = false;
  }
}

/**
 * sd_notify by systemd's own `systemd-notify`, because Node has no datagram sockets of the unix kind. The unit needs
 * NotifyAccess=all, for the message comes from a child. Undefined where nobody listens.
 */
function sendByChild(env: NodeJS.ProcessEnv): Send | undefined {
  const socket = env.NOTIFY_SOCKET;
  if (socket === undefined || socket === '') return undefined;
  const childEnv = { NOTIFY_SOCKET: socket, PATH: env.PATH ?? '/usr/bin:/bin' };
  return (assignments, signal) =>
    new Promise((resolve, reject) => {
      const child = spawn('systemd-notify', assignments, {
        env: childEnv,
        stdio: 'ignore',
        timeout: childMsMax,
        signal,
        killSignal: 'SIGKILL',
      });
      child.once('error', reject);
      child.once('exit', (code, killedBy) => {
        if (code === 0) resolve();
        else reject(new Error(`'systemd-notify ${assignments.join(' ')}' ended with ${killedBy ?? code}`));
      });
    });
}

// It waits until systemd has read the message; usually some 20 ms.
const childMsMax = 10_000;
