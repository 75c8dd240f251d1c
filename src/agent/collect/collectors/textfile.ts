// Text files that other programs write: *.prom in some folders, in Prometheus's text format.
// https://github.com/prometheus/node_exporter#textfile-collector
// A good writer replaces its file at once (it writes another and renames it). Another is seen while it writes, so a file
// that is empty or ends in the middle of a line is refused, and read again when it has changed.
import { isUtf8 } from 'node:buffer';
import { join, normalize } from 'node:path';
import { parseText, TextError, type TextGroup, type TextSample } from '../../../model/text-parser.ts';
import { listOption, path } from '../../../runtime/options.ts';
import { CollectError, FormatError, NoDataError, UnreadableError } from '../proc/errors.ts';
import type { FileStat, Host } from '../proc/host.ts';
import {
  type Collector,
  type CollectorContext,
  type CollectorRow,
  gauge,
  type SampledFamily,
  type Samples,
} from './collector.ts';

/** Debian's timers write to the second: apt, smartmon, nvme, ipmitool and others. */
const usualFolders = ['/var/lib/sysmon-agent/textfile', '/var/lib/prometheus/node-exporter'];

const directory = listOption({
  name: 'textfile.directory',
  placeholder: 'FOLDER',
  parse: path,
  defaultHelp: `those of ${usualFolders.join(' and ')} that exist`,
  help: 'Folder whose *.prom files to read, below --rootfs.',
});

export const textfile: CollectorRow = {
  name: 'textfile',
  enabled: 'by default',
  description: 'what other programs have written to *.prom files',
  options: [directory],
  create: (context) => new Textfile(context),
};

const scrapeError = gauge('node_textfile_scrape_error', 'Whether a file or a folder could not be read: 1, or 0.');
const mtime = gauge('node_textfile_mtime_seconds', 'When a file was last written, in seconds since 1970.', {
  labels: ['file'],
  divisor: 1000,
});
const refused = gauge(
  'sysmon_agent_textfile_refused',
  'Always 1, for each text file that is not read. format: it is half-written or wrong; duplicate: another file has one of ' +
    'its series; conflict: another file has one of its families with another type; timestamp: a sample has one; limit: it ' +
    'is too large; unreadable. The log names the line.',
  { labels: ['file', 'reason'] },
);

// A SMART report of 100 disks has 1.5 MB and 10 000 samples. All files together stay below what one collector may have.
const fileBytesMax = 2 * 1024 * 1024;
const fileSamplesMax = 10_000;
const filesBytesMax = 5 * 1024 * 1024;
const filesSamplesMax = 20_000;
const filesMax = 500;
const labelsMax = 60;
// The kernel's file times step every few milliseconds, so that what changed twice may look as if it had changed once.
const sureMs = 2000;
const lookAgainMs = 60_000;
const end = '.prom';

type Reason = 'format' | 'duplicate' | 'conflict' | 'timestamp' | 'limit' | 'unreadable';

/** What a file gives. `absent`: it went away after it was listed. */
type Content =
  | { readonly kind: 'read'; readonly samples: readonly TextSample[]; readonly bytes: number; readonly mtimeMs: number }
  | { readonly kind: 'refused'; readonly reason: Reason; readonly error: CollectError }
  | { readonly kind: 'absent' };

interface TextFile {
  /** As the label has it. */
  readonly name: string;
  readonly path: string;
  stat: FileStat | undefined;
  isSure: boolean;
  content: Content;
}

interface Folder {
  readonly name: string;
  readonly isOptional: boolean;
  /** By the monotonic clock: one that is missing and need not be there is looked for once a minute. */
  lookAtMs: number;
  stat: FileStat | undefined;
  isSure: boolean;
  files: readonly TextFile[];
  error: CollectError | undefined;
}

interface FileSample {
  readonly family: SampledFamily;
  readonly labels: readonly string[];
  readonly value: number;
}

class Textfile implements Collector {
  readonly #clock: CollectorContext['clock'];
  readonly #folders: readonly Folder[];
  /** By name, suffix and labels: the recorder knows a family by its object. */
  #families = new Map<string, SampledFamily>();
  #samples: readonly FileSample[] = [];
  #mtimes: readonly { readonly name: string; readonly mtimeMs: number }[] = [];
  #refusals: readonly { readonly labels: readonly string[]; readonly error: CollectError }[] = [];

  constructor(context: CollectorContext) {
    this.#clock = context.clock;
    const given = context.option(directory);
    const isOptional = given.length === 0;
    const names = new Set((isOptional ? usualFolders : given).map(withoutSlash));
    this.#folders = [...names].map((name) => ({
      ...{
        name,
        isOptional,
        lookAtMs: Number.NEGATIVE_INFINITY,
        stat: undefined,
        isSure: false,
        files: [],
        error: undefined,
      },
    }));
  }

  collect(host: Host, out: Samples): void {
    let isChanged = false;
    for (const folder of this.#folders) if (this.#look(host, folder)) isChanged = true;
    if (isChanged) this.#combine(host);

    for (const { family, labels, value } of this.#samples) out.sampleLabels(family, value, labels);
    for (const { name, mtimeMs } of this.#mtimes) out.sample(mtime, Math.floor(mtimeMs), name);
    for (const { labels, error } of this.#refusals) {
      out.sampleLabels(refused, 1, labels);
      host.passOver(error);
    }
    const errors = this.#folders.flatMap(({ error }) => error ?? []);
    for (const error of errors) host.passOver(error);
    out.sample(scrapeError, errors.length > 0 || this.#refusals.length > 0 ? 1 : 0);
  }

  /** Reads what has changed in a folder. Returns whether anything has. */
  #look(host: Host, folder: Folder): boolean {
    let isChanged = this.#list(host, folder);
    for (const file of folder.files) if (this.#read(host, file)) isChanged = true;
    return isChanged;
  }

  #list(host: Host, folder: Folder): boolean {
    const nowMs = this.#clock.monotonicMs();
    if (nowMs < folder.lookAtMs) return false;
    const path = `root/${folder.name}`;
    const hadError = folder.error !== undefined;
    try {
      const stat = host.stat(path);
      if (stat === undefined) {
        if (!folder.isOptional) throw new NoDataError(host.path(path), ' does not exist');
        folder.lookAtMs = nowMs + lookAgainMs;
      }
      if (isSame(folder.stat, stat) && folder.isSure && !hadError) return false;
      folder.isSure = this.#isSure(stat);
      folder.stat = stat;
      folder.error = undefined;
      const names = stat === undefined ? [] : host.list(path).filter((name) => name.endsWith(end));
      if (names.length > filesMax) {
        const what = ` has ${names.length} files, of which only the first ${filesMax} are read`;
        folder.error = new FormatError(host.path(path), what);
      }
      const known = new Map(folder.files.map((file) => [file.path, file]));
      folder.files = names.slice(0, filesMax).map((name) => known.get(`${path}/${name}`) ?? newFile(folder.name, name));
      return true;
    } catch (error) {
      if (!(error instanceof CollectError)) throw error;
      folder.error = error;
      folder.stat = undefined;
      folder.files = [];
      return !hadError;
    }
  }

  #read(host: Host, file: TextFile): boolean {
    try {
      const stat = host.stat(file.path);
      if (file.isSure && isSame(file.stat, stat)) return false;
      file.stat = stat;
      file.isSure = this.#isSure(stat);
      file.content = stat === undefined ? { kind: 'absent' } : contentOf(host, file.path, stat);
    } catch (error) {
      if (!(error instanceof UnreadableError)) throw error;
      file.content = { kind: 'refused', reason: 'unreadable', error };
    }
    return true;
  }

  #isSure(stat: FileStat | undefined): boolean {
    return stat === undefined || this.#clock.nowMs() - Math.max(stat.mtimeMs, stat.ctimeMs) > sureMs;
  }

  /** Puts all files together: the first of two that contradict each other is kept. */
  #combine(host: Host): void {
    const all = new Combined(this.#families);
    const mtimes: { name: string; mtimeMs: number }[] = [];
    const refusals: { labels: readonly string[]; error: CollectError }[] = [];
    for (const { name, path, content } of this.#folders.flatMap(({ files }) => files)) {
      if (content.kind === 'absent') continue;
      const problem = content.kind === 'refused' ? content : all.add(content, { name, path: host.path(path) });
      if (problem !== undefined) refusals.push({ labels: [name, problem.reason], error: problem.error });
      else if (content.kind === 'read') mtimes.push({ name, mtimeMs: content.mtimeMs });
    }
    this.#families = all.families;
    this.#samples = all.samples;
    this.#mtimes = mtimes;
    this.#refusals = refusals;
  }
}

/** The samples of several files. */
class Combined {
  readonly families = new Map<string, SampledFamily>();
  readonly samples: FileSample[] = [];
  readonly #known: ReadonlyMap<string, SampledFamily>;
  /** By name: in which file it was first. */
  readonly #owners = new Map<string, { readonly type: string; readonly help: string; readonly file: string }>();
  /** By series: in which file it is. */
  readonly #series = new Map<string, string>();
  #bytes = 0;

  constructor(known: ReadonlyMap<string, SampledFamily>) {
    this.#known = known;
  }

  /** Adds a file whole, or refuses it whole. */
  add(
    { samples, bytes }: Extract<Content, { kind: 'read' }>,
    file: { readonly name: string; readonly path: string },
  ): { readonly reason: Reason; readonly error: FormatError } | undefined {
    const refuse = (reason: Reason, what: string) => ({ reason, error: new FormatError(file.path, what) });
    if (this.samples.length + samples.length > filesSamplesMax) {
      return refuse('limit', ` is left out: with it, all files have more than ${filesSamplesMax} samples`);
    }
    if (this.#bytes + bytes > filesBytesMax) {
      return refuse('limit', ` is left out: with it, all files have more than ${filesBytesMax} bytes`);
    }
    const keys: string[] = [];
    for (const { group, labelValues, line } of samples) {
      const name = group.family.name;
      const owner = this.#owners.get(name);
      if (owner !== undefined && owner.type !== group.family.type) {
        return refuse(
          'conflict',
          `, line ${line}: '${name}' is a ${group.family.type}, in '${owner.file}' a ${owner.type}`,
        );
      }
      const key = JSON.stringify([name + group.suffix, group.labelNames, labelValues]);
      const other = this.#series.get(key);
      if (other !== undefined)
        return refuse('duplicate', `, line ${line}: a series of '${name}' is in '${other}', too`);
      keys.push(key);
    }
    this.#bytes += bytes;
    for (const key of keys) this.#series.set(key, file.name);
    for (const { group, labelValues, value } of samples) {
      this.samples.push({ family: this.#familyOf(group, file.name), labels: labelValues, value });
    }
    return undefined;
  }

  /** The same object as before, where nothing of it has changed. */
  #familyOf({ family, suffix, labelNames }: TextGroup, file: string): SampledFamily {
    const { name, type } = family;
    if (!this.#owners.has(name)) this.#owners.set(name, { type, help: family.help, file });
    const { help } = this.#owners.get(name)!;
    const key = JSON.stringify([name, suffix, labelNames]);
    const known = this.families.get(key) ?? this.#known.get(key);
    const isSameFamily = known !== undefined && known.type === type && known.help === help;
    const made = isSameFamily ? known : { name, type, help, divisor: 1, suffix, labelNames };
    this.families.set(key, made);
    return made;
  }
}

/** As the label has it: `/dir` for `/dir/` and `//dir`. */
function withoutSlash(folder: string): string {
  return normalize(folder).replace(/(?<=.)\/$/, '');
}

function newFile(folder: string, name: string): TextFile {
  const path = `root/${folder}/${name}`;
  return { name: join(folder, name), path, stat: undefined, isSure: false, content: { kind: 'absent' } };
}

const utf8 = new TextDecoder('utf-8');

/** A text is UTF-8; in its comments, helps among them, other bytes become U+FFFD. Throws a TextError. */
function decode(bytes: Uint8Array): string {
  if (!isUtf8(bytes)) {
    for (let start = 0, line = 1; start < bytes.length; line++) {
      const found = bytes.indexOf(newline, start);
      const end = found < 0 ? bytes.length : found;
      const one = bytes.subarray(start, end);
      if (!isUtf8(one) && !/^\s*#/.test(utf8.decode(one))) {
        throw new TextError(
          'format',
          line,
          `it has bytes that are no UTF-8: ${JSON.stringify(utf8.decode(one).slice(0, 60))}`,
        );
      }
      start = end + 1;
    }
  }
  return utf8.decode(bytes);
}

const newline = 0x0a;

function contentOf(host: Host, at: string, { size, mtimeMs }: FileStat): Content {
  const path = host.path(at);
  const refuse = (reason: Reason, what: string) =>
    ({ kind: 'refused', reason, error: new FormatError(path, what) }) as const;
  if (size > fileBytesMax) return refuse('limit', ` has ${size} bytes, at most ${fileBytesMax} are read`);
  const bytes = host.readForeign(at, fileBytesMax);
  if (bytes === undefined) return { kind: 'absent' };
  try {
    const samples = parseText(decode(bytes), { samplesMax: fileSamplesMax, labelsMax });
    const stamped = samples.find(({ timestampMs }) => timestampMs !== undefined);
    if (stamped === undefined) return { kind: 'read', samples, bytes: bytes.length, mtimeMs };
    return refuse('timestamp', `, line ${stamped.line}: a sample has a timestamp, expected none in a text file`);
  } catch (error) {
    if (!(error instanceof TextError)) throw error;
    return refuse(error.code, `${error.line === 0 ? '' : `, line ${error.line}`}: ${error.message}`);
  }
}

function isSame(a: FileStat | undefined, b: FileStat | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  return a.mtimeMs === b.mtimeMs && a.ctimeMs === b.ctimeMs && a.size === b.size && a.ino === b.ino;
}
