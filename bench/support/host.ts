import { agentId } from '../../src/model/agent-id.ts';
import { Schema } from '../../src/model/schema.ts';
import type { SeriesGroup } from '../../src/model/series.ts';
import type { AgentBatch } from '../../src/server/exposition/exposition.ts';
import { groupOf } from '../../test/support/groups.ts';

/** The family whose value counts a host's reports. */
export const reportNumberName = 'node_reports_made';

/**
 * A host in the proportions of a small virtual machine under node_exporter: about 505 series of 282 families, lines of
 * some 75 bytes; one value in six is no whole number, few of them long; a quarter moves between two reports. Hosts are
 * alike, which gzip likes: a real fleet compresses less.
 */
export const hostGroups: readonly SeriesGroup[] = groupsOf(282);

export const hostSeriesCount = hostGroups.reduce((count, { seriesCount }) => count + seriesCount, 0);

export function hostSchema(): Schema {
  const schema = new Schema();
  for (const group of hostGroups) schema.add(group);
  return schema;
}

/** The first values of a host. Its first series counts its reports. */
export function firstSums(host: number): Float64Array {
  return Float64Array.from({ length: hostSeriesCount }, (_, series) => firstSum(series, host));
}

function firstSum(series: number, host: number): number {
  if (series % 5 === 0) return 0;
  if (series % 50 === 1) return Math.sqrt(series * 1000 + host);
  return series * 7919 * 10 ** (series % 7) + host;
}

/** A report of each of so many hosts, as a scrape gives them. */
export function hostBatches(count: number): AgentBatch[] {
  return Array.from({ length: count }, (_, at) => {
    const sums = firstSums(at);
    const report = { seq: 1, timeMs: 1_732_463_564_000 + at, sums, present: new Uint8Array(sums.length).fill(1) };
    return {
      agent: agentId(`web-${at}`)!,
      sourceName: 'host',
      runs: [{ schema: hostSchema(), labels: [], reports: [report] }],
    };
  });
}

/**
 * The values of the next report: the same quarter of the series moves each time, by one to six digits; two in a thousand
 * are no whole numbers and change in every bit.
 */
export function moveOn(sums: Float64Array, round: number): void {
  for (let series = 4; series < sums.length; series += 4) {
    sums[series]! += (((series * 37 + round * 11) % 90) + 10) ** (1 + (series % 3));
  }
  for (let series = 101; series < sums.length; series += 400) sums[series] = Math.sqrt(series * 1000 + round);
  sums[0]!++;
}

function groupsOf(count: number): SeriesGroup[] {
  const areas = ['cpu', 'memory', 'network', 'filesystem', 'disk', 'netstat', 'vmstat', 'softnet', 'sockstat', 'time'];
  return Array.from({ length: count }, (_, at) => {
    // Not the first, which stands alone so that its series can be found.
    const labelled = at % 7 === 1;
    const area = areas[at % areas.length]!;
    const name = `node_${area}_${'thing_'.slice(0, 1 + (at % 6))}${at}${at % 2 ? '_total' : '_bytes'}`;
    const seriesCount = labelled ? (at < 126 ? 7 : 6) : 1;
    return groupOf(
      {
        name: at === 0 ? reportNumberName : name,
        type: at % 2 === 1 ? 'counter' : 'gauge',
        help: `Measured thing ${at} of the area ${area}, as the kernel counts it.`,
        divisor: at % 6 === 5 ? 100 : 1,
        labelNames: labelled ? ['device', 'mode'] : [],
      },
      labelled ? Array.from({ length: seriesCount }, (_, series) => [`eth${series >> 1}`, `mode${series}`]).flat() : [],
    );
  });
}
