// What the scripts share. Plain JavaScript without dependencies: on a fresh clone nothing is installed yet.
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, readdirSync, realpathSync, statSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The folder that holds package.json. */
export const root = fileURLToPath(new URL('..', import.meta.url));

/** The oldest Node.js that the programs run on, as major and minor. zlib.crc32 came with 20.15. */
export const nodeMin = [20, 15];

/** True where a missing part is a failure rather than a skip. */
export const ci = process.env.CI === 'true';

/** Runs a program in the root folder with our terminal; if it fails, this process ends with the same code. */
export function run(program, args, options = {}) {
  const result = spawnSync(program, args, { cwd: root, stdio: 'inherit', ...options });
  if (result.error) fail(`cannot run '${program}': ${result.error.message}`);
  if (result.signal) fail(`'${program}' was ended by ${result.signal}`);
  if (result.status !== 0) process.exit(result.status);
}

/** A program that npm has installed. */
export function tool(name) {
  return join(root, 'node_modules', '.bin', name);
}

/** One line on stderr, then exit 1. */
export function fail(text) {
  console.error(`sysmon: ${text}`);
  process.exit(1);
}

/** Every file below a folder of the root for which `wanted` is true, as sorted paths from the root. */
export function filesBelow(folder, wanted) {
  return filesIn(join(root, folder))
    .map((file) => join(folder, file))
    .filter(wanted);
}

/** Every file in a folder and below, as sorted paths from it; none where there is no such folder. */
export function filesIn(folder) {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(folder, join(entry.parentPath ?? entry.path, entry.name)))
    .sort();
}

/** 0755 for folders and for the files that match by their path, else 0644: whatever the umask and the modes in this clone are. */
export function setModes(folder, programs) {
  chmodSync(folder, 0o755);
  for (const path of readdirSync(folder, { recursive: true, encoding: 'utf8' })) {
    const isProgram = programs.test(path) || statSync(join(folder, path)).isDirectory();
    chmodSync(join(folder, path), isProgram ? 0o755 : 0o644);
  }
}

/** True in the script that node was started with, false where it is imported. */
export function isMain(meta) {
  return process.argv[1] !== undefined && fileURLToPath(meta.url) === realpathSync(process.argv[1]);
}
