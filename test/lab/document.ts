import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { rootFile } from '../support/files.ts';

/** Commands of a document, and the host on which they are run. */
export interface Block {
  readonly host: string;
  /** For one shell. */
  readonly script: string;
}

/**
 * The blocks of commands under a heading of docs/operating.md, in their order. Each begins with the name of the host:
 *
 *     # on s1
 *     sudo sysmon-server status
 */
export function procedure(heading: string): readonly Block[] {
  const text = readFileSync(rootFile('docs/operating.md'), 'utf8');
  const [section] = text.split(`\n${heading}\n`).slice(1, 2);
  assert.ok(section !== undefined, `docs/operating.md has no '${heading}'`);
  const [body = ''] = section.split(/^##+ /m);
  const blocks = [...body.matchAll(/^```\n# on (\S+)\n([\s\S]*?)^```$/gm)];
  assert.ok(blocks.length > 0, `'${heading}' of docs/operating.md has no commands`);
  return blocks.map(([, host = '', script = '']) => ({ host, script }));
}
