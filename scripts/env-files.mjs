// systemd/*.env, the documented environment files, out of the option rows of both programs.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { root } from './lib.mjs';

/** After compile(), whose output it reads. */
export async function writeEnvFiles() {
  const { envFileText } = await import(join(root, 'build/src/runtime/option-help.js'));
  for (const side of ['agent', 'server']) {
    const { program } = await import(join(root, `build/src/${side}/options.js`));
    const file = join(root, `systemd/${side}.env`);
    const text = envFileText(program);
    if (textOf(file) !== text) writeFileSync(file, text);
  }
}

function textOf(file) {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    if (error.code !== 'ENOENT') throw error;
    return undefined;
  }
}
