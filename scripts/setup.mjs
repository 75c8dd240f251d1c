// Installs what the lock file names, unless exactly that is installed already.
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fail, isMain, nodeMin, root, run } from './lib.mjs';

export function setup() {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major < nodeMin[0] || (major === nodeMin[0] && minor < nodeMin[1])) {
    fail(`Node.js ${process.versions.node} is too old: ${nodeMin.join('.')} or newer is needed`);
  }
  // The hash lies inside node_modules, so that it goes when that folder goes.
  const stamp = join(root, 'node_modules', '.sysmon-installed');
  const wanted = hashOfLock();
  if (readIfThere(stamp) === wanted) return;
  // --include=dev: with NODE_ENV=production npm would leave out the compiler.
  run('npm', ['ci', '--include=dev', '--no-audit', '--no-fund']);
  writeFileSync(stamp, wanted);
}

// A node_modules that another platform installed holds the wrong esbuild and tsc.
function hashOfLock() {
  const lock = readFileSync(join(root, 'package-lock.json'));
  return createHash('sha256').update(`${process.platform} ${process.arch}\n`).update(lock).digest('hex');
}

function readIfThere(path) {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return undefined;
    throw error;
  }
}

if (isMain(import.meta)) setup();
