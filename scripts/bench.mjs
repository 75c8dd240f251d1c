// npm run bench [-- FILTER …]: every bench/*.ts whose name contains a filter, each in a process of its own; one table.
//   --save   their rows replace those of bench/result.json, from which 'npm run report' takes the figures of the documentation
import { fork } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism, loadavg, release } from 'node:os';
import { basename, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { bundle, compile } from './compile.mjs';
import { fail, filesBelow, root } from './lib.mjs';
import { setup } from './setup.mjs';

if (process.send) {
  const { rows } = await import(pathToFileURL(process.argv[2]).href);
  process.send(await rows());
  process.disconnect();
} else {
  await main(process.argv.slice(2));
}

async function main(args) {
  const filters = args.filter((each) => !each.startsWith('--'));
  const unknown = args.find((each) => each.startsWith('--') && each !== '--save');
  if (unknown) fail(`unknown option '${unknown}': --save or parts of file names are expected`);
  const files = filesBelow('bench', isBench).filter(
    (file) => filters.length === 0 || filters.some((filter) => file.includes(filter)),
  );
  if (files.length === 0) fail(`no file of bench/ has '${filters.join("' or '")}' in its name`);
  setup();
  await compile();
  await bundle();
  const rows = [];
  for (const file of files) {
    console.error(`${file} …`);
    const [load] = loadavg();
    const own = await rowsOf(`${root}build/${file.replace(/\.ts$/, '.js')}`);
    if (args.includes('--save')) save(basename(file, '.ts'), { load, rows: own });
    rows.push(...own);
  }
  print(rows);
}

/** With the load average of the minute before: a machine that others use takes longer. */
function save(name, { load, rows }) {
  const path = join(root, 'bench/result.json');
  const saved = existsSync(path) ? JSON.parse(readFileSync(path, 'utf8')) : {};
  const linux = release().split('.').slice(0, 2).join('.');
  const machine = `${availableParallelism()} cores, Node.js ${process.versions.node}, Linux ${linux}`;
  const size = process.env.SYSMON_BENCH_FULL === '1' ? 'full' : 'usual';
  saved[name] = { date: new Date().toISOString().slice(0, 10), machine, load: Math.round(load), size, rows };
  const sorted = Object.fromEntries(Object.entries(saved).sort(([a], [b]) => (a < b ? -1 : 1)));
  writeFileSync(path, `${JSON.stringify(sorted, null, 2)}\n`);
}

// What only helps to measure lies below bench/support/.
function isBench(file) {
  return /^bench\/[^/]+\.ts$/.test(file) && file !== 'bench/row.ts';
}

function rowsOf(path) {
  return new Promise((resolve) => {
    const child = fork(process.argv[1], [path], { cwd: root, execArgv: ['--expose-gc', '--enable-source-maps'] });
    let rows;
    child.on('message', (message) => {
      rows = message;
    });
    child.on('exit', (code, signal) => {
      if (code === 0 && rows) resolve(rows);
      else fail(`${path} ended with ${signal ?? code} and gave ${rows ? 'its rows' : 'no rows'}`);
    });
  });
}

function print(rows) {
  const table = [['what', 'measured', 'target', '']];
  for (const { what, measured, target, ok } of rows) {
    table.push([what, measured, target, ok === undefined ? '' : ok ? 'reached' : 'MISSED']);
  }
  const widths = table[0].map((_, column) => Math.max(...table.map((line) => line[column].length)));
  for (const line of table)
    console.log(
      line
        .map((cell, column) => cell.padEnd(widths[column]))
        .join('  ')
        .trimEnd(),
    );
}
