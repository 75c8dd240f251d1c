// Numbers, times and what went wrong, as both programs write them for people: in log lines, in `status`, on the page.

/** `1 report`, `3 reports`; with a plural of its own `1 series`, `3 series`. */
export function plural(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`;
}

export const durationUnits: readonly (readonly [unit: string, ms: number])[] = [
  ['w', 604_800_000],
  ['d', 86_400_000],
  ['h', 3_600_000],
  ['m', 60_000],
  ['s', 1000],
  ['ms', 1],
];

/** 90000 → `1m30s`: exact, and as the options read it. */
export function durationText(ms: number): string {
  let rest = ms;
  let text = '';
  for (const [unit, unitMs] of durationUnits) {
    const count = Math.floor(rest / unitMs);
    if (count > 0) text += `${count}${unit}`;
    rest -= count * unitMs;
  }
  return text === '' ? '0s' : text;
}

/** 12340 → `12.3 s`: measured, to a tenth. */
export function secondsText(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}

/** How long something has lasted, to two digits or so: `41 s`, `12 min`, `5 h`, `3 d`. */
export function ageText(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86_400)} d`;
}

/** `2026-03-01T12:00:00.000Z` */
export function isoTime(ms: number): string {
  return new Date(ms).toISOString();
}

export const byteUnits = ['', 'Ki', 'Mi', 'Gi', 'Ti'] as const;

/** 67108864 → `64MiB`: exact, and as the options read it; what is no whole number of a unit stays in bytes. */
export function bytesText(value: number): string {
  let power = 0;
  let rest = value;
  while (rest >= 1024 && rest % 1024 === 0 && power < byteUnits.length - 1) {
    rest /= 1024;
    power++;
  }
  return `${rest}${byteUnits[power]}B`;
}

/** 12939427 → `12.3 MiB`: measured, to a tenth. */
export function mebibytesText(bytes: number): string {
  return `${(bytes / 1024 ** 2).toFixed(1)} MiB`;
}

/** What an error says; anything can be thrown. */
export function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Without what may be a key: somebody will put one where its file's name belongs, and it must not go to the log. */
export function withoutKeys(text: string): string {
  return text.replace(/[0-9a-fA-F]{64,}/g, '(hexadecimal digits)');
}

/** The code of an error of Node (`ENOENT`) or of ours, "" where there is none. */
export function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : '';
}

/**
 * Text from outside (a peer, a file) for a log or a terminal: control characters as `\n` or `\x1b`, those that change
 * the direction of writing as `\u202e`. So it can neither begin a line of its own, nor move a cursor, nor read as
 * something else than it is.
 */
export function printable(text: string): string {
  return text.replace(unprintable, (character) => {
    if (character === '\n') return '\\n';
    const code = character.charCodeAt(0);
    return code < 256 ? `\\x${code.toString(16).padStart(2, '0')}` : `\\u${code.toString(16).padStart(4, '0')}`;
  });
}

// C0, DEL and C1; line and paragraph separators; marks, embeddings, overrides and isolates of direction.
const unprintable = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;
