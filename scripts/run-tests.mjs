// node --enable-source-maps scripts/run-tests.mjs TIMEOUT_MS AT_ONCE FILE …: runs test files in this order, so many at a time. The
// command `node --test FILE …` sorts them, and what takes longest would come when there is nothing left to run beside it.
import { relative } from 'node:path';
import { run } from 'node:test';
import { spec } from 'node:test/reporters';
import { root } from './lib.mjs';

const [timeoutMs, atOnce, ...files] = process.argv.slice(2);
const msByFile = new Map();

const events = run({ files, timeout: Number(timeoutMs), concurrency: Number(atOnce) });
for (const kind of ['test:pass', 'test:fail']) events.on(kind, took);
events
  .on('test:fail', () => {
    process.exitCode = 1;
  })
  .compose(spec)
  .pipe(process.stdout);
process.on('exit', () => {
  const slowest = [...msByFile].sort(([, a], [, b]) => b - a).slice(0, 10);
  console.error(`slowest: ${slowest.map(([file, ms]) => `${file} ${(ms / 1000).toFixed(0)} s`).join(', ')}`);
});

function took({ file, nesting, details }) {
  if (nesting > 0 || file === undefined) return;
  const name = relative(root, file);
  msByFile.set(name, (msByFile.get(name) ?? 0) + details.duration_ms);
}
