import { readFileSync } from 'node:fs';
import { codeOf } from './words.ts';

/** The text of a file, undefined where there is none. */
export function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}
