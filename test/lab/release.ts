import { execFileSync } from 'node:child_process';
import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { rootFile } from '../support/files.ts';

const { version } = JSON.parse(readFileSync(rootFile('package.json'), 'utf8')) as { version: string };
const nameFor = (architecture: string): string => `sysmon-${version}-linux-${architecture}`;

/** The version that is tested. */
export const releaseVersion = version;

/** Makes the release for a machine in a folder; the path of the archive. */
export function makeArchive(folder: string, architecture: string = process.arch): string {
  execFileSync(process.execPath, [rootFile('scripts/package.mjs'), architecture, `--out=${folder}`], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  return join(folder, `${nameFor(architecture)}.tar.gz`);
}

/** The folder that is in the archive. */
export function unpack(archive: string, folder: string, architecture: string = process.arch): string {
  execFileSync('tar', ['-xzf', archive, '-C', folder]);
  return join(folder, nameFor(architecture));
}

/** A copy of a release that differs as a later one would. */
export function variant(
  release: string,
  folder: string,
  change: Readonly<Record<string, (text: string) => string>>,
): string {
  cpSync(release, folder, { recursive: true });
  for (const [file, edit] of Object.entries(change)) {
    const before = readFileSync(join(folder, file), 'utf8');
    const after = edit(before);
    if (after === before) throw new Error(`'${file}' was not changed`);
    writeFileSync(join(folder, file), after);
  }
  return folder;
}
