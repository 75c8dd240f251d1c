import { limits } from '../protocol/limits.ts';
import { type BootClock, type Clock, ClockWatch } from '../runtime/clock.ts';
import type { Log } from '../runtime/log.ts';
import { isoTime, secondsText } from '../runtime/words.ts';
import type { AgentRecord } from './delivery/agent-record.ts';

/** The clock of this host, as `status` shows it. */
export interface ServerClockStatus {
  /** How often it was set by more than 2 s since the start or during the restart, and the last time. */
  readonly steps: number;
  readonly lastStep?: { readonly at: string; readonly seconds: number };
  /** Most connected agents agree with each other, and not with this host: it is ahead of them by so much. */
  readonly aheadOfAgents?: { readonly seconds: number; readonly agents: number; readonly of: number };
}

/** Watches the clock of this host: whether it was set, and whether it disagrees with the agents' clocks. */
export class ServerClock {
  readonly #clock: Clock;
  readonly #log: Pick<Log, 'warn' | 'info'>;
  readonly #watch: ClockWatch;
  #steps = 0;
  #last: { readonly atMs: number; readonly byMs: number } | undefined;
  #ahead: CommonOffset | undefined;

  constructor(options: { readonly clock: Clock; readonly boot: BootClock; readonly log: Pick<Log, 'warn' | 'info'> }) {
    this.#clock = options.clock;
    this.#log = options.log;
    this.#watch = new ClockWatch({ ...options, stepMsMin: limits.clockOffsetIgnoredMs });
  }

  /** By how much it was set since the last call; 0 if it was not. */
  look(): number {
    const byMs = this.#watch.look();
    if (byMs !== 0) this.stepped(byMs);
    return byMs;
  }

  /** It was set by so much, now or before this start. */
  stepped(byMs: number): void {
    this.#steps++;
    this.#last = { atMs: this.#clock.nowMs(), byMs };
  }

  /** Compares it with the clocks of the agents, and logs when most of them disagree with it, or agree again. */
  compare(agents: Iterable<AgentRecord>): void {
    const offsetsMs = [...agents].filter(({ peer }) => peer !== undefined).map(({ host }) => host.offsetMs);
    const before = this.#ahead;
    this.#ahead = commonOffset(offsetsMs);
    if (this.#ahead === undefined) {
      if (before !== undefined) this.#log.info("the clock of this host agrees with most agents' again");
    } else if (before === undefined || Math.abs(before.offsetMs - this.#ahead.offsetMs) > limits.clockOffsetIgnoredMs) {
      const { offsetMs, count, of } = this.#ahead;
      const way = offsetMs > 0 ? 'ahead of' : 'behind';
      this.#log.warn(
        `the clock of this host is ${secondsText(Math.abs(offsetMs))} ${way} those of ${count} of ${of} agents: it is ` +
          'probably the one that is wrong, and samples get its time; is NTP on here? (timedatectl)',
      );
    }
  }

  get status(): ServerClockStatus {
    const ahead = this.#ahead;
    return {
      steps: this.#steps,
      ...(this.#last && { lastStep: { at: isoTime(this.#last.atMs), seconds: this.#last.byMs / 1000 } }),
      ...(ahead && { aheadOfAgents: { seconds: ahead.offsetMs / 1000, agents: ahead.count, of: ahead.of } }),
    };
  }
}

interface CommonOffset {
  readonly offsetMs: number;
  readonly count: number;
  readonly of: number;
}

/** The offset that more than half of them have, as far as two clocks are the same; undefined where it is none. */
export function commonOffset(offsetsMs: readonly number[]): CommonOffset | undefined {
  if (offsetsMs.length < agentsMin) return undefined;
  const sorted = offsetsMs.toSorted((a, b) => a - b);
  const offsetMs = sorted[Math.floor(sorted.length / 2)]!;
  if (Math.abs(offsetMs) <= limits.clockOffsetIgnoredMs) return undefined;
  const count = sorted.filter((each) => Math.abs(each - offsetMs) <= limits.clockOffsetIgnoredMs).length;
  return count * 2 > sorted.length ? { offsetMs, count, of: sorted.length } : undefined;
}

// Two agents that agree may be virtual machines of one host.
const agentsMin = 3;
