import { execFileSync } from 'node:child_process';
import { cpSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { rootFile } from '../support/files.ts';

const { version } = JSON.parse(readFileSync(rootFile('package.json'), 'utf8')) as { version: string };
const nameFor = (architecture: string): string => `sysmon-${version}-linux-${architecture}`;

/** The version that is tested. */
export const releaseVersion = version;

/** What Debian calls the machines that Node names. */
const debianArchitectures = { x64: 'amd64', arm64: 'arm64' } as const;
export type Architecture = keyof typeof debianArchitectures;

/** Makes what is handed out, in a folder; `options` are those of `npm run package`. */
export function makeRelease(folder: string, options: readonly string[], env: NodeJS.ProcessEnv = {}): void {
  execFileSync(process.execPath, [rootFile('scripts/package.mjs'), ...options, `--out=${folder}`], {
    stdio: ['ignore', 'ignore', 'inherit'],
    env: { ...process.env, ...env },
  });
}

/**
 * What scripts/test.mjs has made for all files of a run of the lab: the archive of this machine; for those that look at
 * packages, everything that is handed out. Only to be read.
 */
export const handedOut = rootFile('var/lab');

/** An archive that is handed out. */
export function archiveOf(architecture: string = process.arch): string {
  return join(handedOut, `${nameFor(architecture)}.tar.gz`);
}

/** A package that is handed out, by its role; `agent-archives` is one for all machines. */
export function debName(role: 'agent' | 'server' | 'agent-archives', architecture: Architecture): string {
  const suffix = role === 'agent-archives' ? 'all' : debianArchitectures[architecture];
  return `sysmon-${role}_${version}_${suffix}.deb`;
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
  edit(folder, change);
  return folder;
}

/** The same of a package; `file` is where to put it. Not compressed, which would take longer than all else. */
export function packageVariant(
  deb: string,
  file: string,
  change: Readonly<Record<string, (text: string) => string>>,
): string {
  const folder = `${file}.unpacked`;
  execFileSync('dpkg-deb', ['--raw-extract', deb, folder]);
  edit(folder, change);
  execFileSync('dpkg-deb', ['--root-owner-group', '-Znone', '--build', folder, file], { stdio: 'ignore' });
  rmSync(folder, { recursive: true });
  return file;
}

function edit(folder: string, change: Readonly<Record<string, (text: string) => string>>): void {
  for (const [file, edited] of Object.entries(change)) {
    const before = readFileSync(join(folder, file), 'utf8');
    const after = edited(before);
    if (after === before) throw new Error(`'${file}' was not changed`);
    writeFileSync(join(folder, file), after);
  }
}

/** As much of wget as the printed command takes, for a host that has none: HTTP by bash alone. */
export const wgetScript = `#!/bin/bash
url=\${@: -1} rest=\${url#http://}
exec 3<>"/dev/tcp/\${rest%%:*}/$(echo "$rest" | sed 's,^[^:]*:,,;s,/.*,,')"
printf 'GET /%s HTTP/1.0\\r\\nHost: %s\\r\\n\\r\\n' "\${rest#*/}" "\${rest%%/*}" >&3
head=
while IFS= read -r line <&3 && [ "$line" != $'\\r' ]; do head=$head$line; done
case $head in HTTP/1.?' 200 '*) cat <&3 >"\${rest##*/}" ;; *) exit 8 ;; esac
`;
