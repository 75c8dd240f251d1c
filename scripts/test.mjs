// npm test [-- FILTER …]: set-up, build, check, then the tests whose path contains a filter (all without one).
//   --long   instead of the others, those that take minutes (*.long.test.ts)
//   --lab    instead of the others, those that boot hosts and need root (test/lab/)
//   --only   no check: while working on one file
import { spawnSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { check } from './check.mjs';
import { bundle, compile } from './compile.mjs';
import { fail, filesBelow, root, run } from './lib.mjs';
import { setup } from './setup.mjs';

const flags = process.argv.slice(2).filter((argument) => argument.startsWith('--'));
const filters = process.argv.slice(2).filter((argument) => !argument.startsWith('--'));
const unknown = flags.find((flag) => !['--long', '--lab', '--only'].includes(flag));
if (unknown) fail(`unknown option '${unknown}': --long, --lab, --only or parts of file names are expected`);
const kind = flags.includes('--lab') ? 'lab' : flags.includes('--long') ? 'long' : 'usual';

// A test that hangs must end the run, and say which it was. The whole of `npm test` has five minutes.
const timeoutMs = { usual: 240_000, long: 1_200_000, lab: 1_200_000 }[kind];

// Two files at a time keep two cores busy, but those that wait for real programs hardly use one: a third beside them.
const atOnce = kind === 'usual' ? 3 : 2;
// Those that take longest begin first, for nothing should be left running alone at the end. The rest by name.
const longestLab = ['release', 'faults', 'procedures', 'install'].map((name) => `test/lab/${name}`);
const longest = ['test/simulation/histories', 'test/simulation/', 'test/fuzz/', ...longestLab];
const longestWaiting = ['slow-disk', 'server-clock', 'stop', 'web-config', 'whole-way'].map(
  (name) => `test/e2e/${name}`,
);

const files = testFiles();
if (files.length === 0) {
  fail(
    `no test file of the kind '${kind}' ${filters.length > 0 ? `has '${filters.join("' or '")}' in its path` : 'is there'}`,
  );
}
setup();
if (flags.includes('--only')) await compile();
else await check();
await bundle();
if (kind === 'lab') makeLabRelease();
const { status, signal } = spawnSync(
  process.execPath,
  ['--enable-source-maps', 'scripts/run-tests.mjs', `${timeoutMs}`, `${atOnce}`, ...files],
  { cwd: root, stdio: 'inherit' },
);
if (signal) fail(`the tests were ended by ${signal}`);
process.exit(status);

function testFiles() {
  const all = filesBelow('test', (file) => file.endsWith('.test.ts'))
    .filter((file) => kindOf(file) === kind)
    .filter((file) => filters.length === 0 || filters.some((filter) => file.includes(filter)));
  const waiting = inOrder(
    all.filter((file) => file.startsWith('test/e2e/')),
    longestWaiting,
  );
  const busy = inOrder(
    all.filter((file) => !file.startsWith('test/e2e/')),
    longest,
  );
  // In turns, so that both kinds are under way as long as there are any.
  const mixed = busy.flatMap((file, at) => waiting.slice(at, at + 1).concat(file));
  return [...mixed, ...waiting.slice(busy.length)].map((file) => `build/${file.replace(/\.ts$/, '.js')}`);
}

/** What the lab's files install, made once for all of them: compressing it takes longest. */
function makeLabRelease() {
  const everything = files.some((file) => /\/(deb|release)\.test\.js$/.test(file));
  const out = join(root, 'var/lab');
  rmSync(out, { recursive: true, force: true });
  const options = everything ? ['--deb'] : ['--no-sbom', process.arch];
  run(process.execPath, ['scripts/package.mjs', ...options, '--out', out], { stdio: ['ignore', 'ignore', 'inherit'] });
}

function inOrder(files, first) {
  const placeOf = (file) => {
    const at = first.findIndex((path) => file.startsWith(path));
    return at === -1 ? first.length : at;
  };
  return files.sort((a, b) => placeOf(a) - placeOf(b));
}

function kindOf(file) {
  if (file.startsWith('test/lab/')) return 'lab';
  return file.endsWith('.long.test.ts') ? 'long' : 'usual';
}
