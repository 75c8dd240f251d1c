import {
  closeSync,
  constants,
  existsSync,
  fstatSync,
  openSync,
  readdirSync,
  readSync,
  realpathSync,
  statSync,
} from 'node:fs';
import { join } from 'node:path';
import { CollectError, NoDataError, UnreadableError } from './errors.ts';
import { areInDoubt, nameOf, pathOf } from './names.ts';
import { type FileSystemSize, type HostSystem, nodeSystem } from './system.ts';
import { KernelText, Words } from './text.ts';

/** Where the four trees are: elsewhere in a container, and a fixture in tests. */
export interface HostRoots {
  readonly procfs: string;
  readonly sysfs: string;
  readonly rootfs: string;
  readonly udev: string;
}

export const hostRoots: HostRoots = { procfs: '/proc', sysfs: '/sys', rootfs: '/', udev: '/run/udev/data' };

/** Milliseconds since 1970, bytes, and which file it is. */
export interface FileStat {
  readonly mtimeMs: number;
  readonly ctimeMs: number;
  readonly size: number;
  readonly ino: number;
}

/** What the last read of a file has come to. */
export interface ReadFile {
  /** Its content, where there is no error. */
  readonly text: KernelText;
  /** Of the system call; undefined where there is none. */
  readonly error: unknown;
}

/**
 * Files, read at each instant, that say when another is to be read. `areSure`: it cannot change without them, unless somebody
 * sets it by hand, and is read once in ten minutes beside; otherwise once a minute.
 */
export interface Signs {
  readonly paths: readonly string[];
  readonly areSure: boolean;
}

interface KernelFile extends ReadFile {
  readonly root: string;
  /** Whether a read that does not fill the buffer has reached the end of the file. */
  readonly comesWhole: boolean;
  /** Undefined where the file is not open. */
  fd: number | undefined;
  error: unknown;
  /** The instant at which `text` was read, and the one at which it was last asked for. */
  instantRead: number;
  instantAsked: number;
}

/**
 * The files of the kernel, named `proc/…`, `sys/…`, `root/…`, `udev/…`, wherever those trees are.
 *
 * Files are read synchronously and stay open, because that is what costs: a pread of a small file takes 6 to 15 µs, to
 * open, read and close it two or three times as long, and through the promise API a hundred times. Kept descriptors of
 * /proc and /sys are never stale, with one exception: that of a removed device says ENODEV for ever, also when
 * the device is back. It is opened again then. Files of the other two trees are replaced rather than written to, so
 * they are opened for each read.
 *
 * At one instant a file is read once, however many collectors ask for it.
 */
export class Host {
  readonly system: HostSystem;
  readonly #filesKeptMax: number;
  readonly #roots: Readonly<Record<string, string>>;
  readonly #files = new Map<string, KernelFile>();
  readonly #words = new Words();
  readonly #errors: CollectError[] = [];
  readonly #passing = this.newText();
  #openCount = 0;
  #instant = 0;

  constructor(roots: HostRoots = hostRoots, system: HostSystem = nodeSystem, filesKeptMax = filesKeptMin) {
    this.system = system;
    this.#filesKeptMax = filesKeptMax;
    this.#roots = { proc: roots.procfs, sys: roots.sysfs, root: roots.rootfs, udev: roots.udev };
  }

  /** The number of the present instant. */
  get instant(): number {
    return this.#instant;
  }

  /** Starts an instant: files are read again. Now and then closes those of devices that are gone. */
  beginInstant(): void {
    this.#instant++;
    if (this.#instant % unreadInstants === 0) this.#closeUnread();
  }

  /**
   * The file's content, valid until the next instant. Throws NoDataError where it is missing, its device is gone, or the
   * kernel has it switched off (EOPNOTSUPP); otherwise UnreadableError.
   */
  read(path: string): KernelText {
    const { text, error } = this.file(path);
    if (error === undefined) return text;
    const what = isNoFile(error) ? ' does not exist' : ` is not there: ${reasonOf(error)}`;
    if (isNoFile(error) || isGone(error)) throw new NoDataError(text.path, what, { cause: error });
    throw unreadable(text.path, error);
  }

  /** The same, but undefined where `read` throws NoDataError. */
  readIfThere(path: string): KernelText | undefined {
    const { text, error } = this.file(path);
    if (error === undefined) return text;
    if (isNoFile(error) || isGone(error)) return undefined;
    throw unreadable(text.path, error);
  }

  /**
   * The value of a file of one line, such as an attribute of a device; undefined where there is no such file. One that
   * cannot be parsed, or that is there and has no value, costs its own series: it is undefined too, and one of `takeErrors`.
   * No value: the read fails (ENODATA, EINVAL, EIO, EAGAIN, EPERM, EOPNOTSUPP; ENODEV where the device has just gone),
   * or gives nothing, or `<unknown>`. Of a file that may be empty in good health, `whenEmpty` is the value then.
   */
  value<T>(path: string, parse: (text: KernelText) => T, whenEmpty?: T): T | undefined {
    return this.valueOf(this.file(path), parse, whenEmpty);
  }

  /** `value` of a file that was read. */
  protected valueOf<T>({ text, error }: ReadFile, parse: (text: KernelText) => T, whenEmpty?: T): T | undefined {
    try {
      if (error !== undefined) {
        return isNoFile(error) ? undefined : this.passOver(unreadable(text.path, error));
      }
      if (text.isEmpty) return whenEmpty ?? this.passOver(new UnreadableError(text.path, empty));
      text.firstLine();
      if (text.saysUnknown()) return this.passOver(new UnreadableError(text.path, unknown));
      return parse(text);
    } catch (error) {
      return this.passOver(error);
    }
  }

  /**
   * The same for what hardly ever changes, such as the name of a device: a collector in the slow lane has it read once a
   * minute.
   */
  rareValue<T>(path: string, parse: (text: KernelText) => T, whenEmpty?: T): T | undefined {
    return this.value(path, parse, whenEmpty);
  }

  /**
   * The same for what changes together with files that are read at each instant, such as the speed of a link with its state:
   * a collector in the slow lane has it read when one of those says something else, and beside that rarely (`Signs`). An
   * attribute that devices of this kind, or in this state, do not have by design answers EINVAL: it is undefined then, as if
   * there were no such file, and no error.
   */
  valueAfter<T>(path: string, _signs: Signs, parse: (text: KernelText) => T): T | undefined {
    return this.knownValue(this.file(path), parse);
  }

  /** `valueAfter` of a file that was read. */
  protected knownValue<T>(file: ReadFile, parse: (text: KernelText) => T): T | undefined {
    return codeOf(file.error) === 'EINVAL' ? undefined : this.valueOf(file, parse);
  }

  /** What such a file says, whole; undefined where there is none, or it has no value. */
  rareText(path: string, whenEmpty?: string): string | undefined {
    return this.rareValue(path, textOf, whenEmpty);
  }

  /**
   * The same as `value` for a file that the kernel gives to root alone (EACCES, EPERM): for everybody else it is as if it
   * were not there.
   */
  privateValue<T>(path: string, parse: (text: KernelText) => T): T | undefined {
    const { error } = this.file(path);
    return isForbidden(error) ? undefined : this.value(path, parse);
  }

  /** The same as `value` for a file that is not text; `parse` gets its bytes. */
  binary<T>(path: string, parse: (bytes: Uint8Array, path: string) => T): T | undefined {
    try {
      const text = this.readIfThere(path);
      return text === undefined ? undefined : parse(text.content(), text.path);
    } catch (error) {
      return this.passOver(error);
    }
  }

  /**
   * Reads those of these files that there are, in this order; one that cannot be read or parsed costs its own series.
   * Throws NoDataError where there is none of them, and the first error where all that there are failed.
   */
  readEach(paths: readonly string[], read: (text: KernelText, at: number) => void): void {
    let errors = noErrors;
    let isRead = false;
    for (let at = 0; at < paths.length; at++) {
      try {
        const text = this.readIfThere(paths[at]!);
        if (text === undefined) continue;
        read(text, at);
        isRead = true;
      } catch (error) {
        if (!(error instanceof CollectError)) throw error;
        errors = [...errors, error];
      }
    }
    if (errors.length > 0 && !isRead) throw errors[0];
    this.#errors.push(...errors);
    if (!isRead) throw new NoDataError(this.path(paths[0]!), ' does not exist, or is switched off');
  }

  /** Reads a file that is only a part of a collector, if there is one. If it cannot be read or parsed, its own series go. */
  part(path: string, read: (text: KernelText) => void): void {
    try {
      const text = this.readIfThere(path);
      if (text !== undefined) read(text);
    } catch (error) {
      this.passOver(error);
    }
  }

  /** Makes an error of one line, attribute or device one of `takeErrors`. Throws what is no CollectError: a bug. */
  passOver(error: unknown): undefined {
    if (!(error instanceof CollectError)) throw error;
    this.#errors.push(error);
  }

  /** What was passed over since the last call, because it could not be read or parsed. */
  takeErrors(): readonly CollectError[] {
    if (this.#errors.length === 0) return noErrors;
    return this.#errors.splice(0);
  }

  /** What stat(2) says of a file or a folder, undefined where it is missing. Throws UnreadableError. */
  stat(path: string): FileStat | undefined {
    try {
      return statSync(pathOf(this.path(path)), { throwIfNoEntry: false });
    } catch (error) {
      if (isNoFile(error) || isGone(error)) return undefined;
      throw unreadable(this.path(path), error);
    }
  }

  /**
   * A file that somebody else writes, read whole and closed; undefined where it is missing. Throws an UnreadableError
   * where it is no regular file (a FIFO would never end) or longer than `bytesMax`.
   */
  readForeign(path: string, bytesMax: number): Uint8Array | undefined {
    const real = this.path(path);
    let fd: number | undefined;
    try {
      fd = openSync(pathOf(real), atOnce);
      const stat = fstatSync(fd);
      if (!stat.isFile()) throw new Error('it is no regular file');
      if (stat.size > bytesMax) throw new Error(`it has ${stat.size} bytes, more than ${bytesMax}`);
      const bytes = new Uint8Array(stat.size);
      return bytes.subarray(0, readInto(bytes, fd, { from: 0, comesWhole: false }));
    } catch (error) {
      if (isNoFile(error) || isGone(error)) return undefined;
      throw unreadable(real, error);
    } finally {
      if (fd !== undefined) closeSync(fd);
    }
  }

  exists(path: string): boolean {
    return existsSync(pathOf(this.path(path)));
  }

  /** Where it is when all symbolic links are followed, as a real path; undefined where there is nothing. */
  realPath(path: string): string | undefined {
    try {
      return this.resolved(this.path(path));
    } catch (error) {
      if (isNoFile(error) || isGone(error)) return undefined;
      return this.passOver(unreadable(this.path(path), error));
    }
  }

  /** The size of the file system at this path; undefined where it is not known yet. Throws UnreadableError. */
  fileSystem(path: string): FileSystemSize | undefined {
    const real = this.path(path);
    try {
      return this.size(real);
    } catch (error) {
      if (codeOf(error) === notReadCode) return undefined;
      throw unreadable(real, error);
    }
  }

  /** The names in a folder, sorted. Throws NoDataError where it is missing, or UnreadableError. */
  list(path: string): string[] {
    const real = this.path(path);
    try {
      return this.names(real);
    } catch (error) {
      if (isNoFile(error) || isGone(error)) throw new NoDataError(real, ' does not exist', { cause: error });
      throw unreadable(real, error);
    }
  }

  /**
   * The devices in a folder: its names that match, sorted. Throws NoDataError where there is none, so that a host
   * without such a device is looked at once a minute.
   */
  devices(path: string, pattern = anyName): string[] {
    const names = this.list(path).filter((name) => pattern.test(name));
    if (names.length === 0) throw new NoDataError(this.path(path), ' has no such device');
    return names;
  }

  /** The same, but empty where there is none: for one of several folders that a collector looks for its devices in. */
  devicesIfThere(path: string, pattern = anyName): string[] {
    try {
      return this.devices(path, pattern);
    } catch (error) {
      if (error instanceof NoDataError) return [];
      throw error;
    }
  }

  /**
   * The names in a folder of one device that match, sorted; none where there is no such folder. One that cannot be read costs
   * its own device: it is empty, too, and one of `takeErrors`.
   */
  attributes(path: string, pattern = anyName): readonly string[] {
    return this.attributesIfKnown(path, pattern) ?? noNames;
  }

  /** The same, but undefined where the folder cannot be read: for what is counted. */
  attributesIfKnown(path: string, pattern = anyName): readonly string[] | undefined {
    try {
      const names = this.list(path);
      return pattern === anyName ? names : names.filter((name) => pattern.test(name));
    } catch (error) {
      return error instanceof NoDataError ? noNames : this.passOver(error);
    }
  }

  /**
   * The content of a file that is read now and not kept open: for the many files of processes, which come and go. Valid
   * until the next call; undefined where `read` throws NoDataError.
   */
  passing(path: string): KernelText | undefined {
    const text = this.#passing;
    text.path = this.path(path);
    try {
      const fd = openSync(text.path, atOnce);
      try {
        let length = readInto(buffer, fd, { from: 0, comesWhole: false });
        while (length === buffer.length) length = this.#readOn(fd, length);
        text.fill(buffer, length);
      } finally {
        closeSync(fd);
      }
    } catch (error) {
      if (isNoFile(error) || isGone(error)) return undefined;
      throw unreadable(text.path, error);
    }
    return text;
  }

  /** `proc/stat` for an error message: `/proc/stat`. */
  path(path: string): string {
    const slash = path.indexOf('/');
    const root = this.#roots[slash < 0 ? path : path.slice(0, slash)];
    if (root === undefined) throw new TypeError(`a path starts with proc, sys, root or udev, '${path}' does not`);
    return slash < 0 ? root : join(root, path.slice(slash + 1));
  }

  /** Closes all; the next read opens again. */
  close(): void {
    for (const file of this.#files.values()) this.#close(file);
    this.#files.clear();
  }

  /** Reads now the files of /proc that were asked for at the last instant, and will be again. */
  protected readAhead(): void {
    for (const file of this.#files.values()) {
      if (file.root === 'proc' && file.instantAsked === this.#instant - 1) this.#update(file);
    }
  }

  /** Reads the file where it was not read at this instant. */
  protected file(path: string): ReadFile {
    const file = this.#fileOf(path);
    file.instantAsked = this.#instant;
    file.error = this.#update(file);
    return file;
  }

  /** A text without a path yet, whose errors are among `takeErrors`. */
  protected newText(): KernelText {
    return new KernelText('', this.#words, this.#errors);
  }

  // The system calls behind `list`, `realPath` and `fileSystem`, on real paths. They throw as node:fs does.

  protected names(path: string): string[] {
    const real = pathOf(path);
    const names = readdirSync(real);
    return (areInDoubt(names) ? readdirSync(real, 'buffer').map(nameOf) : names).sort();
  }

  protected resolved(path: string): string {
    return realpathSync.native(pathOf(path));
  }

  protected size(path: string): FileSystemSize {
    return this.system.fileSystem(path);
  }

  #fileOf(path: string): KernelFile {
    let file = this.#files.get(path);
    if (file === undefined) {
      const root = path.slice(0, path.indexOf('/'));
      const text = this.newText();
      text.path = this.path(path);
      const comesWhole = root === 'sys' || wholeFiles.has(path) || path.startsWith('proc/sys/');
      file = { text, root, comesWhole, fd: undefined, error: undefined, instantRead: never, instantAsked: never };
      this.#files.set(path, file);
    }
    return file;
  }

  /** Reads the file where it was not read at this instant. Returns the system call's error, if there is one. */
  #update(file: KernelFile): unknown {
    if (file.instantRead === this.#instant) {
      file.text.rewind();
      return undefined;
    }
    try {
      this.#readFile(file);
      file.instantRead = this.#instant;
      return undefined;
    } catch (error) {
      // A driver that has no value at present may have one at the next instant, by the same descriptor.
      if (!hasNoValueNow(error)) this.#close(file);
      return error;
    }
  }

  #readFile(file: KernelFile): void {
    if (file.fd === undefined) return this.#readFresh(file);
    try {
      this.#readOpen(file.fd, file);
    } catch (error) {
      if (codeOf(error) !== 'ENODEV') throw error;
      this.#close(file);
      this.#readFresh(file);
    }
  }

  #readFresh(file: KernelFile): void {
    const fd = openSync(pathOf(file.text.path), atOnce);
    file.fd = fd;
    this.#openCount++;
    try {
      this.#readOpen(fd, file);
    } finally {
      const isKept = (file.root === 'proc' || file.root === 'sys') && this.#openCount <= this.#filesKeptMax;
      if (!isKept) this.#close(file);
    }
  }

  #readOpen(fd: number, { text, comesWhole }: KernelFile): void {
    // Usually a file is about as long as the last time.
    const { room } = text;
    let length = readInto(room, fd, { from: 0, comesWhole });
    if (length < room.length) return text.filled(length);
    length = readInto(buffer, fd, { from: 0, comesWhole });
    while (length === buffer.length) length = this.#readOn(fd, length, comesWhole);
    text.fill(buffer, length);
  }

  /** Reads on into a larger buffer. */
  #readOn(fd: number, length: number, comesWhole = false): number {
    if (length > fileBytesMax) throw new Error(`it is longer than ${fileBytesMax} bytes`);
    const larger = new Uint8Array(buffer.length * 2);
    larger.set(buffer);
    buffer = larger;
    return readInto(buffer, fd, { from: length, comesWhole });
  }

  #closeUnread(): void {
    for (const [path, file] of this.#files) {
      if (this.#instant - file.instantAsked < unreadInstants) continue;
      this.#close(file);
      this.#files.delete(path);
    }
  }

  #close(file: KernelFile): void {
    if (file.fd === undefined) return;
    const fd = file.fd;
    file.fd = undefined;
    this.#openCount--;
    try {
      closeSync(fd);
    } catch {
      // It was open for reading only: nothing can be lost, and the descriptor is gone whatever close says.
    }
  }
}

// For what does not fit where the file was the last time. Each file keeps its own text, so that a collector may hold two at
// a time; nothing stays in here, so that all hosts share it (each collector of the slow lane has one).
let buffer = new Uint8Array(16 * 1024);

/** Reads on to the end of the file, or of the buffer. Returns up to where. */
function readInto(
  into: Uint8Array,
  fd: number,
  { from, comesWhole }: { readonly from: number; readonly comesWhole: boolean },
): number {
  let length = from;
  while (length < into.length) {
    const count = readSync(fd, into, length, into.length - length, length);
    length += count;
    if (count === 0 || (comesWhole && length < into.length)) break;
  }
  return length;
}

/**
 * A read of a file made of records (net/dev, diskstats, mountinfo) returns at most a page, however large the buffer,
 * and only a read of 0 bytes is its end. These files are one record (single_open), which one read returns whole, like
 * an attribute of sysfs and a value below /proc/sys. This saves the read of 0 bytes.
 * https://www.kernel.org/doc/html/latest/filesystems/seq_file.html#the-extra-simple-version
 */
const wholeFiles: ReadonlySet<string> = new Set(['proc/loadavg', 'proc/meminfo', 'proc/stat', 'proc/uptime']);

/**
 * A FIFO in place of a file would keep open(2) waiting for a writer. With O_NONBLOCK it opens, and a read at a position
 * fails with ESPIPE. Files of /proc, sysfs and cgroups, and those on a disk, know no such mode and read as ever; lxcfs gets
 * the flag and ignores it. https://man7.org/linux/man-pages/man7/fifo.7.html
 */
const atOnce = constants.O_RDONLY | constants.O_NONBLOCK;

const noErrors: readonly CollectError[] = [];
const noNames: readonly string[] = [];
const never = -1;
// A collector may read some files rarely. A file that was not read for longer is closed: its device is probably gone.
const unreadInstants = 120;
// Far more than any file of the kernel that is read here: a larger one is not of the kernel, and must not fill the
// memory.
const fileBytesMax = 32 * 1024 * 1024;
// Beyond so many, a file is opened for each read. Every system allows it (kept-files.ts).
const filesKeptMin = 2048;

const anyName = /^/;
const empty = { errno: 'empty', reason: ' is empty' };
const unknown = { errno: 'unknown', reason: ' has no value: the kernel says that it is unknown' };

/** The code of an error that says that a file was not read yet: in the slow lane, for a moment. */
export const notReadCode = 'not-read';

function isNoFile(error: unknown): boolean {
  const code = codeOf(error);
  return code === 'ENOENT' || code === 'ENOTDIR' || code === notReadCode;
}

/**
 * ENODEV and ENXIO: the device went away between the listing and the read; ESRCH: the process. EOPNOTSUPP: the kernel has
 * this and it is switched off, as the files of /proc/pressure say with `psi=0`.
 */
const goneCodes: ReadonlySet<string> = new Set(['ENODEV', 'ENXIO', 'ESRCH', 'EOPNOTSUPP', 'ENOTSUP']);

function isGone(error: unknown): boolean {
  const code = codeOf(error);
  return goneCodes.has(code ?? '');
}

function isForbidden(error: unknown): boolean {
  const code = codeOf(error);
  return code === 'EACCES' || code === 'EPERM';
}

function textOf(text: KernelText): string {
  return text.rest();
}

function hasNoValueNow(error: unknown): boolean {
  const code = codeOf(error);
  return code === 'EINVAL' || code === 'ENODATA' || code === 'EAGAIN' || code === 'EBUSY';
}

/** Of an error that is given again because its file was not read again, the same as before. */
function unreadable(path: string, error: unknown): UnreadableError {
  const before = error instanceof Error ? unreadables.get(error) : undefined;
  if (before?.path === path) return before;
  const errno = codeOf(error) ?? 'other';
  const made = new UnreadableError(path, { errno, reason: ` cannot be read: ${reasonOf(error)}`, cause: error });
  if (error instanceof Error) unreadables.set(error, made);
  return made;
}

const unreadables = new WeakMap<Error, UnreadableError>();

export function codeOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}

/** Node's messages repeat the path: `EACCES: permission denied, open '/proc/…'`. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const comma = codeOf(error) === undefined ? -1 : error.message.lastIndexOf(', ');
  return comma < 0 ? error.message : error.message.slice(0, comma);
}
