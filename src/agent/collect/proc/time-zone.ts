import { FormatError } from './errors.ts';

/** Local time at some instant, compared to UTC. */
export interface LocalTime {
  /** `CET`, `UTC`, `+03`. */
  readonly abbreviation: string;
  /** East is positive. */
  readonly offsetSeconds: number;
}

export const utc: LocalTime = { abbreviation: 'UTC', offsetSeconds: 0 };

/**
 * The content of a file of the zone database, `/etc/localtime` or one below `/usr/share/zoneinfo`: transitions, and
 * behind the last one a rule. https://www.rfc-editor.org/rfc/rfc9636
 *
 * JavaScript knows the offset, but not the abbreviation that `date +%Z` prints, and asking it for either would load
 * ICU: 8 MiB in a process that has 46.
 */
export class TimeZone {
  /** Seconds since 1970, ascending; `#types[i]` holds from `#transitions[i]` on. */
  readonly #transitions: readonly number[];
  readonly #types: readonly LocalTime[];
  /** Before the first transition. */
  readonly #first: LocalTime;
  /** After the last transition, where the file has a rule. */
  readonly #rule: Rule | undefined;

  /** Throws a FormatError that names `path`. */
  constructor(bytes: Uint8Array, path: string) {
    try {
      const { transitions, types, first, rule } = parseFile(bytes);
      this.#transitions = transitions;
      this.#types = types;
      this.#first = first;
      this.#rule = rule;
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      throw new FormatError(path, ` is not a file of the zone database: ${error.message}`, { cause: error });
    }
  }

  at(timeSeconds: number): LocalTime {
    const transitions = this.#transitions;
    const last = transitions.at(-1);
    if (last === undefined || timeSeconds >= last) {
      if (this.#rule !== undefined) return localTimeBy(this.#rule, timeSeconds);
    }
    let low = 0;
    let high = transitions.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (transitions[middle]! <= timeSeconds) low = middle + 1;
      else high = middle;
    }
    return low === 0 ? this.#first : this.#types[low - 1]!;
  }
}

interface ZoneFile {
  readonly transitions: readonly number[];
  readonly types: readonly LocalTime[];
  readonly first: LocalTime;
  readonly rule: Rule | undefined;
}

const headerBytes = 44;

function parseFile(bytes: Uint8Array): ZoneFile {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const first = parseHeader(view, 0);
  // The first block has 32 bits a time, for programs of before 2005; the second says the same and more in 64.
  if (first.version < 2) return parseBlock(view, headerBytes, first, 4);
  const at = headerBytes + blockBytes(first, 4);
  const second = parseHeader(view, at);
  const block = parseBlock(view, at + headerBytes, second, 8);
  const footer = text(bytes, at + headerBytes + blockBytes(second, 8) + 1, 0x0a);
  return footer === '' ? block : { ...block, rule: parseRule(footer) };
}

interface Header {
  readonly version: number;
  readonly utCount: number;
  readonly standardCount: number;
  readonly leapCount: number;
  readonly transitionCount: number;
  readonly typeCount: number;
  readonly abbreviationBytes: number;
}

function parseHeader(view: DataView, at: number): Header {
  if (at + headerBytes > view.byteLength) throw new RangeError('it is cut off');
  if (view.getUint32(at) !== 0x545a6966) throw new RangeError("it does not start with 'TZif'");
  const version = view.getUint8(at + 4);
  return {
    version: version === 0 ? 1 : version - 0x30,
    utCount: view.getUint32(at + 20),
    standardCount: view.getUint32(at + 24),
    leapCount: view.getUint32(at + 28),
    transitionCount: view.getUint32(at + 32),
    typeCount: view.getUint32(at + 36),
    abbreviationBytes: view.getUint32(at + 40),
  };
}

function blockBytes(header: Header, timeBytes: 4 | 8): number {
  return (
    header.transitionCount * (timeBytes + 1) +
    header.typeCount * typeBytes +
    header.abbreviationBytes +
    header.leapCount * (timeBytes + 4) +
    header.standardCount +
    header.utCount
  );
}

const typeBytes = 6;

function parseBlock(view: DataView, start: number, header: Header, timeBytes: 4 | 8): ZoneFile {
  // No memory is allocated by a count that is larger than the file: a read past the end throws a RangeError.
  if (start + blockBytes(header, timeBytes) > view.byteLength) throw new RangeError('it is cut off');
  const indexStart = start + header.transitionCount * timeBytes;
  const typeStart = indexStart + header.transitionCount;
  const nameStart = typeStart + header.typeCount * typeBytes;
  const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
  const all: LocalTime[] = [];
  for (let type = 0; type < header.typeCount; type++) {
    const at = typeStart + type * typeBytes;
    const abbreviation = text(bytes, nameStart + view.getUint8(at + 5), 0);
    all.push({ abbreviation, offsetSeconds: view.getInt32(at) });
  }
  const transitions: number[] = [];
  const types: LocalTime[] = [];
  for (let index = 0; index < header.transitionCount; index++) {
    const at = start + index * timeBytes;
    transitions.push(timeBytes === 4 ? view.getInt32(at) : Number(view.getBigInt64(at)));
    types.push(typeAt(all, view.getUint8(indexStart + index)));
  }
  return { transitions, types, first: typeAt(all, 0), rule: undefined };
}

function typeAt(types: readonly LocalTime[], index: number): LocalTime {
  const type = types[index];
  if (type === undefined) throw new RangeError(`it has ${types.length} kinds of local time and asks for ${index}`);
  return type;
}

/** The characters from `start` up to a terminator, which must exist. */
function text(bytes: Uint8Array, start: number, terminator: number): string {
  const end = bytes.indexOf(terminator, start);
  if (end < 0 || start > bytes.length) throw new RangeError('it is cut off');
  return String.fromCharCode(...bytes.subarray(start, end));
}

/** POSIX's TZ: `CET-1CEST,M3.5.0,M10.5.0/3`. */
interface Rule {
  readonly standard: LocalTime;
  readonly summer: { readonly time: LocalTime; readonly start: YearlyMoment; readonly end: YearlyMoment } | undefined;
}

interface YearlyMoment {
  /**
   * `month`: the nth weekday of a month, n = 5 is the last. `julian`: 1 to 365, never counting 29 February. `day`: 0 to
   * 365.
   */
  readonly kind: 'month' | 'julian' | 'day';
  /** The month from 1, the week, the day of the week; or the day alone. */
  readonly numbers: readonly number[];
  readonly secondOfDay: number;
}

const rulePattern = /^(<[^>]+>|[A-Za-z]+)([-+\d:]+)(?:(<[^>]+>|[A-Za-z]+)([-+\d:]+)?,([^,]+),([^,]+))?$/;
const momentPattern = /^(?:M(\d+)\.(\d)\.(\d)|J(\d+)|(\d+))(?:\/([-+\d:]+))?$/;

function parseRule(rule: string): Rule {
  const match = rulePattern.exec(rule);
  if (match === null) throw new RangeError(`its rule '${rule}' is not understood`);
  const [, standardName, standardOffset, summerName, summerOffset, start, end] = match;
  // POSIX counts westwards.
  const standardSeconds = -seconds(standardOffset!);
  const standard = { abbreviation: unquoted(standardName!), offsetSeconds: standardSeconds };
  if (summerName === undefined) return { standard, summer: undefined };
  const offsetSeconds = summerOffset === undefined ? standardSeconds + 3600 : -seconds(summerOffset);
  const time = { abbreviation: unquoted(summerName), offsetSeconds };
  return { standard, summer: { time, start: parseMoment(start!), end: parseMoment(end!) } };
}

function parseMoment(moment: string): YearlyMoment {
  const match = momentPattern.exec(moment);
  if (match === null) throw new RangeError(`its rule has '${moment}' for a day of the year`);
  const [, month, week, weekday, julian, day, time] = match;
  const secondOfDay = time === undefined ? 2 * 3600 : seconds(time);
  if (month !== undefined) return { kind: 'month', numbers: [month, week, weekday].map(Number), secondOfDay };
  if (julian !== undefined) return { kind: 'julian', numbers: [Number(julian)], secondOfDay };
  return { kind: 'day', numbers: [Number(day)], secondOfDay };
}

/** `-1`, `+3:30`, `167:59:59`. */
function seconds(time: string): number {
  const [hours, minutes = 0, rest = 0] = time.replace(/^[-+]/, '').split(':').map(Number);
  const total = hours! * 3600 + minutes * 60 + rest;
  if (!Number.isInteger(total)) throw new RangeError(`its rule has '${time}' for a time`);
  return time.startsWith('-') ? -total : total;
}

function unquoted(name: string): string {
  return name.startsWith('<') ? name.slice(1, -1) : name;
}

function localTimeBy({ standard, summer }: Rule, timeSeconds: number): LocalTime {
  if (summer === undefined) return standard;
  const year = new Date((timeSeconds + standard.offsetSeconds) * 1000).getUTCFullYear();
  const start = momentIn(year, summer.start) - standard.offsetSeconds;
  const end = momentIn(year, summer.end) - summer.time.offsetSeconds;
  const isSummer = start < end ? timeSeconds >= start && timeSeconds < end : timeSeconds >= start || timeSeconds < end;
  return isSummer ? summer.time : standard;
}

/** Seconds since 1970 in local time. */
function momentIn(year: number, { kind, numbers, secondOfDay }: YearlyMoment): number {
  return dayIn(year, kind, numbers) * daySeconds + secondOfDay;
}

function dayIn(
  year: number,
  kind: YearlyMoment['kind'],
  [first = 0, week = 0, weekday = 0]: readonly number[],
): number {
  const newYear = dayOf(year, 0, 1);
  if (kind === 'day') return newYear + first;
  if (kind === 'julian') return newYear + first - 1 + (first >= 60 && dayOf(year, 1, 29) !== dayOf(year, 2, 1) ? 1 : 0);
  const monthStart = dayOf(year, first - 1, 1);
  // 1 January 1970 was a Thursday, day 4 of its week.
  const toWeekday = (weekday - ((((monthStart + 4) % 7) + 7) % 7) + 7) % 7;
  const day = monthStart + toWeekday + (week - 1) * 7;
  return day >= dayOf(year, first, 1) ? day - 7 : day;
}

const daySeconds = 86_400;

function dayOf(year: number, month: number, day: number): number {
  return Date.UTC(year, month, day) / 1000 / daySeconds;
}
