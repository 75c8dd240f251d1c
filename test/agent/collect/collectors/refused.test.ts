import assert from 'node:assert/strict';
import { relative } from 'node:path';
import { test } from 'node:test';
import { collectorRows } from '../../../../src/agent/collect/collectors/index.ts';
import { CollectError, UnreadableError } from '../../../../src/agent/collect/proc/errors.ts';
import { type FileStat, Host, type ReadFile } from '../../../../src/agent/collect/proc/host.ts';
import { collectOn, fixtureHosts, mayBeEmpty } from '../../../support/collect-fixture.ts';
import { type FixtureHost, makeTree, systemOf } from '../../../support/fixture-proc.ts';
import { Random } from '../../../support/random.ts';

// Attributes of devices that a collector reads over its fixtures, refused in each way in which a driver may refuse one, and
// folders that cannot be listed. One bad device costs its own series and nothing else: what may be missing then is what is
// missing without the device. One that goes after it was listed has none.

const seed = process.env.SEED ?? String(Math.floor(Math.random() * 2 ** 31));
/** Of a fixture; another run takes others. */
const attributesMax = 20;
const gone = ['ENODEV', 'ENOENT', 'EOPNOTSUPP'];
const refusals = [
  ...['ENODATA', 'EINVAL', 'EIO', 'EAGAIN', 'EPERM', 'EBUSY', 'ETIMEDOUT'],
  ...gone,
  ...['<unknown>', ''],
];
/** The folder of a device. */
const deviceFolder =
  /^(?:sys\/(?:class\/[^/]+|block|bus\/pci\/devices|fs\/[^/]+|devices\/system\/(?:cpu|node|edac\/mc|clocksource))|proc\/spl\/kstat\/zfs)\/[^/]+(?=\/)/;
/** The errors of a folder that is there and cannot be listed. */
const unlistable = ['EACCES', 'ELOOP', 'EIO'];
/** Values that a device shares with others. */
const shared: Readonly<Record<string, RegExp>> = {
  bonding: /^node_bonding_/,
  cpu: /^node_cpu_(core|package)_throttles_total/,
};
/** What is known of a device without its files, and what others are called only while it is listed. */
const knownElsewhere: Readonly<Record<string, RegExp>> = {
  bcachefs: /^node_bcachefs_info/,
  hwmon: /{chip="platform_asus_nb_wmi_/,
  mdadm: /^node_md_degraded/,
};
/** Those that read what the kernel gives to root alone. */
const withPrivate = ['cpufreq', 'dmi', 'rapl'];

function check(name: string, fixture: FixtureHost): void {
  const bed = new Bed(name, fixture);
  const whole = bed.collect();
  const otherLines = new Map<string, readonly string[]>();
  const random = new Random(seed);
  try {
    for (const path of random.shuffled(bed.attributes).slice(0, attributesMax)) {
      const [folder = ''] = deviceFolder.exec(path)!;
      const others = otherLines.get(folder) ?? bed.collect({ missing: folder }).lines;
      otherLines.set(folder, others);
      const refusal = random.pick(refusals);
      const what = `${path}: ${refusal}`;
      const { lines, errors } = bed.collect({ refused: path, refusal });
      assert.deepEqual(lostOf(whole.lines, others, lines, shared[name]), [], what);
      for (const error of errors) assert.equal(error.path, bed.path(path), what);
      if (isSilent(name, path, refusal)) assert.ok(errors.length <= 1, what);
      else assert.deepEqual(errors.map(codeOf), [{ '<unknown>': 'unknown', '': 'empty' }[refusal] ?? refusal], what);
    }
    for (const folder of random.shuffled(bed.folders).slice(0, attributesMax)) {
      const device = deviceFolder.exec(`${folder}/`)![0];
      const others = otherLines.get(device) ?? bed.collect({ missing: device }).lines;
      otherLines.set(device, others);
      const refusal = random.pick(unlistable);
      const what = `${folder}: ${refusal}`;
      const { lines, errors, failure } = bed.collect({ unlisted: folder, refusal });
      assert.equal(failure, undefined, what);
      // What is counted is absent then, rather than too small.
      const known = new Set([...whole.lines, ...others]);
      assert.deepEqual(
        lines.filter((line) => !known.has(line)),
        [],
        what,
      );
      assert.deepEqual(lostOf(whole.lines, others, lines, shared[name]), [], what);
      // Some list a folder once more for each of its parts.
      const said = errors.map((error) => `${error.path}: ${codeOf(error)}`);
      assert.deepEqual([...new Set(said)], [`${bed.path(folder)}: ${refusal}`], what);
    }
    for (const [folder, others] of otherLines) {
      for (const fault of [{ gone: folder }, { gone: folder, hasNames: true }]) {
        const { lines } = bed.collect(fault);
        const what = `${JSON.stringify(fault)} after it was listed`;
        assert.deepEqual(lostOf(whole.lines, others, lines, shared[name]), [], what);
        const own = lines.filter((line) => !others.includes(line) && !knownElsewhere[name]?.test(line));
        assert.deepEqual(own, [], what);
      }
    }
  } finally {
    bed.end();
  }
}

/** Of the lines of other devices, those that are missing. */
function lostOf(
  whole: readonly string[],
  others: readonly string[],
  lines: readonly string[],
  shared: RegExp | undefined,
): string[] {
  const kept = new Set(lines);
  const expected = new Set(others);
  return whole.filter((line) => expected.has(line) && !kept.has(line) && !shared?.test(line));
}

/** Whether it need not be an error: the file is not there, or is root's alone, or is empty in good health. */
function isSilent(name: string, path: string, refusal: string): boolean {
  if (refusal === 'EPERM') return withPrivate.includes(name);
  // Names of any kind: an interface of a bond, a device that had no I/O, what somebody calls a file system.
  if (refusal === '<unknown>') return /\/(bonding\/slaves|io\.stat|label)$/.test(path);
  // What a network device does not have, by design.
  if (refusal === 'EINVAL') return name === 'netclass';
  return gone.includes(refusal) || (refusal === '' && (mayBeEmpty.test(path) || path.endsWith('/io.stat')));
}

function codeOf(error: CollectError): string {
  if (error instanceof UnreadableError) return error.errno;
  // A file of more than one line is parsed: it has no line of the kind that is looked for.
  return / is empty$/.test(error.message) ? 'empty' : 'unknown';
}

interface Fault {
  /** A folder that is not there. */
  readonly missing?: string;
  /** One whose files all say ENODEV. */
  readonly gone?: string;
  /** Whether the names in it are those of an earlier listing, as in the slow lane. */
  readonly hasNames?: boolean;
  /** One that cannot be listed. */
  readonly unlisted?: string;
  readonly refused?: string;
  readonly refusal?: string;
}

interface Outcome {
  readonly lines: readonly string[];
  readonly errors: readonly CollectError[];
  /** Why nothing was collected; also the last of the errors. */
  readonly failure?: CollectError;
}

/** The files that were read, and the real paths of the folders that were listed. */
interface Asked {
  readonly asked: readonly string[];
  readonly listed: readonly string[];
}

/** The files of a fixture, and a new collector each time. */
class Bed {
  readonly #name: string;
  readonly #fixture: FixtureHost;
  readonly #tree;
  /** Those that are read. */
  readonly attributes: readonly string[];
  /** Those that are listed. */
  readonly folders: readonly string[];

  constructor(name: string, fixture: FixtureHost) {
    this.#name = name;
    this.#fixture = fixture;
    this.#tree = makeTree(fixture.files, fixture.links);
    const { asked, listed } = this.#collect({});
    this.attributes = asked.filter((path) => deviceFolder.test(path));
    this.folders = listed
      .map((real) => relative(this.#tree.folder, real))
      .filter((path) => deviceFolder.test(`${path}/`) && !path.endsWith('/cpu/vulnerabilities'));
  }

  path(file: string): string {
    return this.#tree.path(file);
  }

  collect(fault: Fault = {}): Outcome {
    return this.#collect(fault);
  }

  end(): void {
    this.#tree.remove();
  }

  #collect(fault: Fault): Outcome & Asked {
    const host = new RefusingHost(this.#tree.roots, this.#fixture, fault);
    try {
      const { text, parseErrors } = collectOn(this.#name, host, this.#fixture.options, () => {});
      return {
        lines: text.split('\n').filter((line) => line !== '' && !line.startsWith('#')),
        errors: parseErrors,
        ...{ asked: host.found, listed: host.listed },
      };
    } catch (error) {
      if (!(error instanceof CollectError)) throw error;
      return {
        lines: [],
        errors: [...host.takeErrors(), error],
        failure: error,
        asked: host.found,
        listed: host.listed,
      };
    } finally {
      host.close();
    }
  }
}

class RefusingHost extends Host {
  readonly #fault: Fault;
  readonly #found = new Set<string>();
  readonly #listed = new Set<string>();

  constructor(roots: ConstructorParameters<typeof Host>[0], fixture: FixtureHost, fault: Fault) {
    super(roots, systemOf(fixture.system));
    this.#fault = fault;
  }

  /** The files that were asked for and are there. */
  get found(): string[] {
    return [...this.#found];
  }

  /** The real paths of the folders that were listed. */
  get listed(): string[] {
    return [...this.#listed];
  }

  override exists(path: string): boolean {
    return !this.#isMissing(this.path(path)) && super.exists(path);
  }

  override stat(path: string): FileStat | undefined {
    return this.#isMissing(this.path(path)) ? undefined : super.stat(path);
  }

  protected override file(path: string): ReadFile {
    const { missing, gone, refused, refusal } = this.#fault;
    const real = super.file(path);
    if (missing !== undefined && path.startsWith(`${missing}/`)) return { text: real.text, error: failure('ENOENT') };
    if (gone !== undefined && path.startsWith(`${gone}/`)) return { text: real.text, error: failure('ENODEV') };
    if (real.error === undefined) this.#found.add(path);
    if (path !== refused || refusal === undefined) return real;
    if (/^E/.test(refusal)) return { text: real.text, error: failure(refusal) };
    const text = this.newText();
    text.path = this.path(path);
    const content = refusal === '' ? '' : `${refusal}\n`;
    text.fill(Buffer.from(content), content.length);
    return { text, error: undefined };
  }

  protected override names(path: string): string[] {
    const { gone, hasNames, unlisted, refusal } = this.#fault;
    if (this.#isMissing(path)) throw failure('ENOENT');
    if (gone !== undefined && hasNames !== true && `${path}/`.startsWith(`${this.path(gone)}/`))
      throw failure('ENOENT');
    if (unlisted !== undefined && path === this.path(unlisted)) throw failure(refusal!);
    this.#listed.add(path);
    return super.names(path).filter((name) => !this.#isMissing(`${path}/${name}`));
  }

  protected override resolved(path: string): string {
    if (this.#isMissing(path)) throw failure('ENOENT');
    return super.resolved(path);
  }

  #isMissing(path: string): boolean {
    const { missing } = this.#fault;
    return missing !== undefined && `${path}/`.startsWith(`${this.path(missing)}/`);
  }
}

function failure(code: string): Error {
  return Object.assign(new Error(`${code}: refused`), { code });
}

for (const { name } of collectorRows) {
  for (const fixture of fixtureHosts(name).filter(({ title }) => !title.startsWith('broken'))) {
    const bed = new Bed(name, fixture);
    bed.end();
    if (bed.attributes.length === 0) continue;
    test(`${name}: ${fixture.title}: attributes refused, SEED=${seed}`, () => check(name, fixture));
  }
}

// Folders that are only a part of what the collector looks at.
for (const [name, folder, file] of [
  ['cpu', 'sys/devices/system/cpu', 'cpu0/online'],
  ['time', 'sys/devices/system/clocksource', 'clocksource0/current_clocksource'],
] as const) {
  test(`${name}: ${folder} cannot be listed`, () => {
    const hosts = fixtureHosts(name).filter(({ title }) => !title.startsWith('broken'));
    const bed = new Bed(name, hosts.find(({ files }) => files.has(`${folder}/${file}`))!);
    try {
      const { lines, errors } = bed.collect({ unlisted: folder, refusal: 'EACCES' });
      const others = bed.collect({ missing: folder }).lines;
      assert.ok(others.length > 0);
      assert.deepEqual(lostOf(others, others, lines, undefined), []);
      const paths = errors.map(({ path }) => path);
      assert.deepEqual(paths, [bed.path(folder)]);
    } finally {
      bed.end();
    }
  });
}

test('filesystem: /proc/1 is there and nothing in it may be opened, as with hidepid=1', () => {
  const hidden = fixtureHosts('filesystem').find(({ files }) => files.has('proc/self/mountinfo'))!;
  const bed = new Bed('filesystem', { ...hidden, files: new Map([...hidden.files, ['proc/1/mountinfo', '']]) });
  try {
    const whole = bed.collect({ missing: 'proc/1' }).lines;
    assert.ok(whole.length > 0);
    for (const refusal of ['EPERM', 'EACCES']) {
      const { lines, errors } = bed.collect({ refused: 'proc/1/mountinfo', refusal });
      assert.deepEqual([lines, errors], [whole, []], refusal);
    }
    const broken = bed.collect({ refused: 'proc/1/mountinfo', refusal: 'EIO' });
    assert.equal(broken.failure?.path, bed.path('proc/1/mountinfo'));
  } finally {
    bed.end();
  }
});
