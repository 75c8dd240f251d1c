import { type Collector, gauge, type Samples } from './collectors/collector.ts';
import type { NamedCollector } from './collectors/index.ts';
import { flatText } from './flat-text.ts';
import { NoDataError } from './proc/errors.ts';
import { codeOf, Host, type HostRoots, notReadCode, type ReadFile, type Signs } from './proc/host.ts';
import type { FileSystemSize } from './proc/system.ts';
import type { KernelText } from './proc/text.ts';
import { type Asker, bufferBytes, type Done, Question, type SlowCalls, type SlowLane } from './slow-lane.ts';

export const readsLate = gauge(
  'sysmon_agent_reads_late',
  'Reads of a device or file system that have not returned by the deadline of a collection, at present. What they read ' +
    'is absent; the log names what does not answer for 5 s.',
  { labels: ['collector'] },
);

/** Puts those collectors into the slow lane whose rows say so. */
export function inSlowLane(
  collectors: readonly NamedCollector[],
  slow: { readonly lane: SlowLane; readonly roots: HostRoots },
): NamedCollector[] {
  return collectors.map((each) =>
    each.lane === 'slow' ? { ...each, collector: new SlowCollector(each.name, each.collector, slow) } : each,
  );
}

/**
 * A collector whose files are read in the slow lane. `prepare` has all read that the collector asked for the last time;
 * where it asks for something else (at the start, or because a device is new), it is run without being recorded until
 * nothing is missing. Then `collect` runs it on what was read. So such a collector is written like any other. But it may
 * run more than once at an instant, and must not remember what it makes of files: what hardly ever changes it reads by
 * `rareValue`, which is read once a minute.
 */
export class SlowCollector implements Collector {
  readonly #collector: Collector;
  readonly #host: SlowHost;
  readonly #asker: Asker;

  constructor(
    name: string,
    collector: Collector,
    { lane, roots }: { readonly lane: SlowLane; readonly roots: HostRoots },
  ) {
    this.#collector = collector;
    this.#asker = { collector: name, late: 0 };
    this.#host = new SlowHost(roots, lane, this.#asker);
  }

  prepare(host: Host): Promise<void> {
    return this.#host.prepare(host.instant, () => this.#try());
  }

  collect(host: Host, out: Samples): void {
    this.#host.beginRun();
    try {
      this.#collector.collect(this.#host, out);
    } catch (error) {
      // What was not read yet may be there: it is not looked for as rarely as what is not.
      if (!(error instanceof NoDataError && this.#host.isIncomplete)) throw error;
    } finally {
      for (const error of this.#host.takeErrors()) host.passOver(error);
    }
    out.sample(readsLate, this.#asker.late, this.#asker.collector);
  }

  /** Closes its files; the next collection opens them again. */
  close(): void {
    this.#host.close();
  }

  #try(): void {
    try {
      this.#collector.collect(this.#host, nowhere);
    } catch {
      // Whatever it is, `collect` finds it again, and says it.
    }
    this.#host.takeErrors();
  }
}

const nowhere: Samples = { sample() {}, sampleLabels() {} };

/**
 * A host whose files, except those of /proc and of udev, are read by the lane before the collector asks for them. What has not
 * answered keeps its last answer for one instant; then it is an UnreadableError, `late`. What was not asked for in the
 * last run is closed and forgotten.
 */
class SlowHost extends Host {
  readonly #lane: SlowLane;
  readonly #asker: Asker;
  readonly #files = new Map<string, SlowFile>();
  readonly #names = new Map<string, SlowCall<string[]>>();
  readonly #resolved = new Map<string, SlowCall<string>>();
  readonly #sizes = new Map<string, SlowCall<FileSystemSize>>();
  /** Files that say when others are to be read, and how often they have changed, all together. */
  readonly #signs = new Set<SlowFile>();
  #signChanges = 0;
  readonly #all = [this.#files, this.#names, this.#resolved, this.#sizes];
  #run = 0;
  /** What the last run asked for that was never read. */
  #added: Kept[] = [];
  #isIncomplete = false;
  /** The text of the value that is parsed now: thousands of files keep what they say, and not a text each. */
  readonly #shown = this.newText();
  readonly #newText = () => this.newText();

  constructor(roots: HostRoots, lane: SlowLane, asker: Asker) {
    super(roots);
    this.#lane = lane;
    this.#asker = asker;
  }

  /** Has everything read that the next run will ask for, as far as it answers in time. `run` runs the collector. */
  async prepare(instant: number, run: () => void): Promise<void> {
    this.beginInstant();
    // Counters are of this instant, however long the lane takes.
    this.readAhead();
    this.#lane.begin(instant);
    const isNew = this.#run === 0 || this.#added.length > 0;
    await this.#ask(this.#takeDue());
    await this.#ask(this.#takeChanged());
    for (let round = 0; isNew && round < roundsMax && !this.#lane.isOver; round++) {
      this.beginRun();
      run();
      if (this.#added.length === 0) break;
      await this.#ask(this.#added);
    }
  }

  /** Something that this run has asked for has no answer. */
  get isIncomplete(): boolean {
    return this.#isIncomplete;
  }

  beginRun(): void {
    this.#run++;
    this.#added = [];
    this.#isIncomplete = false;
  }

  override value<T>(path: string, parse: (text: KernelText) => T, whenEmpty?: T): T | undefined {
    return isFast(path) ? super.value(path, parse, whenEmpty) : this.valueOf(this.#fileNow(path, 0), parse, whenEmpty);
  }

  override rareValue<T>(path: string, parse: (text: KernelText) => T, whenEmpty?: T): T | undefined {
    return isFast(path)
      ? super.value(path, parse, whenEmpty)
      : this.valueOf(this.#fileNow(path, rareMs), parse, whenEmpty);
  }

  override valueAfter<T>(path: string, signs: Signs, parse: (text: KernelText) => T): T | undefined {
    if (isFast(path)) return super.valueAfter(path, signs, parse);
    const file = this.#fileNow(path, signs.areSure ? sureMs : rareMs);
    if (file.signs === noSigns) {
      file.signs = signs.paths.map((sign) => this.#slowFile(sign, 0));
      for (const sign of file.signs) this.#signs.add(sign);
    }
    return this.knownValue(file, parse);
  }

  override close(): void {
    super.close();
    for (const each of this.#all) {
      for (const kept of each.values()) kept.forget(this.#lane);
      each.clear();
    }
    this.#signs.clear();
    this.#signChanges = 0;
    this.#run = 0;
    this.#added = [];
  }

  protected override file(path: string): ReadFile {
    return isFast(path) ? super.file(path) : this.#fileNow(path, 0);
  }

  /** Once a value was made of what the file says, that is the value until it says something else. */
  protected override valueOf<T>(file: ReadFile, parse: (text: KernelText) => T, whenEmpty?: T): T | undefined {
    if (!(file instanceof SlowFile)) return super.valueOf(file, parse, whenEmpty);
    const { error } = file;
    if (error === undefined && file.parsedBy === parse) return file.parsed as T;
    const parseOnce = (text: KernelText) => {
      const value = parse(text);
      file.parsed = value;
      file.parsedBy = parse;
      return value;
    };
    return super.valueOf({ text: file.shownBy(this.#shown), error }, parseOnce, whenEmpty);
  }

  /** The file as this run sees it. */
  #fileNow(path: string, everyMs: number): SlowFile {
    const file = this.#slowFile(path, everyMs);
    file.run = this.#run;
    file.error = isCurrent(file, this.#lane) ? file.failure : noAnswer;
    this.#isIncomplete ||= file.error === noAnswer || file.error === notRead;
    file.rewind();
    return file;
  }

  protected override names(path: string): string[] {
    const make = (path: string) =>
      new SlowCall<string[]>(this.#asker, path, { everyMs: folderMs, call: (calls, done) => calls.names(path, done) });
    return this.#answerOf(this.#names, path, make);
  }

  protected override resolved(path: string): string {
    const make = (path: string) =>
      new SlowCall<string>(this.#asker, path, { everyMs: rareMs, call: (calls, done) => calls.resolved(path, done) });
    return this.#answerOf(this.#resolved, path, make);
  }

  protected override size(path: string): FileSystemSize {
    const make = (path: string) =>
      new SlowCall<FileSystemSize>(this.#asker, path, { everyMs: 0, call: (calls, done) => calls.size(path, done) });
    try {
      return this.#answerOf(this.#sizes, path, make);
    } catch (error) {
      // A mount that is late is not one that is broken: node_exporter, too, gives it 5 s.
      const isKnown = error !== noAnswer || this.#lane.isStuck(this.#sizes.get(path)!);
      throw isKnown ? error : notRead;
    }
  }

  #slowFile(path: string, everyMs: number): SlowFile {
    let file = this.#files.get(path);
    if (file === undefined) {
      const isAttribute = path.startsWith('sys/');
      file = new SlowFile(this.#asker, flatText(this.path(path)), { everyMs, isAttribute, newText: this.#newText });
      this.#files.set(flatText(path), file);
      this.#added.push(file);
    }
    return file;
  }

  #answerOf<T>(known: Map<string, SlowCall<T>>, path: string, make: (path: string) => SlowCall<T>): T {
    let call = known.get(path);
    if (call === undefined) {
      const kept = flatText(path);
      call = make(kept);
      known.set(kept, call);
      this.#added.push(call);
    }
    call.run = this.#run;
    const isAnswered = isCurrent(call, this.#lane);
    this.#isIncomplete ||= !isAnswered || call.isNew;
    if (!isAnswered) throw noAnswer;
    return call.answer();
  }

  #ask(questions: readonly Kept[]): Promise<void> | undefined {
    const { nowMs } = this.#lane;
    for (const kept of questions) kept.dueMs = nextMs(kept, nowMs);
    return this.#lane.ask(questions);
  }

  /** What is to be read again. What the last run did not ask for is forgotten. */
  #takeDue(): Kept[] {
    const due: Kept[] = [];
    const { nowMs } = this.#lane;
    for (const each of this.#all) {
      for (const [path, kept] of each) {
        if (kept.state !== 'idle') continue;
        if (kept.run !== this.#run) {
          kept.forget(this.#lane);
          each.delete(path);
          if (kept instanceof SlowFile && this.#signs.delete(kept)) this.#signChanges -= kept.changes;
        } else if (kept.dueMs <= nowMs) {
          due.push(kept);
        }
      }
    }
    return due;
  }

  /** What is to be read again because its signs have changed. */
  #takeChanged(): SlowFile[] {
    const changes = changesOf(this.#signs);
    if (changes === this.#signChanges) return [];
    this.#signChanges = changes;
    const changed: SlowFile[] = [];
    for (const file of this.#files.values()) {
      if (file.state === 'idle' && file.signs !== noSigns && file.takeSigns()) changed.push(file);
    }
    return changed;
  }
}

function changesOf(signs: Iterable<SlowFile>): number {
  let changes = 0;
  for (const sign of signs) changes += sign.changes;
  return changes;
}

/**
 * Whether its last answer holds: it has not been asked again, or at this instant. What is read rarely holds also while it
 * waits to be asked, because other reads of the collector hang.
 */
function isCurrent({ state, instant, everyMs }: Kept, lane: SlowLane): boolean {
  return state === 'idle' || instant === lane.instant || (state === 'waiting' && everyMs > 0);
}

/** Kept from one instant to the next. */
abstract class Kept extends Question {
  /** The run that asked for it last. */
  run = 0;
  readonly everyMs: number;
  /** Whole, like all times of a question: thousands of other numbers would each have an object in V8. */
  dueMs = 0;

  constructor(asker: Asker, path: string, everyMs: number) {
    super(asker, path);
    this.everyMs = everyMs;
  }

  /** Gives back what it holds: at once where it is idle, else when it has answered. */
  abstract forget(lane: SlowLane): void;
}

let spread = 0;

/**
 * What is read rarely is spread over time: a host of 500 interfaces would read all their names at one instant. The second
 * read comes in the second half of the interval, those after it as rarely as they should, or a little sooner: what was put
 * off together (a suspend) drifts apart.
 */
function nextMs({ everyMs, dueMs }: Pick<Kept, 'everyMs' | 'dueMs'>, nowMs: number): number {
  if (everyMs < rareMs) return Math.round(nowMs + everyMs - earlyMs);
  spread = (spread + goldenRatio) % 1;
  const share = spread / (dueMs === 0 ? 2 : 8);
  return Math.round(nowMs + everyMs * (1 - share) - earlyMs);
}

/** One call, such as the names in a folder. */
class SlowCall<T> extends Kept {
  readonly #call: (calls: SlowCalls, done: Done<T>) => void;
  #answer: { readonly value: T } | { readonly error: unknown } = { error: notRead };

  constructor(
    asker: Asker,
    path: string,
    { everyMs, call }: { readonly everyMs: number; readonly call: (calls: SlowCalls, done: Done<T>) => void },
  ) {
    super(asker, path, everyMs);
    this.#call = call;
  }

  /** It was never answered. */
  get isNew(): boolean {
    return 'error' in this.#answer && this.#answer.error === notRead;
  }

  /** The last answer; throws the error of the system call. */
  answer(): T {
    if ('error' in this.#answer) throw this.#answer.error;
    return this.#answer.value;
  }

  ask(lane: SlowLane): void {
    this.#call(lane.calls, (error, value) => {
      this.#answer = error === null ? { value } : { error };
      lane.answered(this);
    });
  }

  forget(): void {}
}

/** A file, which is kept open where it is an attribute that is read at each instant. */
class SlowFile extends Kept implements ReadFile {
  /** What it says, in Latin-1. */
  #content = '';
  /** The same, once it was asked for as a whole. */
  #text: KernelText | undefined;
  readonly #newText: () => KernelText;
  readonly #isAttribute: boolean;
  /** What says that it may have changed, and how often they had when it was taken for reading. */
  signs: readonly SlowFile[] = noSigns;
  #signChanges = 0;
  /** How often it said something else than before. */
  changes = 0;
  #fd: number | undefined;
  #isForgotten = false;
  /** What was made of its text, and by what. */
  parsed: unknown;
  parsedBy: unknown;
  /** Of the last read. */
  failure: unknown = notRead;
  /** What the collector sees. */
  error: unknown;

  constructor(
    asker: Asker,
    path: string,
    options: { readonly everyMs: number; readonly isAttribute: boolean; readonly newText: () => KernelText },
  ) {
    super(asker, path, options.everyMs);
    this.#isAttribute = options.isAttribute;
    this.#newText = options.newText;
  }

  get text(): KernelText {
    this.#text ??= this.shownBy(this.#newText());
    return this.#text;
  }

  /** Its text, or `text` with what it says. */
  shownBy(text: KernelText): KernelText {
    if (this.#text !== undefined) return this.#text;
    text.path = this.path;
    text.fillLatin1(this.#content);
    return text;
  }

  rewind(): void {
    this.#text?.rewind();
  }

  #says(bytes: Uint8Array, length: number): boolean {
    if (this.failure !== undefined || this.#content.length !== length) return false;
    for (let at = 0; at < length; at++) if (this.#content.charCodeAt(at) !== bytes[at]) return false;
    return true;
  }

  #take(bytes: Uint8Array, length: number): void {
    this.#content = Buffer.from(bytes.buffer, bytes.byteOffset, length).toString('latin1');
    this.#text?.fillLatin1(this.#content);
    this.parsedBy = undefined;
  }

  ask(lane: SlowLane): void {
    if (this.#fd === undefined) this.#open(lane);
    else this.#read(lane, this.#fd, { into: lane.takeBuffer(), isFresh: false });
  }

  /** Whether its signs have changed since the last time. */
  takeSigns(): boolean {
    const changes = changesOf(this.signs);
    if (changes === this.#signChanges) return false;
    this.#signChanges = changes;
    return true;
  }

  forget(lane: SlowLane): void {
    this.#isForgotten = true;
    if (this.state !== 'idle' || this.#fd === undefined) return;
    lane.calls.close(this.#fd, () => {});
    this.#fd = undefined;
    lane.openCount--;
  }

  #open(lane: SlowLane): void {
    lane.calls.open(this.path, (error, fd) => {
      if (error !== null) return this.#answer(lane, error);
      this.#fd = fd;
      lane.openCount++;
      this.#read(lane, fd, { into: lane.takeBuffer(), isFresh: true });
    });
  }

  #read(lane: SlowLane, fd: number, { into, isFresh }: { readonly into: Uint8Array; readonly isFresh: boolean }): void {
    lane.calls.read(fd, into, (error, length) => {
      if (error === null && length === into.length && length < fileBytesMax) {
        this.#read(lane, fd, { into: new Uint8Array(length * 8), isFresh });
        return;
      }
      if (error === null && !this.#says(into, length)) {
        this.#take(into, length);
        this.#changed();
      }
      lane.giveBuffer(into);
      // The descriptor of a removed device says so for ever, also when the device is back.
      if (codeOf(error) === 'ENODEV' && !isFresh) {
        // It may be another device of this name, which says the same.
        this.#changed();
        this.#close(lane, fd, () => this.#open(lane));
      } else if (error !== null || !this.#isKept(lane)) this.#close(lane, fd, () => this.#answer(lane, error));
      else this.#answer(lane, null);
    });
  }

  /** What it says at first is no change. */
  #changed(): void {
    if (this.failure !== notRead) this.changes++;
  }

  #isKept({ openCount, filesKeptMax, rareFilesKeptMax }: SlowLane): boolean {
    if (!this.#isAttribute || this.#isForgotten || this.everyMs > rareMs) return false;
    return openCount <= (this.everyMs === 0 ? filesKeptMax : rareFilesKeptMax);
  }

  #close(lane: SlowLane, fd: number, then: () => void): void {
    this.#fd = undefined;
    lane.openCount--;
    lane.calls.close(fd, then);
  }

  #answer(lane: SlowLane, error: Error | null): void {
    if (error !== null && codeOf(error) !== codeOf(this.failure)) this.#changed();
    this.failure = error ?? undefined;
    const everyMs =
      this.signs !== noSigns && codeOf(error) === 'EINVAL' ? sureMs : (absentMs.get(codeOf(error) ?? '') ?? 0);
    if (everyMs > this.everyMs) this.dueMs = nextMs({ everyMs, dueMs: this.dueMs }, lane.nowMs);
    lane.answered(this);
  }
}

/** Files of /proc, and those that udev writes to memory, do not block, and are read when they are asked for. */
function isFast(path: string): boolean {
  return !path.startsWith('sys/') && !path.startsWith('root/');
}

function errorOf(code: string, message: string): Error {
  return Object.assign(new Error(message), { code });
}

// As if it were not there: at the start, and when a device is new, until the next run.
const notRead = errorOf(notReadCode, 'it was not read yet');
const noSigns: readonly SlowFile[] = [];
const noAnswer = errorOf('late', 'it does not answer');

// Folders of devices have folders of devices: three of them, and what they have.
const roundsMax = 8;
const folderMs = 15_000;
const rareMs = 60_000;
const sureMs = 600_000;
/** By the error of a file: what is not there comes as rarely as a folder changes, and what is root's stays so. */
const absentMs: ReadonlyMap<string, number> = new Map([
  ['ENOENT', folderMs],
  ['ENOTDIR', folderMs],
  ['EACCES', rareMs],
]);
// A collection may come a little early.
const earlyMs = 500;
const goldenRatio = 0.618;
// Far more than any attribute has.
const fileBytesMax = bufferBytes * 8 ** 3;
