import { existsSync, readFileSync } from 'node:fs';
import { rootFile } from './files.ts';
import { wireFixtureText } from './wire-fixture.ts';

/*
 * Parts of the documentation that are generated from what was measured, seen or is used elsewhere, so that no figure is
 * typed:
 *
 *     <!-- generated: bench protocol -->      a table of bench/result.json, which npm run bench -- --save writes
 *     <!-- generated: transcript agents -->   docs/screenshots/agents.txt, which npm run screenshots writes
 *     <!-- generated: wire hello -->          frames of test/fixtures/wire/v1.hex, by how their titles begin
 *     <!-- generated: file Containerfile -->  a file, without its comments at the top
 *     …
 *     <!-- end -->
 */
const block = /<!-- generated: (\S+) ([^\n]*?) -->\n[\s\S]*?<!-- end -->/g;

/** The documents that have such parts. */
export const generatedDocuments = ['docs/report.md', 'docs/report.fa.md', 'docs/sizing.md'] as const;

/** A document with its generated parts made anew. */
export function filled(text: string): string {
  return text.replace(
    block,
    (_, kind: string, argument: string) =>
      `<!-- generated: ${kind} ${argument} -->\n${generated(kind, argument)}\n<!-- end -->`,
  );
}

/** What of a document is generated, in its order. */
export function blocksOf(text: string): string[] {
  return [...text.matchAll(block)].map(([, kind, argument]) => `${kind} ${argument}`);
}

function generated(kind: string, argument: string): string {
  switch (kind) {
    case 'bench':
      return benchTable(argument);
    case 'transcript':
      return fenced(read(`docs/screenshots/${argument}.txt`), 'text');
    case 'wire':
      return fenced(wireFrames(argument.split(' / ')), 'text');
    case 'file':
      return fenced(read(argument).replace(/^(?:#.*\n)+\n?/, ''), /\.ya?ml$/.test(argument) ? 'yaml' : 'dockerfile');
    default:
      throw new Error(`no generated part of the kind '${kind}'`);
  }
}

function fenced(text: string, language: string): string {
  return `\`\`\`${language}\n${text.trimEnd()}\n\`\`\``;
}

export interface BenchResult {
  readonly date: string;
  readonly machine: string;
  /** Load average of the minute before. */
  readonly load: number;
  readonly size: string;
  readonly rows: readonly {
    readonly what: string;
    readonly measured: string;
    readonly target: string;
    readonly ok?: boolean;
  }[];
}

export const benchResults: Readonly<Record<string, BenchResult>> = existsSync(rootFile('bench/result.json'))
  ? (JSON.parse(read('bench/result.json')) as Record<string, BenchResult>)
  : {};

/** Of one file of bench/. */
function benchTable(name: string): string {
  const result = benchResults[name];
  if (result === undefined) throw new Error(`bench/result.json has no '${name}': npm run bench -- ${name} --save`);
  const cell = (text: string) => text.replaceAll('|', '\\|');
  const rows = result.rows.map(({ what, measured, target, ok }) => {
    const verdict = ok === undefined ? '' : ok ? 'reached' : 'missed';
    return `| ${[what, measured, target, verdict].map(cell).join(' | ')} |`;
  });
  return `| what | measured | target | |
| --- | --- | --- | --- |
${rows.join('\n')}

\`npm run bench ${name}\`, ${result.date}: ${result.machine}, a load of ${result.load} by others before it began`;
}

/** Frames by how their titles begin, each once, in the fixture's order. */
function wireFrames(titles: readonly string[]): string {
  const frames = wireFixtureText.split(/\n(?=[<>] )/).map((frame) => frame.trimEnd());
  const chosen = titles.map((title) => {
    const found = frames.filter((frame) => frame.slice(2).startsWith(title));
    if (found.length === 0) throw new Error(`no frame of the fixture is called '${title}…'`);
    return found[0]!;
  });
  return chosen.join('\n\n');
}

function read(path: string): string {
  return readFileSync(rootFile(path), 'utf8');
}
