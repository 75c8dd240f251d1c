// npm run bench [-- FILTER …]: every bench/*.ts whose name contains a filter, each in a process of its own; one table.
import { fork } from 'node:child_process';
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

async function main(filters) {
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
    rows.push(...(await rowsOf(`${root}build/${file.replace(/\.ts$/, '.js')}`)));
  }
  print(rows);
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
