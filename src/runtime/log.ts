import { fstatSync } from 'node:fs';
import type { Clock } from './clock.ts';
import { printable } from './words.ts';

/** One line an event. Whatever a peer or a file put into the text, it stays one line of printable characters. */
export interface Log {
  error(text: string): void;
  warn(text: string): void;
  info(text: string): void;
  debug(text: string): void;
}

export const logLevels = ['error', 'warn', 'info', 'debug'] as const;
export type LogLevel = (typeof logLevels)[number];

export interface StderrLogOptions {
  readonly level: LogLevel;
  /** journald reads a `<N>` before each line as its priority. */
  readonly journal: boolean;
  /** Put before each line where journald does not do it. */
  readonly name?: string;
  /** Where a line goes, with its end; stderr by default. */
  readonly write?: (line: string) => void;
}

/** Lines on stderr, those up to a level. */
export function stderrLog(options: StderrLogOptions): Log {
  const write = options.write ?? writeToStderr();
  const wanted = logLevels.indexOf(options.level);
  const at = (level: LogLevel, text: string) => {
    if (logLevels.indexOf(level) > wanted) return;
    const line = oneLine(text);
    if (options.journal) write(`<${priorities[level]}>${line}\n`);
    else write(`${options.name === undefined ? '' : `${options.name}: `}${words[level]}${line}\n`);
  };
  return {
    error: (text) => at('error', text),
    warn: (text) => at('warn', text),
    info: (text) => at('info', text),
    debug: (text) => at('debug', text),
  };
}

// https://www.freedesktop.org/software/systemd/man/latest/sd-daemon.html
const priorities: Readonly<Record<LogLevel, number>> = { error: 3, warn: 4, info: 6, debug: 7 };
const words: Readonly<Record<LogLevel, string>> = { error: 'error: ', warn: 'warning: ', info: '', debug: 'debug: ' };

function writeToStderr(): (line: string) => void {
  // The reader of a pipe may have exited. Without a listener the error would end the process.
  process.stderr.on('error', () => {});
  return (line) => process.stderr.write(line);
}

// journald cuts at 48 KiB, a terminal is unreadable long before.
const lineLengthMax = 4096;

/** One line of printable characters, whatever a peer put into the text. */
export function oneLine(text: string): string {
  return printable(text.length > lineLengthMax ? `${text.slice(0, lineLengthMax - 1)}…` : text);
}

/** What a program that fails ends with: `name: text` for people; for journald without the name, as an error. */
export function lastWords(name: string, text: string, options: { readonly journal: boolean }): string {
  // Each line of several, but not those of a stack.
  if (!options.journal) return text.replace(/^(?=\S)/gm, `${name}: `).concat('\n');
  return text.replace(/^/gm, `<${priorities.error}>`).concat('\n');
}

/**
 * True where stderr goes straight to journald. systemd names the stream's device and inode, because a child of a unit
 * inherits the variable also when its stderr goes elsewhere.
 * https://www.freedesktop.org/software/systemd/man/latest/systemd.exec.html#%24JOURNAL_STREAM
 */
export function stderrIsJournal(env: NodeJS.ProcessEnv): boolean {
  if (env.JOURNAL_STREAM === undefined) return false;
  try {
    const { dev, ino } = fstatSync(2, { bigint: true });
    return env.JOURNAL_STREAM === `${dev}:${ino}`;
  } catch {
    return false; // stderr is closed
  }
}

// A key may be an address that a peer chose. Beyond this the oldest is forgotten, and may be logged again early.
const keysMax = 1000;

/** Says the same thing at most once a minute, or as rarely as `everyMs` says; see {@link onceAMinute}. */
export interface SeldomLog {
  error(key: string, text: string, everyMs?: number): void;
  warn(key: string, text: string, everyMs?: number): void;
  info(key: string, text: string, everyMs?: number): void;
}

/**
 * For what a peer can cause as often as it likes. The first event of a key is logged; those of the following minute are
 * counted, and the next after it says how many there were.
 */
export function onceAMinute(log: Log, clock: Clock): SeldomLog {
  const states = new Map<string, { untilMs: number; count: number }>();
  const at = (level: 'error' | 'warn' | 'info', key: string, text: string, everyMs = 60_000) => {
    const nowMs = clock.monotonicMs();
    const id = `${level} ${key}`;
    const state = states.get(id);
    if (state !== undefined && nowMs < state.untilMs) {
      state.count++;
      return;
    }
    states.delete(id); // set() below puts it at the end: the map is in the order of the last lines
    if (states.size >= keysMax) states.delete(states.keys().next().value ?? '');
    states.set(id, { untilMs: nowMs + everyMs, count: 0 });
    const count = state?.count ?? 0;
    log[level](count === 0 ? text : `${text} (and ${count} more like it)`);
  };
  return {
    error: (key, text, everyMs) => at('error', key, text, everyMs),
    warn: (key, text, everyMs) => at('warn', key, text, everyMs),
    info: (key, text, everyMs) => at('info', key, text, everyMs),
  };
}
