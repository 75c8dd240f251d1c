import assert from 'node:assert/strict';
import { closeSync, ftruncateSync, mkdirSync, openSync, realpathSync, rmSync, writeSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { test } from 'node:test';
import { collectorRows } from '../../../../src/agent/collect/collectors/index.ts';
import { CollectError } from '../../../../src/agent/collect/proc/errors.ts';
import type { Host } from '../../../../src/agent/collect/proc/host.ts';
import { collectOn, fixtureHosts, mayBeEmpty } from '../../../support/collect-fixture.ts';
import { type FixtureHost, type FixtureTree, hostOf, makeTree } from '../../../support/fixture-proc.ts';
import { Random } from '../../../support/random.ts';

// The files of every fixture, damaged. What is damaged costs its own series, and is an error that names the file; no
// other series goes, and none has another value.

const seed = process.env.SEED ?? String(Math.floor(Math.random() * 2 ** 31));

/** How much of it. Another run takes other places, bytes and files. */
export interface Damage {
  /** Of each kind: line ends, edges of numbers. */
  readonly placesMax: number;
  readonly bytesRandom: number;
  /** Of a fixture: a device of some kinds has a hundred files. */
  readonly filesMax: number;
}

/** Whose labels may differ, or those of one file: what a part of it says, or uname(2) says instead, is right, too. */
const withSubstitutes = [
  ...['bcachefs', 'btrfs', 'cpu proc/cpuinfo', 'cpufreq', 'diskstats', 'dmi', 'drm', 'edac', 'fibrechannel', 'hwmon'],
  ...['infiniband', 'netclass', 'netdev sys/class/net/eth0/ifalias', 'nvme', 'nvmesubsystem', 'os', 'pcidevice'],
  ...['powersupplyclass', 'rapl', 'uname', 'watchdog'],
];
/** Whose numbers may be negative: a minus sign does no damage. */
const withNegatives = [
  ...['bcache', 'bcachefs', 'hwmon', 'ksmd', 'netclass', 'netstat', 'powersupplyclass', 'swap', 'sysctl'],
  ...['sockstat', 'thermal_zone', 'wifi'],
  'zfs',
];
/** A file of theirs is refused whole, by design; each has a test of its own. */
const refusedWhole = ['textfile'];
/** Whose values are sums over rows: without one of them they are smaller; with one that cannot be read they are absent. */
const withSums = ['arp', 'bonding', 'conntrack', 'network_route', 'processes', 'tcpstat', 'udp_queues'];
/** Some of whose values are sums over rows, as an option says. */
const withSomeSums = ['ipvs'];
/** Whose values say whether a file is there. */
const withPresence = ['selinux'];
/** Whose lines are added up, one for each device that had any I/O: with fewer lines, or none, it is another right sum. */
const sums = /\/io\.stat$/;

interface Outcome {
  /** Empty where the collector failed. */
  readonly lines: readonly string[];
  readonly errors: readonly CollectError[];
}

/** The files of one fixture. Each collection is the first of a new collector. */
class Bed {
  readonly #name: string;
  readonly #fixture: FixtureHost;
  readonly #tree: FixtureTree;
  readonly #host: Host;
  readonly #open = new Map<string, number>();
  readonly whole: Outcome;

  constructor(name: string, fixture: FixtureHost) {
    this.#name = name;
    this.#fixture = fixture;
    this.#tree = makeTree(fixture.files, fixture.links);
    this.#host = hostOf(this.#tree, fixture);
    this.whole = this.#collect();
  }

  get files(): string[] {
    return [...this.#fixture.files.keys()];
  }

  text(file: string): string {
    return this.#fixture.files.get(file)!;
  }

  path(file: string): string {
    return this.#tree.path(file);
  }

  with(file: string, content: string | Uint8Array): Outcome {
    this.#overwrite(file, content);
    const outcome = this.#collect();
    this.#overwrite(file, this.text(file));
    return outcome;
  }

  without(file: string): Outcome {
    return this.#replaced(file, () => {});
  }

  /** A folder where a file should be cannot be read by anybody, not even by root. */
  withFolder(file: string): Outcome {
    return this.#replaced(file, () => mkdirSync(this.#tree.path(file)));
  }

  remove(): void {
    for (const fd of this.#open.values()) closeSync(fd);
    this.#host.close();
    this.#tree.remove();
  }

  /** Opening a file thousands of times is what would take the time. */
  #overwrite(file: string, content: string | Uint8Array): void {
    let fd = this.#open.get(file);
    if (fd === undefined) {
      fd = openSync(this.#tree.path(file), 'r+');
      this.#open.set(file, fd);
    }
    const bytes = Buffer.from(content);
    writeSync(fd, bytes, 0, bytes.length, 0);
    ftruncateSync(fd, bytes.length);
  }

  #replaced(file: string, make: () => void): Outcome {
    const fd = this.#open.get(file);
    if (fd !== undefined) closeSync(fd);
    this.#open.delete(file);
    this.#host.close();
    this.#tree.delete(file);
    make();
    const outcome = this.#collect();
    rmSync(this.#tree.path(file), { recursive: true, force: true });
    this.#tree.write(file, this.text(file));
    return outcome;
  }

  #collect(): Outcome {
    try {
      // Two devices that come to have one name are no matter here.
      const { text, parseErrors } = collectOn(this.#name, this.#host, this.#fixture.options, () => {});
      return { lines: text.split('\n').filter((line) => line !== '' && !line.startsWith('#')), errors: parseErrors };
    } catch (error) {
      if (!(error instanceof CollectError)) throw error;
      return { lines: [], errors: [...this.#host.takeErrors(), error] };
    }
  }
}

/** Whether what stands in the file makes a difference. */
function isRead(bed: Bed, file: string): boolean {
  const { lines, errors } = bed.with(file, 'something else\n');
  return errors.length > 0 || lines.join() !== bed.whole.lines.join();
}

/** Some of the files that are read. */
function someRead(bed: Bed, filesMax: number): string[] {
  const some: string[] = [];
  for (const file of new Random(`${seed} files`).shuffled(bed.files)) {
    if (some.length < filesMax && isRead(bed, file)) some.push(file);
  }
  return some;
}

/** One file of a fixture. */
class Patient {
  readonly whole: Outcome;
  readonly text: string;
  /** Of sysfs. */
  readonly isAttribute: boolean;
  readonly isSum: boolean;
  readonly mayBeSum: boolean;
  readonly #name: string;
  readonly #bed: Bed;
  readonly #file: string;

  constructor(name: string, bed: Bed, file: string) {
    this.#name = name;
    this.#bed = bed;
    this.#file = file;
    this.whole = bed.whole;
    this.text = bed.text(file);
    this.isAttribute = file.startsWith('sys/');
    this.isSum = withSums.includes(name);
    this.mayBeSum = withSomeSums.includes(name);
  }

  get hasNegatives(): boolean {
    return withNegatives.includes(this.#name);
  }

  with(content: string | Uint8Array): Outcome {
    return this.#bed.with(this.#file, content);
  }

  missing(): Outcome {
    return this.#bed.without(this.#file);
  }

  unreadable(): Outcome {
    return this.#bed.withFolder(this.#file);
  }

  /** Nothing beyond what the whole file gives, and `checkPaths`. */
  check({ lines, errors }: Outcome, what: string, differ: 'nothing' | 'labels' = 'nothing'): void {
    const shown = (line: string) => this.shown(line, differ);
    const known = new Set(this.whole.lines.map(shown));
    for (const line of lines) assert.ok(known.has(shown(line)), `${what}: ${line}`);
    this.checkPaths({ errors }, what);
  }

  /** What of a line the file must not change. */
  shown(line: string, differ: 'nothing' | 'labels' = 'nothing'): string {
    const isFree =
      differ === 'labels' || [this.#name, `${this.#name} ${this.#file}`].some((each) => withSubstitutes.includes(each));
    const isFreeOfValue = this.isSum || this.mayBeSum || withPresence.includes(this.#name);
    const labelless = isFree ? line.replace(/\{.*\}/, '') : line;
    return isFreeOfValue ? labelless.slice(0, labelless.lastIndexOf(' ')) : labelless;
  }

  /** Whatever is said is said of this file. */
  checkPaths({ errors }: Pick<Outcome, 'errors'>, what: string): void {
    for (const error of errors) {
      assert.equal(withoutLinks(error.path), withoutLinks(this.#bed.path(this.#file)), what);
      assert.ok(error.message.startsWith(`'${error.path}'`), error.message);
    }
  }
}

/** A collector may come to a file, which may be missing, by a link to its folder. */
function withoutLinks(path: string): string {
  return join(realpathSync(dirname(path)), basename(path));
}

interface Cause extends Damage {
  readonly random: Random;
}

/** Some of them, in order. */
function some(places: Iterable<number>, { random, placesMax }: Cause): number[] {
  return random
    .shuffled([...new Set(places)])
    .slice(0, placesMax)
    .sort((a, b) => a - b);
}

function lineEnds(bytes: Buffer): number[] {
  return [...bytes.keys()].filter((at) => bytes[at] === 0x0a).map((at) => at + 1);
}

function checkCuts(patient: Patient, cause: Cause): void {
  const { random, bytesRandom } = cause;
  const bytes = Buffer.from(patient.text);
  const edges = [...patient.text.matchAll(/\d+/g)].flatMap(({ 0: number, index }) => {
    const at = Buffer.byteLength(patient.text.slice(0, index));
    return [at, at + 1, at + number.length];
  });
  const anywhere = Array.from({ length: bytesRandom / 2 }, () => random.whole(0, bytes.length - 1));
  const ends = lineEnds(bytes);
  for (const end of some(ends, cause)) patient.check(patient.with(bytes.subarray(0, end)), `cut at ${end}`);
  // The kernel's files are read to their ends: one whose last line has no newline is whole.
  if (bytes.length > 1) {
    assert.deepEqual(patient.with(bytes.subarray(0, -1)), patient.whole, 'without the last newline');
  }
  if (patient.isAttribute) return;
  for (const cut of [...some(edges, cause), ...anywhere]) {
    const outcome = patient.with(bytes.subarray(0, cut));
    patient.checkPaths(outcome, `cut at ${cut}`);
    const lineStart = ends.filter((end) => end <= cut).at(-1) ?? 0;
    if (lineStart === 0 || patient.isSum || patient.mayBeSum) continue;
    // The line that was cut costs itself alone: what is before it stays.
    const kept = new Set(outcome.lines.map((line) => patient.shown(line)));
    const before = patient.with(bytes.subarray(0, lineStart)).lines;
    const lost = before.filter((line) => !kept.has(patient.shown(line)));
    assert.deepEqual(lost, [], `cut at ${cut}`);
  }
}

function checkOtherLines(patient: Patient, cause: Cause): void {
  const bytes = Buffer.from(patient.text);
  const ends = lineEnds(bytes);
  const between = (line: string, at: number) =>
    patient.with(Buffer.concat([bytes.subarray(0, at), Buffer.from(line), bytes.subarray(at)]));
  for (const at of some([0, ...ends], cause)) {
    assert.deepEqual(between('\n', at), patient.whole, `a blank line at ${at}`);
    if (ends.length < 2) continue;
    const outcome = between('\x07 no such-line -1\n', at);
    patient.check(outcome, `a line that makes no sense at ${at}`);
    assert.deepEqual(outcome.lines, patient.whole.lines, `a line that makes no sense at ${at}`);
  }
}

function checkNumbers(patient: Patient, cause: Cause): void {
  const { text } = patient;
  const numbers = [...text.matchAll(/(?<=[\s:]|^)\d/g)].map(({ index }) => index);
  for (const at of some(numbers, cause)) {
    const sign = cause.random.pick(patient.hasNegatives ? ['x'] : ['-', 'x']);
    patient.check(patient.with(`${text.slice(0, at)}${sign}${text.slice(at)}`), `'${sign}' at ${at}`, 'labels');
  }
}

function checkBytes(patient: Patient, { random, bytesRandom }: Cause): void {
  for (let round = 0; round < bytesRandom / 2; round++) {
    const bytes = Buffer.from(patient.text);
    const at = random.whole(0, bytes.length - 1);
    bytes[at] = random.whole(0, 255);
    for (const line of patient.with(bytes).lines) {
      const value = Number(line.slice(line.lastIndexOf(' ') + 1));
      assert.ok(value >= 0 || patient.hasNegatives, `byte ${at} is ${bytes[at]}: ${line}`);
    }
  }
}

/** A test for each fixture. */
export function testDamaged(damage: Damage): void {
  for (const { name } of collectorRows.filter((row) => !refusedWhole.includes(row.name))) {
    for (const fixture of fixtureHosts(name).filter(({ title }) => !title.startsWith('broken'))) {
      test(`${name}: ${fixture.title}: its files damaged, SEED=${seed}`, () => {
        const bed = new Bed(name, fixture);
        try {
          assert.deepEqual(bed.whole.errors, []);
          for (const file of someRead(bed, damage.filesMax)) {
            const patient = new Patient(name, bed, file);
            const cause = { ...damage, random: new Random(`${seed} ${file}`) };
            const checks = [checkOtherLines, checkNumbers, checkBytes, ...(sums.test(file) ? [] : [checkCuts])];
            for (const check of checks) check(patient, cause);

            const empty = patient.with('');
            if (!sums.test(file)) {
              patient.check(empty, 'empty');
              if (!mayBeEmpty.test(file)) assert.equal(empty.errors.length, 1, 'empty');
            }
            const unreadable = patient.unreadable();
            patient.check(unreadable, 'unreadable');
            assert.deepEqual(
              unreadable.errors.map(({ code }) => code),
              ['unreadable'],
            );
            const missing = patient.missing();
            patient.check(missing, 'missing');
            // What is missing on this kernel is no error, unless the collector has nothing else.
            for (const { code, message } of missing.errors) {
              assert.equal(code, 'no-data');
              assert.match(message, /does not exist/);
            }
            assert.equal(missing.errors.length > 0, missing.lines.length === 0);
          }
        } finally {
          bed.remove();
        }
      });
    }
  }
}
