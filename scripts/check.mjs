// Types, format, lint: what needs no running program.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { compile } from './compile.mjs';
import { ci, fail, filesBelow, isMain, root, run, tool } from './lib.mjs';
import { setup } from './setup.mjs';

export async function check() {
  await compile();
  // biome takes the word ci for a terminal with colours.
  const colours = process.stdout.isTTY ? [] : ['--colors=off'];
  run(tool('biome'), ['ci', '--error-on-warnings', ...colours, '.']);
  checkShell();
}

function checkShell() {
  const packaged = ['preinst', 'postinst', 'prerm', 'postrm'].map((script) => `deb/${script}`);
  const fixed = ['install.sh', '.ci/run', 'test/lab/host', ...packaged].filter((file) => existsSync(join(root, file)));
  const scripts = [...fixed, ...filesBelow('test', (file) => file.endsWith('.sh'))];
  if (spawnSync('shellcheck', ['--version']).status === 0) run('shellcheck', scripts);
  else if (ci) fail("'shellcheck' is missing: apt-get install shellcheck");
  else console.log('shell scripts are not checked: apt-get install shellcheck');
}

if (isMain(import.meta)) {
  setup();
  await check();
}
