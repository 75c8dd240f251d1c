import type { Lifecycle } from '../../src/runtime/lifecycle.ts';

/** A lifecycle that a test drives in the place of signals and systemd. */
export class FakeLifecycle implements Lifecycle {
  readonly #controller = new AbortController();
  readonly signal = this.#controller.signal;
  readonly stopped = new Promise<void>((resolve) => {
    this.signal.addEventListener('abort', () => resolve(), { once: true });
  });
  /** Lines that `systemctl status` would show. */
  readonly lines: string[] = [];
  reload: () => void | Promise<void> = () => {};
  isAlive: () => boolean = () => true;
  ready!: () => void;
  readonly readied = new Promise<void>((resolve) => {
    this.ready = () => setImmediate(resolve);
  });

  /** SIGTERM. */
  stop(): void {
    this.#controller.abort();
  }

  onReload(callback: () => void | Promise<void>): void {
    this.reload = callback;
  }

  status(text: string): void {
    this.lines.push(text);
  }

  leave(reason: string): void {
    this.lines.push(reason);
  }

  watchdog(isAlive: () => boolean): void {
    this.isAlive = isAlive;
  }
}
