import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { makeArchive, unpack } from './release.ts';

// e_machine of https://refspecs.linuxfoundation.org/elf/gabi4+/ch4.eheader.html
const machines = { x64: 62, arm64: 183 } as const;

describe('releases', () => {
  const folder = mkdtempSync(join(tmpdir(), 'sysmon-release-'));
  after(() => rmSync(folder, { recursive: true }));

  for (const [architecture, machine] of Object.entries(machines)) {
    test(`${architecture}: the same bytes twice, all that an install needs, and a Node of that machine`, () => {
      const archives = ['once', 'again'].map((name) => {
        mkdirSync(join(folder, name), { recursive: true });
        const mask = process.umask(name === 'once' ? 0o022 : 0o077);
        try {
          return makeArchive(join(folder, name), architecture);
        } finally {
          process.umask(mask);
        }
      });
      const [first, second] = archives.map((archive) =>
        createHash('sha256').update(readFileSync(archive)).digest('hex'),
      );
      assert.equal(first, second);
      const sums = readFileSync(join(folder, 'once', 'SHA256SUMS'), 'utf8');
      assert.match(sums, new RegExp(`^${first}  sysmon-\\S+-linux-${architecture}\\.tar\\.gz$`, 'm'));

      const release = unpack(archives[0]!, folder, architecture);
      for (const file of [
        'LICENSE',
        'README.md',
        'VERSION',
        'docs/operating.md',
        'docs/scrapers.md',
        'dist/THIRD-PARTY.txt',
        'runtime/LICENSE',
      ]) {
        assert.ok(existsSync(join(release, file)), file);
      }
      for (const file of ['install.sh', 'runtime/node']) {
        assert.equal(statSync(join(release, file)).mode & 0o777, 0o755, file);
      }
      const node = readFileSync(join(release, 'runtime/node'));
      assert.equal(node.toString('latin1', 1, 4), 'ELF');
      assert.equal(node.readUInt16LE(18), machine);
    });
  }
});
