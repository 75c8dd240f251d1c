// Types, format, lint: what needs no running program.
import { spawn, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { basename, join } from 'node:path';
import { compile } from './compile.mjs';
import { ci, fail, filesBelow, isMain, root, tool } from './lib.mjs';
import { setup } from './setup.mjs';

/** The three of them at once: each has a processor of its own for only a part of the time. */
export async function check() {
  const linted = [lint(), ...checkShell()];
  await compile();
  for (const { program, ended } of linted) {
    const { status, output } = await ended;
    if (output !== '') console.log(output.trimEnd());
    if (status !== 0) fail(`'${program}' has found something`);
  }
}

function lint() {
  // biome takes the word ci for a terminal with colours.
  const colours = process.stdout.isTTY ? '--colors=force' : '--colors=off';
  return begin(tool('biome'), ['ci', '--error-on-warnings', colours, '.']);
}

function checkShell() {
  const packaged = ['preinst', 'postinst', 'prerm', 'postrm'].map((script) => `deb/${script}`);
  const fixed = ['install.sh', '.ci/run', 'test/lab/host', ...packaged].filter((file) => existsSync(join(root, file)));
  const scripts = [...fixed, ...filesBelow('test', (file) => file.endsWith('.sh'))];
  if (spawnSync('shellcheck', ['--version']).status === 0) return [begin('shellcheck', scripts)];
  if (ci) fail("'shellcheck' is missing: apt-get install shellcheck");
  console.log('shell scripts are not checked: apt-get install shellcheck');
  return [];
}

/** Runs a program in the root folder, beside us. */
function begin(program, args) {
  const child = spawn(program, args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text) => {
      output += text;
    });
  }
  const ended = new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (status) => resolve({ status, output }));
  });
  return { program: basename(program), ended };
}

if (isMain(import.meta)) {
  setup();
  await check();
}
