import { Random } from '../support/random.ts';
import type { AgentPlan } from './agent-node.ts';
import type { Fault, FaultKind, Plan } from './plan.ts';

/**
 * Twenty agents, of which five come back one after another with what they made in 3 h, some with clocks that are an hour off;
 * windows of 5 h; a Prometheus that scrapes each 2 s; and faults of eleven kinds, each over before the next.
 */
export function makeBacklogPlan(seed: number): Plan {
  const random = new Random(`backlog ${seed}`);
  const agents = Array.from({ length: agentCount }, (_, at): AgentPlan => {
    const kind = at < backCount ? 'back' : 'here';
    return {
      ...{ name: `${kind}-${at}`, intervalMs: 10_000, labels: [], hasDisk: true, addresses: ['192.0.2.1'] },
      bounds: { bytesMax: 64 * 2 ** 20, ageMsMax: 24 * hourMs },
      wallAheadMs: random.pick([-hourMs, 0, hourMs, 0, 1500]),
    };
  });
  const faults: Fault[] = [];
  for (let which = 0; which < backCount; which++) {
    const forMs = comesBackMs + 10_000 + (which + random.next()) * (faultsMs / backCount);
    faults.push({ atMs: 1000, forMs, kind: 'agent line cut', which, size: 0 });
  }
  const turns = random.shuffled(kinds);
  let atMs = comesBackMs + 10_000;
  for (let turn = 0; atMs < comesBackMs + faultsMs; turn++) {
    const kind = turns[turn % turns.length]!;
    const forMs = random.whole(100, 6000);
    const which = kind.startsWith('agent') ? random.whole(0, agentCount - 1) : 0;
    faults.push({ atMs, forMs, kind, which, size: 0 });
    atMs += forMs + random.whole(200, 4000);
  }
  faults.sort((a, b) => a.atMs - b.atMs);
  const startMs = {
    agents: agents.map((_, at) => (at < backCount ? random.whole(0, 5000) : comesBackMs - 30_000 + at * 100)),
    server: comesBackMs - 20_000,
    scrapers: [comesBackMs - 10_000],
  };
  return {
    ...{ seed, agents, faults, startMs, historyMs: comesBackMs + faultsMs + 20_000 },
    server: { windowMs: 5 * hourMs, memoryBytesMax: 512 * 2 ** 20, wallAheadMs: random.whole(-1500, 1500) },
    scrapers: [
      {
        ...{ name: 'prometheus-1', scraper: 'own-1', address: '192.0.2.1', selections: [''], idle: undefined },
        ...{ kind: { kind: 'direct' }, receipts: undefined },
        ...{ intervalMs: 2000, timeoutMs: 2000, outOfOrderMs: 5 * hourMs, samplesMax: undefined },
        wallAheadMs: random.whole(-1500, 1500),
      },
    ],
  };
}

const hourMs = 3_600_000;
const agentCount = 20;
const backCount = 5;
const comesBackMs = 3 * hourMs;
const faultsMs = 120_000;

const kinds: readonly FaultKind[] = [
  ...(['server killed', 'server stopped', 'server loses its state'] as const),
  ...(['scraper killed', 'scraper paused', 'scraper discards', 'scraper cuts'] as const),
  ...(['agent line cut', 'agent line reset', 'scraper line cut', 'scraper line reset'] as const),
];
