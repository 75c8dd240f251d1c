import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { SeriesGroup } from '../../../src/model/series.ts';
import { encodeMessage, encodeSchema } from '../../../src/protocol/codec.ts';
import { encodeFrame } from '../../../src/protocol/frame.ts';
import { groupOf } from '../../support/groups.ts';
import { settle } from '../../support/virtual-clock.ts';
import { ConnectionHarness } from './connection-harness.ts';

// What one frame costs the whole server, from its bytes to the window: test/protocol/dearest.test.ts has what decoding it
// costs. A frame of a few bytes can end what a megabyte has declared.

const seriesCount = 65_000;
const mostMs = 10;
const rounds = 4;
// On a machine that is busy with something else.
const roundsMost = 40;

const family = (name: string, labelNames: readonly string[]) =>
  ({ name, type: 'gauge', help: '', divisor: 1, labelNames }) as const;

const declarations: Readonly<Record<string, () => SeriesGroup[]>> = {
  'of one family with the most series': () => [
    groupOf(
      family('a', ['l']),
      Array.from({ length: seriesCount }, (_, i) => i.toString(36)),
    ),
  ],
  'of the most families': () =>
    Array.from({ length: seriesCount }, (_, i) => groupOf(family(`a${i.toString(36)}`, []), [])),
};

for (const [what, groups] of Object.entries(declarations)) {
  // Without reports nothing holds what a begin ends, and of the most families that is most.
  for (const reports of what === 'of the most families' ? [false, true] : [true]) {
    const title = `${what}, ${reports ? 'with reports' : 'begun again before a report'}`;
    test(`no frame costs the server ${mostMs} ms of a processor: ${title}`, async (context) => {
      const costs = new Costs();
      // All of it is within the budgets.
      const server = new ConnectionHarness({ memoryBytesMax: 2 ** 31 });
      const client = await server.welcomed();
      const schema = encodeSchema(0, groups()).map(encodeFrame);
      let seq = 0;
      const report = async (kind: string, key: boolean, pairs: (number | null)[]) => {
        const timeMs = server.clock.nowMs();
        const bytes = encodeFrame(encodeMessage({ kind: 'report', key, source: 0, seq: ++seq, timeMs, pairs }));
        await costs.of(kind, () => client.bytes(bytes));
        await server.clock.advance(1000);
      };
      const doubles = (by: number) => Array.from({ length: seriesCount }, (_, i) => [-1, i + by]).flat();
      for (let round = 0; round < rounds || (round < roundsMost && costs.most().ms > mostMs); round++) {
        await costs.of('begin', () => client.begin());
        for (const [at, bytes] of schema.entries()) await costs.of(`schema ${at}`, () => client.bytes(bytes));
        if (!reports) continue;
        await report('first report', true, [0, 1]);
        await report('key report', true, doubles(round + 0.25));
        await report('report of absolutes', false, doubles(round + 0.5));
      }
      assert.deepEqual([client.error, server.ended], [undefined, []]);
      context.diagnostic(costs.text());
      assert.ok(costs.most().ms <= mostMs, costs.text());
    });
  }
}

/** Of frames by name: the least of some rounds, for others run on this machine too. */
class Costs {
  readonly #leastMs = new Map<string, number>();

  /** Sends a frame, and waits until the server has done with it. */
  async of(frame: string, send: () => void): Promise<void> {
    const start = process.cpuUsage();
    send();
    await settle();
    const { user, system } = process.cpuUsage(start);
    this.#leastMs.set(frame, Math.min(this.#leastMs.get(frame) ?? Infinity, (user + system) / 1000));
  }

  most(): { readonly frame: string; readonly ms: number } {
    const [frame, ms] = [...this.#leastMs].reduce((a, b) => (b[1] > a[1] ? b : a));
    return { frame, ms };
  }

  text(): string {
    const schemas = [...this.#leastMs].filter(([frame]) => frame.startsWith('schema '));
    const dearest = schemas.reduce((a, b) => (b[1] > a[1] ? b : a));
    const shown = [...[...this.#leastMs].filter(([frame]) => !frame.startsWith('schema ')), dearest];
    return shown.map(([frame, ms]) => `${frame} ${ms.toFixed(2)} ms`).join(', ');
  }
}
