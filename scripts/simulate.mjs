// npm run simulate [-- --seeds N --from S --trace --backlog]: set-up, build, then the histories S to S + N - 1, on every
// core; with --backlog those of twenty agents, of which five come back with 3 h of reports.
// One that is violated is printed with its seed; --seeds 1 --from SEED --trace shows it event by event.
import { spawn } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { parseArgs } from 'node:util';
import { compile } from './compile.mjs';
import { fail, root } from './lib.mjs';
import { setup } from './setup.mjs';

const { values } = parseArgs({
  options: {
    seeds: { type: 'string' },
    from: { type: 'string' },
    trace: { type: 'boolean' },
    backlog: { type: 'boolean' },
  },
});
const count = wholeNumber('seeds', values.seeds ?? '1000');
const first = wholeNumber('from', values.from ?? process.env.SEED ?? '1');

setup();
await compile();
const workers = Math.min(availableParallelism(), count);
const codes = await Promise.all(Array.from({ length: workers }, (_, at) => run(at)));
process.exit(Math.max(...codes));

function run(at) {
  const share = Math.ceil((count - at) / workers);
  const args = [first + at, workers, share].map(String);
  if (values.trace) args.push('--trace');
  if (values.backlog) args.push('--backlog');
  const child = spawn(process.execPath, ['--enable-source-maps', `${root}build/test/simulation/simulate.js`, ...args], {
    stdio: 'inherit',
  });
  return new Promise((resolve) => child.once('exit', (code) => resolve(code ?? 1)));
}

function wholeNumber(name, text) {
  if (!/^\d{1,15}$/.test(text)) fail(`option '--${name}' is '${text}': expected a whole number`);
  return Number(text);
}
