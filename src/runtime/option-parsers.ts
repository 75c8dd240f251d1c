import { bytesText, byteUnits, durationText, durationUnits, reasonOf } from './words.ts';

/** A text as a value. Throws an Error whose message says what was expected, beginning with that word. */
export type Parser<T> = (text: string) => T;

/** `5s`, `1m30s`, `24h`, as Prometheus writes them: milliseconds. */
export function duration(range: { readonly minMs?: number; readonly maxMs?: number } = {}): Parser<number> {
  const { minMs = 0, maxMs = Number.MAX_SAFE_INTEGER } = range;
  return (text) => {
    const ms = parseDuration(text);
    if (ms === undefined) throw new Error('expected a duration such as 5s, 1m30s or 24h');
    if (ms < minMs) throw new Error(`expected a duration of at least ${durationText(minMs)}`);
    if (ms > maxMs) throw new Error(`expected a duration of at most ${durationText(maxMs)}`);
    return ms;
  };
}

const durationPattern = new RegExp(`^${durationUnits.map(([unit]) => `(?:(\\d{1,15})${unit})?`).join('')}$`);

function parseDuration(text: string): number | undefined {
  if (text === '0') return 0;
  const match = text === '' ? null : durationPattern.exec(text);
  if (match === null) return undefined;
  return durationUnits.reduce((sum, [, unitMs], index) => sum + Number(match[index + 1] ?? 0) * unitMs, 0);
}

/** `64MiB`, `1GiB`, or a plain number: bytes. */
export function bytes(range: { readonly min?: number; readonly max?: number } = {}): Parser<number> {
  const { min = 0, max = Number.MAX_SAFE_INTEGER } = range;
  return (text) => {
    const match = /^(\d{1,15})(?:([KMGT]i)?B)?$/.exec(text);
    if (match === null) throw new Error('expected bytes such as 65536, 512KiB, 64MiB or 1GiB');
    const value = Number(match[1]) * 1024 ** byteUnits.findIndex((unit) => unit === (match[2] ?? ''));
    if (value < min) throw new Error(`expected at least ${bytesText(min)}`);
    if (value > max) throw new Error(`expected at most ${bytesText(max)}`);
    return value;
  };
}

export function integer({ min, max }: { readonly min: number; readonly max: number }): Parser<number> {
  return (text) => {
    const value = /^-?\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
    if (!(value >= min && value <= max)) throw new Error(`expected a whole number from ${min} to ${max}`);
    return value;
  };
}

export function choice<const T extends string>(choices: readonly T[]): Parser<T> {
  return (text) => {
    const chosen = choices.find((candidate) => candidate === text);
    if (chosen === undefined) throw new Error(`expected one of ${choices.join(', ')}`);
    return chosen;
  };
}

export const boolean: Parser<boolean> = (text) => {
  if (['true', 'yes', 'on', '1'].includes(text)) return true;
  if (['false', 'no', 'off', '0'].includes(text)) return false;
  throw new Error('expected true or false');
};

export const path: Parser<string> = (text) => {
  if (text === '' || text.includes('\0')) throw new Error('expected a path');
  return text;
};

/** Any text that the pattern takes as a whole. `expected` ends the sentence that begins with that word. */
export function text(pattern: RegExp = /./, expected = 'a text that is not empty'): Parser<string> {
  return (given) => {
    if (!pattern.test(given)) throw new Error(`expected ${expected}`);
    return given;
  };
}

export const regexp: Parser<RegExp> = (given) => {
  try {
    return new RegExp(given);
  } catch (error) {
    throw new Error(`expected a regular expression: ${reasonOf(error)}`);
  }
};

export interface HostPort {
  readonly host: string;
  readonly port: number;
}

/** `relay.example:9732`, `192.0.2.7:9732`, `[2001:db8::7]:9732`; with a default port also without one. */
export function hostPort(defaultPort?: number): Parser<HostPort> {
  return (given) => {
    const { host, port = defaultPort } = splitAddress(given) ?? {};
    if (host === undefined || host === '' || port === undefined || port === 0) {
      throw new Error(
        `expected HOST:PORT such as relay.example:${defaultPort ?? 9732} or [2001:db8::7]:${defaultPort ?? 9732}`,
      );
    }
    return { host, port };
  };
}

export interface ListenAddress {
  /** Empty: all addresses. */
  readonly address: string;
  /** 0: the kernel chooses one. */
  readonly port: number;
}

/** `127.0.0.1:9732`, `[::1]:9732`, `:9732` for all addresses. */
export const listenAddress: Parser<ListenAddress> = (given) => {
  const { host, port } = splitAddress(given) ?? {};
  if (host === undefined || port === undefined) {
    throw new Error('expected ADDRESS:PORT such as 127.0.0.1:9732, [::1]:9732, or :9732 for all addresses');
  }
  return { address: host, port };
};

/** Undefined where it is neither a host nor an address with brackets where it has colons. */
function splitAddress(given: string): { host: string; port: number | undefined } | undefined {
  const match = /^(?:\[([0-9A-Fa-f:.]+(?:%[^\]\s]+)?)\]|([A-Za-z0-9._-]{0,253}))(?::(\d{1,5}))?$/.exec(given);
  if (match === null) return undefined;
  const port = match[3] === undefined ? undefined : Number(match[3]);
  if (port !== undefined && port > 65_535) return undefined;
  return { host: match[1] ?? match[2] ?? '', port };
}

/** `127.0.0.1:9732`, `[::1]:9732`, `:9732`: what {@link hostPort} and {@link listenAddress} read. */
export function addressText(address: string, port: number): string {
  return `${address.includes(':') ? `[${address}]` : address}:${port}`;
}

/** True for an address that only this host reaches. */
export function isLoopback(address: string): boolean {
  return address === 'localhost' || address === '::1' || /^(?:::ffff:)?127(?:\.\d{1,3}){3}$/.test(address);
}
