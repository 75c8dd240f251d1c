import { spawn } from 'node:child_process';
import type { Log } from './log.ts';

/** What of `process` is used here: a test passes its own. */
export interface ProcessSignals {
  on(event: 'SIGTERM' | 'SIGINT' | 'SIGHUP', listener: () => void): unknown;
  exit(code: number): unknown;
}

/** Aborts at the first SIGTERM or SIGINT. A second one, of either kind, ends the process at once. */
export function shutdownSignal(process: ProcessSignals): AbortSignal {
  const controller = new AbortController();
  const stop = (exitCode: number) => {
    if (controller.signal.aborted) process.exit(exitCode);
    else controller.abort();
  };
  // 128 + the signal's number, as a shell has it.
  process.on('SIGTERM', () => stop(143));
  process.on('SIGINT', () => stop(130));
  return controller.signal;
}

/** Calls at each SIGHUP, one call after the other: a reload that takes its time is not overtaken by the next. */
export function onReload(process: ProcessSignals, reload: () => void | Promise<void>): void {
  let last: Promise<void> = Promise.resolve();
  process.on('SIGHUP', () => {
    last = last.then(reload);
  });
}

/** What systemd is told. Nothing of it waits, nothing of it fails. */
export interface Notifier {
  ready(): void;
  /** Before reading again what SIGHUP asks for; `ready()` ends it. */
  reloading(): void;
  stopping(): void;
  /** One line for `systemctl status`. The same line again is not sent again. */
  status(text: string): void;
  watchdog(): void;
  /** How often to call `watchdog()`: undefined where nobody watches. */
  readonly watchdogMs: number | undefined;
  /** Resolves when all of it has been said. */
  settled(): Promise<void>;
}

export interface NotifierOptions {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly log: Log;
  readonly pid: number;
  /** Says it, by default with a `systemd-notify` child. */
  readonly send?: (assignments: readonly string[]) => Promise<void>;
}

/**
 * The notify protocol by `systemd-notify` children, because Node has no datagram sockets of the Unix kind; the unit
 * needs `NotifyAccess=all`. Without `NOTIFY_SOCKET` nothing is done.
 * https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
 */
export function systemdNotifier(options: NotifierOptions): Notifier {
  const socket = options.env.NOTIFY_SOCKET;
  const queue = new NotifyQueue(
    options.send ?? (socket ? (assignments) => notifyByChild(assignments, socket, options.env.PATH) : undefined),
    options.log,
  );
  let lastStatus: string | undefined;
  return {
    ready: () => queue.add('READY=1'),
    // systemd orders by this time a reload that was asked for and its answer; hrtime is CLOCK_MONOTONIC on Linux.
    reloading: () => queue.add('RELOADING=1', `MONOTONIC_USEC=${process.hrtime.bigint() / 1000n}`),
    stopping: () => queue.add('STOPPING=1'),
    status(text) {
      const line = text.replace(/\s+/g, ' ').trim();
      if (line === lastStatus) return;
      lastStatus = line;
      queue.add(`STATUS=${line}`);
    },
    watchdog: () => queue.add('WATCHDOG=1'),
    watchdogMs: watchdogMs(options),
    settled: () => queue.settled(),
  };
}

/** A third of what systemd allows: two may be late. */
function watchdogMs({ env, pid }: NotifierOptions): number | undefined {
  const usec = Number(env.WATCHDOG_USEC ?? 0);
  if (!(usec > 0) || (env.WATCHDOG_PID !== undefined && env.WATCHDOG_PID !== String(pid))) return undefined;
  return usec / 1000 / 3;
}

/** One child at a time, in order: READY must not come before the RELOADING that it ends. */
class NotifyQueue {
  readonly #send: ((assignments: readonly string[]) => Promise<void>) | undefined;
  readonly #log: Log;
  #waiting: string[][] = [];
  #running: Promise<void> | undefined;
  #warned = false;

  constructor(send: ((assignments: readonly string[]) => Promise<void>) | undefined, log: Log) {
    this.#send = send;
    this.#log = log;
  }

  add(...assignments: string[]): void {
    if (this.#send === undefined) return;
    // What only says how things are is out of date once the next is there.
    const kind = /^(?:STATUS|WATCHDOG)=/.exec(assignments[0] ?? '')?.[0];
    if (kind !== undefined) this.#waiting = this.#waiting.filter(([first = '']) => !first.startsWith(kind));
    this.#waiting.push(assignments);
    this.#running ??= this.#run(this.#send);
  }

  async settled(): Promise<void> {
    await this.#running;
  }

  async #run(send: (assignments: readonly string[]) => Promise<void>): Promise<void> {
    await null; // what is said in one go may become one child less
    for (let next = this.#waiting.shift(); next !== undefined; next = this.#waiting.shift()) {
      try {
        await send(next);
      } catch (error) {
        if (!this.#warned)
          this.#log.warn(`systemd is not told of our state: ${error instanceof Error ? error.message : error}`);
        this.#warned = true;
      }
    }
    this.#running = undefined;
  }
}

// systemd-notify waits until systemd has read the message; it takes some 20 ms.
const childMsMax = 10_000;

function notifyByChild(assignments: readonly string[], socket: string, path: string | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn('systemd-notify', assignments, {
      env: { NOTIFY_SOCKET: socket, PATH: path ?? '/usr/bin:/bin' },
      stdio: 'ignore',
      timeout: childMsMax,
      killSignal: 'SIGKILL',
    });
    child.once('error', reject);
    child.once('exit', (code, signal) => {
      if (code === 0) resolve();
      else reject(new Error(`'systemd-notify ${assignments.join(' ')}' ended with ${signal ?? code}`));
    });
  });
}
