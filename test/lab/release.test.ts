import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  appendFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, type TestContext, test } from 'node:test';
import { rootFile } from '../support/files.ts';
import { skipHere } from '../support/installed.ts';
import { deadLinks } from '../support/links.ts';
import { type Architecture, archiveOf, debName, handedOut, makeRelease, releaseVersion, unpack } from './release.ts';

// e_machine of https://refspecs.linuxfoundation.org/elf/gabi4+/ch4.eheader.html
const machines: { readonly [architecture in Architecture]: number } = { x64: 62, arm64: 183 };
const architectures = ['x64', 'arm64'] as const;

describe('releases', () => {
  const folder = mkdtempSync(join(tmpdir(), 'sysmon-release-'));
  after(() => rmSync(folder, { recursive: true }));

  test('SHA256SUMS lists all that is handed out', () => {
    const sums = readFileSync(join(handedOut, 'SHA256SUMS'), 'utf8');
    const names = architectures.flatMap((architecture) => [
      `sysmon-${releaseVersion}-linux-${architecture}.tar.gz`,
      ...(['agent', 'server'] as const).map((role) => debName(role, architecture)),
    ]);
    names.push(debName('agent-archives', 'x64'));
    const expected = [...names, `sysmon-${releaseVersion}.cdx.json`, 'SHA256SUMS'].sort();
    assert.deepEqual(readdirSync(handedOut).sort(), expected);
    for (const name of expected.filter((each) => each !== 'SHA256SUMS')) {
      const sum = createHash('sha256')
        .update(readFileSync(join(handedOut, name)))
        .digest('hex');
      assert.ok(sums.split('\n').includes(`${sum}  ${name}`), name);
    }
  });

  test('everything that is handed out has the same bytes again, with another umask and number of threads', () => {
    const again = join(folder, 'again');
    const mask = process.umask(0o077);
    try {
      mkdirSync(again);
      makeRelease(again, ['--deb'], { DPKG_DEB_THREADS_MAX: '1' });
    } finally {
      process.umask(mask);
    }
    const sumsIn = (path: string) => readFileSync(join(path, 'SHA256SUMS'), 'utf8');
    assert.deepEqual(readdirSync(again).sort(), readdirSync(handedOut).sort());
    assert.equal(sumsIn(again), sumsIn(handedOut));
    rmSync(again, { recursive: true });
  });

  for (const architecture of architectures) {
    test(`${architecture}: all that an install needs, and a Node of that machine`, () => {
      const release = unpack(archiveOf(architecture), folder, architecture);
      for (const file of [
        'LICENSE',
        'README.md',
        'VERSION',
        'docs/operating.md',
        'docs/runbooks.md',
        'docs/scrapers.md',
        'docs/troubleshooting.md',
        'dist/THIRD-PARTY.txt',
        'examples/ansible/sysmon.yml',
        'runtime/LICENSE',
      ]) {
        assert.ok(existsSync(join(release, file)), file);
      }
      for (const file of ['install.sh', 'runtime/node', 'dist/sysmon-agent.cjs']) {
        assert.equal(statSync(join(release, file)).mode & 0o777, 0o755, file);
      }
      const node = readFileSync(join(release, 'runtime/node'));
      assert.equal(node.toString('latin1', 1, 4), 'ELF');
      assert.equal(node.readUInt16LE(18), machines[architecture]);
      execFileSync('sha256sum', ['--quiet', '--strict', '-c', 'SHA256SUMS'], { cwd: release });
    });

    test(`${architecture}: the packages need no library but those of the packages that they depend on`, (context) => {
      if (!has(context, 'readelf', 'binutils')) return;
      const unpacked = join(folder, `deb-${architecture}`);
      execFileSync('dpkg-deb', ['--extract', join(handedOut, debName('agent', architecture)), unpacked]);
      const dynamic = execFileSync('readelf', ['-d', join(unpacked, 'usr/lib/sysmon-agent/node')], {
        encoding: 'utf8',
      });
      const needed = [...dynamic.matchAll(/\(NEEDED\).*\[(.*)\]/g)].map(([, library]) => library!);
      assert.ok(needed.includes('libc.so.6'));
      // Of libc6, libgcc-s1 and libstdc++6.
      const known = /^(lib(c|m|dl|pthread)\.so\.\d|libgcc_s\.so\.1|libstdc\+\+\.so\.6|ld-linux-.*)$/;
      assert.deepEqual(
        needed.filter((library) => !known.test(library)),
        [],
      );
      rmSync(unpacked, { recursive: true });
    });
  }

  test('the documents in the packages lead to files that are there', () => {
    for (const role of ['agent', 'server'] as const) {
      const unpacked = join(folder, `deb-${role}`);
      execFileSync('sh', [
        '-c',
        'mkdir "$1" && dpkg-deb --fsys-tarfile "$0" | tar -x -C "$1" ./usr/share/doc',
        join(handedOut, debName(role, 'x64')),
        unpacked,
      ]);
      const documents = join(unpacked, 'usr/share/doc', `sysmon-${role}`);
      assert.ok(existsSync(join(documents, 'operating.md')));
      assert.deepEqual(deadLinks(documents), []);
    }
  });

  test('lintian finds nothing in the packages but what an override has a reason for', (context) => {
    if (!has(context, 'lintian', 'lintian')) return;
    // Those of the other machine differ in Node.js alone, and half a minute goes into reading it.
    const debs = (['agent', 'server', 'agent-archives'] as const).map((role) => join(handedOut, debName(role, 'x64')));
    const args = ['--display-info', '--fail-on', 'error,warning,info', '--allow-root', ...debs];
    const { status, stdout, stderr } = spawnSync('lintian', args, { encoding: 'utf8' });
    assert.equal(status, 0, stdout + stderr);
    assert.doesNotMatch(stdout, /^[EWI]: /m);
    const overrides = readFileSync(rootFile('deb/lintian-overrides'), 'utf8');
    // A reason stands above each group of them.
    assert.match(overrides, /^(#.*\n)+(PACKAGE: .*\n)+((#.*\n)+(PACKAGE: .*\n)+)*$/);
  });

  test('the SBOM lists the packages that are bundled and the Node of each archive', () => {
    const bom = JSON.parse(readFileSync(join(handedOut, `sysmon-${releaseVersion}.cdx.json`), 'utf8')) as {
      readonly bomFormat: string;
      readonly serialNumber: string;
      readonly components: readonly { readonly name: string; readonly version: string; readonly purl: string }[];
      readonly dependencies: readonly { readonly ref: string; readonly dependsOn: readonly string[] }[];
    };
    assert.equal(bom.bomFormat, 'CycloneDX');
    assert.match(bom.serialNumber, /^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    const notices = readFileSync(rootFile('dist/THIRD-PARTY.txt'), 'utf8');
    const bundled = [...notices.matchAll(/^(@?[a-z][\w./-]*) ([\d.]+) \(/gm)].map(
      ([, name, version]) => `${name} ${version}`,
    );
    assert.ok(bundled.length >= 5);
    const listed = bom.components.map(({ name, version }) => `${name} ${version}`);
    const nodes = listed.filter((each) => each.startsWith('node-linux-'));
    assert.equal(nodes.length, 2);
    assert.deepEqual(listed.filter((each) => !nodes.includes(each)).sort(), bundled.sort());
    const refs = new Set(bom.dependencies.map(({ ref }) => ref));
    for (const { dependsOn } of bom.dependencies) for (const ref of dependsOn) assert.ok(refs.has(ref), ref);
  });

  test('signed with minisign: the sums, and what install.sh installs where the key is', (context) => {
    if (!has(context, 'minisign', 'minisign')) return;
    const key = (name: string) => join(folder, name);
    execFileSync('minisign', ['-GWf', '-s', key('secret'), '-p', key('public')], { stdio: 'ignore' });
    execFileSync('minisign', ['-GWf', '-s', key('other-secret'), '-p', key('other')], { stdio: 'ignore' });
    const signed = join(folder, 'signed');
    makeRelease(signed, [process.arch, '--sign', key('secret')]);
    execFileSync('minisign', ['-Vqm', join(signed, 'SHA256SUMS'), '-p', key('public')]);

    const release = unpack(join(signed, `sysmon-${releaseVersion}-linux-${process.arch}.tar.gz`), signed);
    const unsigned = unpack(archiveOf(), folder);
    const changed = join(folder, 'changed');
    cpSync(release, changed, { recursive: true });
    appendFileSync(join(changed, 'dist/sysmon-agent.cjs'), '\n');
    const install = (from: string, publicKey?: string) => {
      const root = mkdtempSync(join(folder, 'root-'));
      mkdirSync(join(root, 'etc/sysmon'), { recursive: true });
      if (publicKey !== undefined) cpSync(key(publicKey), join(root, 'etc/sysmon/release.pub'));
      const { status, stderr } = spawnSync(join(from, 'install.sh'), ['agent', '--root', root], { encoding: 'utf8' });
      return { status, stderr, isInstalled: existsSync(join(root, 'usr/local/bin/sysmon-agent')) };
    };
    for (const [from, publicKey] of [
      [release, 'public'],
      [release, undefined],
      [unsigned, undefined],
    ] as const) {
      assert.deepEqual(install(from, publicKey), { status: 0, stderr: '', isInstalled: true });
    }
    for (const [from, publicKey, words] of [
      [release, 'other', /^sysmon: this release is not signed with the key of \S+\/etc\/sysmon\/release\.pub: /],
      [unsigned, 'public', /^sysmon: this release is not signed with the key of /],
      [
        changed,
        'public',
        /^sysmon: a file of this release is not the one that was signed: dist\/sysmon-agent\.cjs: FAILED/,
      ],
    ] as const) {
      const { status, stderr, isInstalled } = install(from, publicKey);
      assert.match(stderr, words);
      assert.deepEqual({ status, isInstalled }, { status: 1, isInstalled: false });
    }
  });
});

/** False where a program is missing, and the test has been skipped; with CI=true that is a failure. */
function has(context: TestContext, program: string, debianPackage: string): boolean {
  if (spawnSync('which', [program]).status === 0) return true;
  skipHere(context, `'${program}' is missing: apt-get install ${debianPackage}`);
  return false;
}
