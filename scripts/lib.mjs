// What the scripts share. Plain JavaScript without dependencies: on a fresh clone nothing is installed yet.
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, realpathSync } from 'node:fs';
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
  const absolute = join(root, folder);
  if (!existsSync(absolute)) return [];
  return readdirSync(absolute, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(root, join(entry.parentPath ?? entry.path, entry.name)))
    .filter(wanted)
    .sort();
}

/** True in the script that node was started with, false where it is imported. */
export function isMain(meta) {
  return process.argv[1] !== undefined && fileURLToPath(meta.url) === realpathSync(process.argv[1]);
}
