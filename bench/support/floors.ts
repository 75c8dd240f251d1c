import { promisify } from 'node:util';
import { constants, gzip } from 'node:zlib';
import type { AgentBatch } from '../../src/server/exposition/exposition.ts';
import { decimalsOf, numberBytesMax, writeQuotient } from '../../src/server/exposition/numbers.ts';
import { copySlackBytes, copyText } from '../../src/server/exposition/series-text.ts';

/** CPU of this process with its threads for some work, ms. */
export async function cpuMsOfWork(work: () => unknown): Promise<number> {
  const start = process.cpuUsage();
  await work();
  const { user, system } = process.cpuUsage(start);
  return (user + system) / 1000;
}

/** What this machine takes for the least that an answer is made of, nanoseconds of CPU a series. */
export interface Floors {
  /** The texts of all series copied, family by family, from one place, with numbers and times behind them. */
  readonly copyNs: number;
  /** zlib, level 1, over the finished text. */
  readonly gzipNs: number;
}

/** The best of some rounds: on a shared machine the others measure the neighbours. */
export async function floorsOf(batches: readonly AgentBatch[], rounds: number): Promise<Floors> {
  const copy = new Copy(batches);
  let copyMs = Infinity;
  for (let round = 0; round < rounds; round++) copyMs = Math.min(copyMs, await cpuMsOfWork(() => copy.write()));
  const text = copy.write();
  const compress = promisify(gzip);
  let gzipMs = Infinity;
  for (let round = 0; round < Math.min(rounds, 3); round++) {
    gzipMs = Math.min(gzipMs, await cpuMsOfWork(() => compress(text, { level: constants.Z_BEST_SPEED })));
  }
  const perSeries = (ms: number) => (ms * 1e6) / copy.seriesCount;
  return { copyNs: perSeries(copyMs), gzipNs: perSeries(gzipMs) };
}

/** Of one family and agent: where the texts of its series stand, and what comes behind them. */
interface Block {
  /** Of each series, and behind the last where it ends. */
  readonly starts: Uint32Array;
  readonly sums: Float64Array;
  readonly first: number;
  readonly divisor: number;
  readonly decimals: number;
  readonly stampStart: number;
  readonly stampEnd: number;
}

/** Writes what a rendering writes, without finding out what that is. */
class Copy {
  readonly seriesCount: number;
  readonly #blocks: readonly Block[];
  readonly #view: DataView;
  /** The texts stand before it. */
  readonly #start: number;

  constructor(batches: readonly AgentBatch[]) {
    const texts: string[] = [];
    let length = 0;
    const add = (text: string): number => {
      texts.push(text);
      length += text.length;
      return length;
    };
    const blocks: Block[] = [];
    let first = 0;
    let bytesMost = 0;
    // Those that all agents have.
    for (const { family, suffix, labelNames, seriesCount, labelValues } of batches[0]!.runs[0]!.schema.groups) {
      const declaration = `# HELP ${family.name} ${family.help}\n# TYPE ${family.name} ${family.type}\n`;
      for (const { agent, runs } of batches) {
        const { sums, timeMs } = runs[0]!.reports[0]!;
        const starts = new Uint32Array(seriesCount + 1);
        starts[0] = length;
        for (let series = 0; series < seriesCount; series++) {
          const labels = labelNames.map((name, i) => `,${name}="${labelValues[series * labelNames.length + i]!}"`);
          const head = series === 0 && agent === batches[0]!.agent ? declaration : '';
          starts[series + 1] = add(`${head}${family.name}${suffix}{agent="${agent}"${labels.join('')}} `);
        }
        const stampStart = length;
        const stampEnd = add(` ${timeMs}\n`);
        const { divisor } = family;
        blocks.push({ starts, sums, first, divisor, decimals: decimalsOf(divisor), stampStart, stampEnd });
        bytesMost += starts[seriesCount]! - starts[0]! + seriesCount * (numberBytesMax + stampEnd - stampStart);
      }
      first += seriesCount;
    }
    this.seriesCount = first * batches.length;
    this.#blocks = blocks;
    this.#start = length;
    const buffer = Buffer.alloc(length + bytesMost + copySlackBytes);
    buffer.write(texts.join(''), 0, 'latin1');
    this.#view = new DataView(buffer.buffer, buffer.byteOffset, buffer.length);
  }

  /** Returns the text. */
  write(): Uint8Array {
    const view = this.#view;
    let at = this.#start;
    for (const { starts, sums, first, divisor, decimals, stampStart, stampEnd } of this.#blocks) {
      for (let series = 0; series < starts.length - 1; series++) {
        at = copyText(view, at, view, starts[series]!, starts[series + 1]!);
        at = writeQuotient(view, at, sums[first + series]!, divisor, decimals);
        at = copyText(view, at, view, stampStart, stampEnd);
      }
    }
    return new Uint8Array(view.buffer, view.byteOffset + this.#start, at - this.#start);
  }
}
