import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { rootFile } from './support/files.ts';
import { benchResults, blocksOf, filled, generatedDocuments } from './support/report-blocks.ts';

// The parts of the documentation that are generated, and the report in its two languages.

const read = (path: string): string => readFileSync(rootFile(path), 'utf8');

if (process.env.UPDATE === '1') {
  for (const path of generatedDocuments) writeFileSync(rootFile(path), filled(read(path)));
} else {
  for (const path of generatedDocuments) {
    test(`the generated parts of ${path} are what was measured and seen`, () => {
      assert.ok(read(path) === filled(read(path)), "they are old: 'npm run report' makes them anew");
    });
  }
}

test('every part that says it is generated is', () => {
  for (const path of generatedDocuments) {
    const count = read(path).match(/<!-- generated:/g)?.length ?? 0;
    assert.equal(blocksOf(read(path)).length, count, path);
    assert.equal(read(path).match(/<!-- end -->/g)?.length ?? 0, count, path);
  }
});

test('results of the bench are of files that are there', () => {
  for (const name of Object.keys(benchResults)) assert.ok(existsSync(rootFile(`bench/${name}.ts`)), name);
});

test('figures of the bench in sentences are those of its last run', () => {
  const measured = (bench: keyof typeof benchResults, row: RegExp, figure: RegExp): number => {
    const found = benchResults[bench]!.rows.find(({ what }) => row.test(what));
    return Number(figure.exec(found!.measured)![1]);
  };
  const memory = /RSS above an empty process/;
  const added = measured('server', memory, /^(\d+) MiB/);
  const empty = measured('server', memory, /empty (\d+)/);
  const sentences: [path: string, sentence: RegExp, ...figures: number[]][] = [
    [
      ...(['docs/sizing.md', /on a large host \(42 000 series\) (\d+) MiB and (\d+) % of one/] as const),
      measured('agent', /^agent, large host.*: resident memory/, /^([\d.]+) MiB/),
      // Each 5 s.
      measured('agent', /^agent, large host.*: CPU a collection/, /^([\d.]+) ms/) / 50,
    ],
    ['docs/sizing.md', /\| (\d+) MiB, and (\d+) MiB for 1000 agents of 505 series/, empty, added],
    [
      'docs/operating.md',
      /A server takes (\d+) MiB at rest, and with 1000 agents of 505 series\n(\d+) in/,
      empty,
      added,
    ],
    [
      ...(['docs/developing.md', /which prints timestamps and is (\d+) times as fast/] as const),
      1 / measured('exposition', /^server, rendering with timestamps/, /copy, ([\d.]+) x prom-client/),
    ],
  ];
  for (const [path, sentence, ...figures] of sentences) {
    const said = sentence.exec(read(path));
    assert.ok(said !== null, `${path}: ${sentence}`);
    assert.deepEqual(said.slice(1).map(Number), figures.map(Math.round), `${path}: ${said[0]}`);
  }
});

interface Outline {
  /** Levels of the headings with their numbers, and between them pictures and generated parts. */
  readonly parts: readonly string[];
  readonly links: readonly string[];
}

/** What a document has, whatever its language. */
function outlineOf(text: string): Outline {
  const parts: string[] = [];
  let fence = false;
  for (const line of text.split('\n')) {
    if (line.startsWith('```')) fence = !fence;
    if (fence && !line.startsWith('```')) continue;
    const heading = /^(#+) (?:([\d۰-۹.]+) )?/.exec(line);
    if (heading !== null) parts.push(`${heading[1]} ${latin(heading[2] ?? '')}`);
    const generated = /^<!-- generated: (.*) -->$/.exec(line);
    if (generated !== null) parts.push(generated[1]!);
    for (const [, picture] of line.matchAll(/!\[[^\]]+\]\(([^)]+)\)/g)) parts.push(picture!);
  }
  const links = [...text.matchAll(/(?<!!)\[[^\]]+\]\(([^)#]+)[^)]*\)/g)].map(([, link]) => link!);
  return { parts, links: [...new Set(links)].sort() };
}

const latin = (digits: string): string => digits.replace(/[۰-۹]/g, (digit) => String(digit.charCodeAt(0) - 0x6f0));

test('the report has the same sections, pictures, generated parts and links in both languages', () => {
  const english = outlineOf(read('docs/report.md'));
  const persian = outlineOf(read('docs/report.fa.md'));
  assert.deepEqual(persian.parts, english.parts);
  const own = ['report.fa.md', 'report.md'];
  assert.deepEqual(
    persian.links.filter((link) => !own.includes(link)),
    english.links.filter((link) => !own.includes(link)),
  );
  assert.ok(english.parts.length > 30, `${english.parts.length} parts`);
});

test('the Persian report is right to left, and its code left to right', () => {
  const text = read('docs/report.fa.md');
  let direction = 'ltr';
  let fence = false;
  for (const [at, line] of text.split('\n').entries()) {
    if (line.startsWith('```')) {
      fence = !fence;
      assert.equal(direction, 'ltr', `line ${at + 1}: code`);
    } else if (!fence) {
      const [, changed] = /^<div dir="(rtl|ltr)">$/.exec(line) ?? [];
      if (changed !== undefined) direction = changed;
      if (line === '</div>') direction = 'ltr';
      if (/[\u0600-\u06ff]{3}/.test(line)) assert.equal(direction, 'rtl', `line ${at + 1}: ${line}`);
      // Between words that run to the left, `/proc` would be shown as proc/: <code dir="ltr">/proc</code>.
      if (direction === 'rtl') {
        for (const [, code] of line.matchAll(/`([^`]+)`/g)) assert.match(code!, /^\w(?:.*\w)?$/, `line ${at + 1}`);
      }
    }
  }
});

test('each picture and transcript is shown, and small', () => {
  const text = [...generatedDocuments, 'docs/page.md'].map(read).join('\n');
  for (const file of readdirSync(rootFile('docs/screenshots'))) {
    const isShown = file.endsWith('.txt')
      ? text.includes(`<!-- generated: transcript ${file.slice(0, -4)} -->`)
      : text.includes(`screenshots/${file})`);
    assert.ok(isShown, `docs/screenshots/${file} is in no document`);
    assert.ok(statSync(rootFile(`docs/screenshots/${file}`)).size <= 200_000, file);
  }
});
