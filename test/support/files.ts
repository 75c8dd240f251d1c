import { fileURLToPath } from 'node:url';

// build/test/support/ → the folder that holds package.json.
const root = new URL('../../../', import.meta.url);

/** A file of the tree, by its path from the top. */
export function rootFile(path: string): string {
  return fileURLToPath(new URL(path, root));
}

/** A file below test/fixtures/. */
export function fixtureFile(path: string): string {
  return rootFile(`test/fixtures/${path}`);
}
