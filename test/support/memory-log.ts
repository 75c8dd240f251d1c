import type { Log } from '../../src/runtime/log.ts';

/** Keeps what was logged, as `warn: text`. */
export class MemoryLog implements Log {
  readonly lines: string[] = [];

  error(text: string): void {
    this.lines.push(`error: ${text}`);
  }

  warn(text: string): void {
    this.lines.push(`warn: ${text}`);
  }

  info(text: string): void {
    this.lines.push(`info: ${text}`);
  }

  debug(text: string): void {
    this.lines.push(`debug: ${text}`);
  }
}
