// Runs as a process of its own (test/agent/collect/fifos.test.ts), which can be ended though a system call hangs: collects on the
// host whose folder is its argument, each collector by itself and all at the same time, and prints what comes of it.
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

const instantsMax = 100;
const sameInstants = 6;
const pauseMs = 30;
const intervalMs = 5000;
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
  // else to do, what does not hang may be late too. It is over when nothing changes, nor anything else is waited for.
  let [text, state] = ['', ''];
  for (let instants = 0, same = 0; instants < instantsMax && same < sameInstants; instants++) {
    text = expositionOf(await sampler.sample());
    passedMs += intervalMs;
    await delay(pauseMs);
    const before = state;
    state = withoutCounts(text) + lane.pending.join();
    same = state === before ? same + 1 : 0;
  }
  const all = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  const ofAgent = /^(?:node_scrape_collector_|sysmon_agent_(?:reads_late|collector_failed|parse_errors|attributes_))/;
  const problem = /^sysmon_agent_(?:reads_late|collector_failed|attributes_unreadable_total)\b.* [1-9]\d*$/;
  return {
    lines: all.filter((line) => !ofAgent.test(line)).sort(),
    problems: all.filter((line) => problem.test(line)).length,
  };
}

/** Without what changes at each instant. */
function withoutCounts(text: string): string {
  return text.replaceAll(
    /^(?:node_scrape_collector_duration_seconds|sysmon_agent_attributes_unreadable_total)\{.*\n/gm,
    '',
  );
}

const collected = await Promise.all(collectorRows.map(async (row) => [row.name, await collectAlone(row)] as const));
process.stdout.write(JSON.stringify(Object.fromEntries(collected)), () => {
  // exit() would wait for threads whose calls hang.
  process.kill(process.pid, 'SIGKILL');
});
