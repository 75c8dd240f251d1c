// node --enable-source-maps scripts/run-tests.mjs TIMEOUT_MS LANES: runs test files. A lane, `{"atOnce":2,"files":[…]}`, runs
// its files in their order, so many at a time, beside the other lanes. The command `node --test FILE …` sorts them, and
// what takes longest would come when there is nothing left to run beside it.
import { relative } from 'node:path';
import { PassThrough } from 'node:stream';
import { run } from 'node:test';
import { spec } from 'node:test/reporters';
import { root } from './lib.mjs';

const [timeoutMs, lanesJson] = process.argv.slice(2);
const lanes = JSON.parse(lanesJson);
const startMs = performance.now();
const msByFile = new Map();
const totals = new Map();

// A file's events come when it has ended, all at once: those of two files would be mixed.
const events = new PassThrough({ objectMode: true });
events.compose(spec).pipe(process.stdout);
await Promise.all(lanes.flatMap(({ atOnce, files }) => Array.from({ length: atOnce }, () => work(files))));
totals.set('duration_ms', Math.round(performance.now() - startMs));
for (const [what, total] of totals) diagnostic(`${what} ${total}`);
const slowest = [...msByFile].sort(([, a], [, b]) => b - a).slice(0, 10);
diagnostic(`slowest: ${slowest.map(([file, ms]) => `${file} ${(ms / 1000).toFixed(0)} s`).join(', ')}`);
events.end();

/** Takes the next file from the list until there is none. */
async function work(files) {
  for (let file = files.shift(); file !== undefined; file = files.shift()) {
    const beganMs = performance.now();
    const ofFile = await run({ files: [file], timeout: Number(timeoutMs) }).toArray();
    msByFile.set(relative('build', relative(root, file)), performance.now() - beganMs);
    for (const event of ofFile) {
      if (event.type === 'test:fail') process.exitCode = 1;
      if (!addedUp(event)) events.write(event);
    }
  }
}

/** The numbers at the end of a run, of which there is one for each file here. */
function addedUp({ type, data }) {
  if (type === 'test:summary') return true;
  const [, what, count] =
    (type === 'test:diagnostic' &&
      data.nesting === 0 &&
      /^(tests|suites|pass|fail|cancelled|skipped|todo|duration_ms) (\d\S*)$/.exec(data.message)) ||
    [];
  if (what === undefined) return false;
  totals.set(what, (totals.get(what) ?? 0) + Number(count));
  return true;
}

function diagnostic(message) {
  events.write({ type: 'test:diagnostic', data: { message, nesting: 0 } });
}
