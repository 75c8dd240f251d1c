import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { root } from '../lib.mjs';

export const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));

/** Commands, each with what it has printed, into docs/screenshots/NAME.txt. */
export function save(name, parts) {
  const text = parts.map((part) => part.replace(/[ \t]+$/gm, '').trimEnd()).join('\n\n');
  writeFileSync(join(root, `docs/screenshots/${name}.txt`), `${text}\n`);
}
