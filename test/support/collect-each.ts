// Runs as a process of its own (test/agent/collect/fifos.test.ts), which can be ended though a system call hangs: collects on the
// host whose folder is its argument, each collector by itself, and prints what comes of it.
import { statSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { collectorRows, createCollectors } from '../../src/agent/collect/collectors/index.ts';
import { expositionOf } from '../../src/agent/collect/exposition.ts';
import { Host } from '../../src/agent/collect/proc/host.ts';
import { Sampler } from '../../src/agent/collect/sampler.ts';
import { inSlowLane } from '../../src/agent/collect/slow-host.ts';
import { SlowLane } from '../../src/agent/collect/slow-lane.ts';
import { newAgentCounters } from '../../src/agent/own-metrics.ts';
import { realClock } from '../../src/runtime/clock.ts';
import { contextOf } from './collect-fixture.ts';
import { rootsBelow, systemOf } from './fixture-proc.ts';
import { MemoryLog } from './memory-log.ts';

export interface CollectedEach {
  /** By collector: its series, as sorted lines, and how many kinds of problems it counts. */
  readonly [name: string]: { readonly lines: readonly string[]; readonly problems: number };
}

const instantsMax = 400;
const intervalMs = 5000;
const sameInstants = 60_000 / intervalMs + 2;
const pauseMs = 10;
const atATime = 8;
const roots = rootsBelow(process.argv[2]!);

async function collectAlone(row: (typeof collectorRows)[number]) {
  const log = new MemoryLog();
  let passedMs = 0;
  const clock = { ...realClock, monotonicMs: () => realClock.monotonicMs() + passedMs };
  const lane = new SlowLane({ clock, log });
  const collectors = inSlowLane(createCollectors([row], contextOf()), { lane, roots });
  const host = new Host(roots, systemOf());
  const parts = { host, collectors, self: { collect() {} }, clock, counters: newAgentCounters(), log };
  const sampler = new Sampler(parts);
  // What hangs at the first instant keeps its collector from asking for more until the next ones; and on a machine with much
  // else to do, what does not hang may be late too. It is over when all but FIFOs have answered, and nothing changes for as
  // long as a collector waits at the most before it looks again.
  let [text, before] = ['', ''];
  for (let instants = 0, same = 0; instants < instantsMax && same < sameInstants; instants++) {
    text = expositionOf(await sampler.sample());
    passedMs += intervalMs;
    await delay(pauseMs);
    const now = withoutCounts(text);
    same = now === before && lane.pending.every(isFifo) ? same + 1 : 0;
    before = now;
  }
  const all = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  const ofAgent = /^(?:node_scrape_collector_|sysmon_agent_(?:reads_late|collector_failed|parse_errors|attributes_))/;
  const problem = /^sysmon_agent_(?:reads_late|collector_failed|attributes_unreadable_total)\b.* [1-9]\d*$/;
  return {
    lines: all.filter((line) => !ofAgent.test(line)).sort(),
    problems: all.filter((line) => problem.test(line)).length,
  };
}

function isFifo(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isFIFO() ?? false;
}

/** Without what changes at each instant. */
function withoutCounts(text: string): string {
  return text.replaceAll(
    /^(?:node_scrape_collector_duration_seconds|sysmon_agent_attributes_unreadable_total)\{.*\n/gm,
    '',
  );
}

const collected: Record<string, Awaited<ReturnType<typeof collectAlone>>> = {};
const rows = collectorRows.values();
// Some at a time wait for what hangs; all at once would make one another late.
const collectSome = async () => {
  for (const row of rows) collected[row.name] = await collectAlone(row);
};
await Promise.all(Array.from({ length: atATime }, collectSome));
process.stdout.write(JSON.stringify(collected), () => {
  // exit() would wait for threads whose calls hang.
  process.kill(process.pid, 'SIGKILL');
});
