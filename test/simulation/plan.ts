import { Random } from '../support/random.ts';
import type { AgentPlan } from './agent-node.ts';
import type { ScraperKind, ScraperPlan } from './scraper-node.ts';
import type { ServerPlan } from './server-node.ts';

/** Everything that a seed decides before the history begins. */
export interface Plan {
  readonly seed: number;
  readonly agents: readonly AgentPlan[];
  readonly server: ServerPlan;
  readonly scrapers: readonly ScraperPlan[];
  /** When each of them is started for the first time. */
  readonly startMs: {
    readonly agents: readonly number[];
    readonly server: number;
    readonly scrapers: readonly number[];
  };
  readonly faults: readonly Fault[];
  /** Faults come until this time; then everything is put right. */
  readonly historyMs: number;
}

/** Something that goes wrong. `forMs`: until it is right again. */
export interface Fault {
  readonly atMs: number;
  readonly forMs: number;
  readonly kind: FaultKind;
  /** Which agent, which Prometheus. */
  readonly which: number;
  /** A fault's own measure: milliseconds of a step, bytes of room, of latency. */
  readonly size: number;
}

const faultKinds = [
  ...['agent line cut', 'agent line reset', 'agent line slow', 'agent line narrow'],
  ...['scraper line cut', 'scraper line reset', 'scraper line slow', 'scraper line narrow'],
  ...['server killed', 'server stopped', 'server paused', 'server without power', 'server disk broken', 'server clock'],
  ...['agent killed', 'agent stopped', 'agent paused', 'agent without power', 'agent disk full', 'agent disk broken'],
  ...['agent disk stalled', 'agent address dead', 'agent trips a bug'],
  ...['agent clock', 'scraper killed', 'scraper paused', 'scraper discards'],
] as const;
/** Those of a scenario alone: the server's state folder is lost; a connection is cut as soon as an answer was stored. */
const otherKinds = ['server loses its state', 'scraper cuts'] as const;
export type FaultKind = (typeof faultKinds)[number] | (typeof otherKinds)[number];

const historyMs = 600_000;

export function makePlan(seed: number): Plan {
  const random = new Random(`plan ${seed}`);
  const agents = Array.from({ length: random.pick([1, 1, 2, 2, 3, 4]) }, (_, at) => agentPlan(random, at));
  const serverAheadMs = wallError(random, [0.9, 0.09]);
  const server: ServerPlan = {
    windowMs: random.chance(0.985) ? 30 * 60_000 : random.whole(90_000, 240_000),
    memoryBytesMax: random.chance(0.98) ? 512 * 2 ** 20 : random.whole(30_000, 100_000),
    wallAheadMs: serverAheadMs,
  };
  const scrapers = scraperPlans(random, { idle: new Random(`idle ${seed}`), kind: new Random(`kind ${seed}`) }, agents);
  const startMs = {
    agents: agents.map(() => (random.chance(0.8) ? random.whole(0, 2000) : random.whole(0, 120_000))),
    server: random.chance(0.8) ? random.whole(0, 2000) : random.whole(0, 60_000),
    scrapers: scrapers.map(() => (random.chance(0.8) ? random.whole(0, 5000) : random.whole(0, 100_000))),
  };
  const faults = drawFaults(random, agents.length, scrapers.length);
  // Without an out-of-order window, a Prometheus refuses what the server has after its clock was set back.
  const isSetBack = faults.some(({ kind, size: byMs }) => kind === 'server clock' && byMs < 0);
  const outOfOrder = isSetBack && random.chance(0.9) ? { outOfOrderMs: 30 * 60_000 } : {};
  return {
    ...{ seed, agents, server, startMs, faults, historyMs },
    scrapers: scrapers.map((each) => ({ ...each, ...outOfOrder })),
  };
}

function agentPlan(random: Random, at: number): AgentPlan {
  const isTight = random.chance(0.015);
  return {
    name: ['web-1', 'db.example', 'x', 'A_long-name.with_all.its-kinds'][at]!,
    intervalMs: random.pick([1000, 2000, 5000, 5000, 5000, 10_000, 15_000]),
    labels: random.pick([
      [],
      [],
      [['site', 'north'] as const],
      [['device', 'of the host'] as const, ['rack', '"7\\8"'] as const],
    ]),
    hasDisk: random.chance(0.992),
    addresses: random.chance(0.7) ? ['192.0.2.1'] : ['2001:db8::1', '192.0.2.1'],
    bounds: {
      bytesMax: isTight ? random.whole(8_000, 80_000) : 64 * 2 ** 20,
      ageMsMax: isTight && random.chance(0.5) ? random.whole(60_000, 300_000) : 24 * 3_600_000,
    },
    wallAheadMs: wallError(random, [0.85, 0.1]),
  };
}

/** Mostly a second or so, sometimes minutes, now and then years. */
function wallError(random: Random, [near, minutes]: readonly [number, number]): number {
  const drawn = random.next();
  if (drawn < near) return random.whole(-1500, 1500);
  if (drawn < near + minutes) return random.whole(-300_000, 300_000);
  return random.pick([-1, 1]) * random.whole(600_000, 3_000_000_000);
}

function scraperPlans(
  random: Random,
  { idle, kind }: { readonly idle: Random; readonly kind: Random },
  agents: readonly AgentPlan[],
): ScraperPlan[] {
  const count = random.chance(0.6) ? 1 : 2;
  const sharesName = random.chance(0.25);
  return Array.from({ length: count }, (_, at) => {
    const intervalMs = random.pick([2000, 5000, 5000, 5000, 15_000]);
    const steady = agents.reduce((sum, agent) => sum + seriesMax * Math.ceil((2 * intervalMs) / agent.intervalMs), 0);
    const selections = random.chance(0.9) ? [''] : agents.map(({ name }) => name);
    const scraper = sharesName ? 'shared' : `own-${at + 1}`;
    // One name, one address and several targets each: nothing tells them apart.
    const address = selections[0] === '' && sharesName ? '192.0.2.9' : `192.0.2.${at + 1}`;
    return {
      name: `prometheus-${at + 1}`,
      ...{ scraper, address, selections, idle: sharesName ? undefined : idlePlan(idle) },
      ...kindPlan(kind, { sharesName, steady }),
      intervalMs,
      timeoutMs: random.chance(0.5) ? intervalMs : Math.max(1000, intervalMs / 2),
      outOfOrderMs: random.chance(0.6) ? 0 : 30 * 60_000,
      wallAheadMs: random.whole(-1500, 1500),
      samplesMax: random.chance(0.85) ? undefined : 3 * steady,
    };
  });
}

/**
 * Mostly the scraper itself, which stores what it reads. Without receipts a proxy or a limit loses something, so most have
 * receipts; the database of a name that two share is unknown.
 */
function kindPlan(
  random: Random,
  { sharesName, steady }: { sharesName: boolean; steady: number },
): Pick<ScraperPlan, 'kind' | 'receipts'> {
  const drawn = random.next();
  const kind: ScraperKind =
    drawn < 0.1
      ? { kind: 'behind a proxy', isSeen: random.chance(0.5) }
      : drawn < 0.2
        ? { kind: 'refuses by size', samplesMax: ownSamplesMax + steady * random.pick([1, 2, 4]) }
        : drawn < 0.26
          ? { kind: 'keeps the first' }
          : { kind: 'direct' };
  const hasReceipts = random.chance(kind.kind === 'direct' || kind.kind === 'keeps the first' ? 0.2 : 0.9);
  const receipts = {
    latencyMs: random.pick([[1, 30] as const, [1, 30] as const, [20, 1500] as const, [500, 12_000] as const]),
    lostShare: random.pick([0, 0, 0.1, 0.5]),
  };
  return { kind: sharesName ? { kind: 'direct' } : kind, receipts: hasReceipts && !sharesName ? receipts : undefined };
}

/** Shorter than most intervals, or longer than some. */
function idlePlan(random: Random): ScraperPlan['idle'] {
  if (random.chance(0.8)) return undefined;
  const by = random.pick(['close', 'reset'] as const);
  // A reset within a second looks like a scraper that was killed by the answer: it is given it many times.
  return { afterMs: random.whole(by === 'reset' ? 1200 : 300, 12_000), by };
}

// Of synthetic-host.ts.
const seriesMax = 24;
// What the server says of itself, to two scrapers with several targets.
const ownSamplesMax = 120;

function drawFaults(random: Random, agentCount: number, scraperCount: number): Fault[] {
  const faults: Fault[] = [];
  // Some histories have everything, some one kind alone: what hides in a crowd shows when it is alone, and the reverse.
  const share = random.pick([0.1, 0.3, 0.3, 0.6]);
  for (const kind of faultKinds) {
    if (!random.chance(share) || random.chance(rarity[kind] ?? 0)) continue;
    const count = random.whole(1, kind.startsWith('server') ? 3 : 5);
    for (let at = 0; at < count; at++) faults.push(drawFault(random, kind, { agentCount, scraperCount }));
  }
  faults.sort((a, b) => a.atMs - b.atMs);
  // An agent that ends while its disk takes nothing loses what it has: mostly one of the two at a time.
  return random.chance(0.05) ? faults : faults.filter((fault) => !(endsAgent(fault) && faults.some(meets(fault))));
}

const endsAgent = ({ kind }: Fault): boolean => /^agent (?:killed|stopped|without power)$/.test(kind);

function meets(end: Fault): (fault: Fault) => boolean {
  return ({ kind, which, atMs, forMs }) =>
    kind.startsWith('agent disk') &&
    which === end.which &&
    // A start does not wait long for a disk that stalls.
    atMs < end.atMs + drainMs + (kind === 'agent disk stalled' ? end.forMs : 0) &&
    end.atMs < atMs + forMs + diskTriedAgainMs;
}

// Of uplink.ts and mirror.ts.
const drainMs = 8000;
const diskTriedAgainMs = 25_000;

/** How often a kind is left out, although it was drawn: those that lose something by themselves. */
const rarity: Partial<Record<FaultKind, number>> = {
  'agent without power': 0.85,
  'server without power': 0.7,
  'server clock': 0.5,
  'server disk broken': 0.5,
};

function drawFault(
  random: Random,
  kind: FaultKind,
  { agentCount, scraperCount }: { agentCount: number; scraperCount: number },
): Fault {
  const which = random.whole(0, (kind.startsWith('agent') ? agentCount : scraperCount) - 1);
  const atMs = random.whole(3000, historyMs - 20_000);
  return { atMs, forMs: Math.min(forMs(random, kind), historyMs - atMs), kind, which, size: size(random, kind) };
}

function forMs(random: Random, kind: FaultKind): number {
  if (kind.endsWith('paused')) return random.chance(0.7) ? random.whole(50, 3000) : random.whole(3000, 40_000);
  if (/killed|stopped|power/.test(kind))
    return random.chance(0.8) ? random.whole(20, 15_000) : random.whole(15_000, 200_000);
  return random.pick([random.whole(100, 3000), random.whole(1000, 30_000), random.whole(10_000, 200_000)]);
}

function size(random: Random, kind: FaultKind): number {
  if (kind.endsWith('clock')) {
    const isBig = random.chance(0.6);
    return random.pick([-1, 1]) * (isBig ? random.whole(2000, random.pick([10_000, 600_000])) : random.whole(1, 1200));
  }
  if (kind.endsWith('slow')) return random.pick([100, 400, 2000]);
  if (kind.endsWith('narrow')) return random.pick([300, 2000, 8000]);
  // How often in a row, also when the same report comes again.
  if (kind === 'agent trips a bug') return random.pick([1, 1, 1, 2, 2, 2, 3, 5]);
  return random.pick([0, 100, 3000]);
}
