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

// Those that take longest begin first, for nothing should be left running alone at the end. The rest by name.
const longest = [
  ...['test/simulation/histories', 'test/fuzz/', 'test/agent/collect/collectors/damaged', 'test/simulation/'],
  ...['test/agent/main', 'test/agent/spool/mirror', 'test/prometheus/rules', 'test/protocol/dearest'],
  ...['release', 'faults', 'procedures', 'install'].map((name) => `test/lab/${name}`),
];
const longestWaiting = [
  ...['slow-disk', 'whole-way', 'stop', 'server-clock', 'join', 'web-config'].map((name) => `test/e2e/${name}`),
  'test/simulation/prometheus-',
];
/** They wait for real programs most of the time, and hardly use a processor. */
const waiting = ['test/e2e/', 'test/simulation/prometheus-', 'test/scripts/'];

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
  ['--enable-source-maps', 'scripts/run-tests.mjs', `${timeoutMs}`, JSON.stringify(lanes())],
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
  return filesBelow('test', (file) => file.endsWith('.test.ts'))
    .filter((file) => kindOf(file) === kind)
    .filter((file) => filters.length === 0 || filters.some((filter) => file.includes(filter)));
}

/** What uses a processor has one each, and what waits runs beside it. The others take minutes, and measure: two at a time. */
function lanes() {
  const isWaiting = (file) => waiting.some((path) => file.startsWith(path));
  const built = (list) => list.map((file) => `build/${file.replace(/\.ts$/, '.js')}`);
  if (kind !== 'usual') return [{ atOnce: 2, files: built(inOrder(files, longest)) }];
  return [
    {
      atOnce: 2,
      files: built(
        inOrder(
          files.filter((file) => !isWaiting(file)),
          longest,
        ),
      ),
    },
    { atOnce: 2, files: built(inOrder(files.filter(isWaiting), longestWaiting)) },
  ];
}

/** What the lab's files install, made once for all of them: compressing it takes longest. */
function makeLabRelease() {
  const everything = files.some((file) => /\/(deb|release)\.test\.ts$/.test(file));
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
