// npm test [-- FILTER …]: set-up, build, check, then the tests whose path contains a filter (all without one).
//   --long   instead of the others, those that take minutes (*.long.test.ts)
//   --lab    instead of the others, those that boot hosts and need root (test/lab/)
//   --only   no check: while working on one file
//   --minutes N   with --lab: how long journals are counted (test/lab/journal.test.ts), 1 by default
import { spawnSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { check } from './check.mjs';
import { bundle, compile } from './compile.mjs';
import { fail, filesBelow, root, run } from './lib.mjs';
import { setup } from './setup.mjs';

const { flags, filters } = askedFor();
const kind = flags.lab ? 'lab' : flags.long ? 'long' : 'usual';
const minutes = minutesOf(flags.minutes);

// A test that hangs must end the run, and say which it was. The whole of `npm test` has five minutes.
const timeoutMs = { usual: 240_000, long: 1_200_000, lab: 1_200_000 + minutes * 60_000 }[kind];

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
if (flags.only) await compile();
else await check();
await bundle();
if (kind === 'lab') makeLabRelease();
const { status, signal } = spawnSync(
  process.execPath,
  ['--enable-source-maps', 'scripts/run-tests.mjs', `${timeoutMs}`, `${atOnce}`, ...files],
  { cwd: root, stdio: 'inherit', env: { ...process.env, LAB_MINUTES: `${minutes}` } },
);
if (signal) fail(`the tests were ended by ${signal}`);
process.exit(status);

function askedFor() {
  const boolean = { type: 'boolean', default: false };
  try {
    const options = { long: boolean, lab: boolean, only: boolean, minutes: { type: 'string', default: '1' } };
    const { values, positionals } = parseArgs({ options, allowPositionals: true });
    return { flags: values, filters: positionals };
  } catch (error) {
    return fail(`${error.message}\n--long, --lab, --only, --minutes N or parts of file names are expected`);
  }
}

function minutesOf(text) {
  if (/^[1-9]\d{0,2}$/.test(text) && (kind === 'lab' || text === '1')) return Number(text);
  return fail(`--minutes is '${text}': expected a whole number of 1 to 999, with --lab`);
}

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
