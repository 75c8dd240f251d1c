// node --enable-source-maps scripts/run-tests.mjs TIMEOUT_MS FILE …: runs test files two at a time, in this order. The
// command `node --test FILE …` sorts them, and what takes longest would come when there is nothing left to run beside it.
import { run } from 'node:test';
import { spec } from 'node:test/reporters';

const [timeoutMs, ...files] = process.argv.slice(2);

run({ files, timeout: Number(timeoutMs), concurrency: 2 })
  .on('test:fail', () => {
    process.exitCode = 1;
  })
  .compose(spec)
  .pipe(process.stdout);
