import type { StreamId } from '../../model/source.ts';

/**
 * Finds the agent for which a database refuses whole scrapes, as a label that is too long for its job does, be it of a report
 * or of `sysmon_agent_up`: what was refused is suspect, and is given apart from all else, half as many streams at a time,
 * until one is refused alone.
 *
 *     free ──refused with others──▶ suspect ──refused alone──▶ blocked: tried again alone, after 1 min, 2 min, … 10 min
 *       ▲                              │                          │
 *       └──────────── stored ──────────┴──────────────────────────┘
 *
 * Every second answer has no suspect, so that all others go on meanwhile.
 */
export class Isolation {
  #suspects = new Set<StreamId>();
  #suspectsMax = 1;
  readonly #blocked = new Map<StreamId, { readonly untilMs: number; readonly waitMs: number }>();

  /** Those that are refused alone. */
  get blocked(): readonly StreamId[] {
    return [...this.#blocked.keys()];
  }

  /** Whether an answer is to show whether it is this one. */
  suspects(stream: StreamId): boolean {
    return this.#suspects.has(stream) || this.#blocked.has(stream);
  }

  /** Of all streams, those that this answer must not have: neither reports nor their labels. `turn`: counts the answers. */
  withheld(
    streams: readonly StreamId[],
    { nowMs, turn }: { readonly nowMs: number; readonly turn: number },
  ): ReadonlySet<StreamId> {
    if (this.#suspects.size === 0 && this.#blocked.size === 0) return nothing;
    const chosen = new Set(this.#chosen(streams, { nowMs, turn }));
    return new Set(streams.filter((stream) => !chosen.has(stream)));
  }

  /** An answer that gave these was refused. Returns the one that is blocked by it. */
  refused(streams: readonly StreamId[], nowMs: number): StreamId | undefined {
    const [only, ...others] = streams;
    if (only === undefined) return undefined;
    if (others.length === 0) {
      const before = this.#blocked.get(only);
      const waitMs = before === undefined ? blockedMsMin : Math.min(blockedMsMax, before.waitMs * 2);
      this.#blocked.set(only, { untilMs: nowMs + waitMs, waitMs });
      this.#suspects.delete(only);
      return only;
    }
    const half = Math.floor(streams.length / 2);
    this.#suspectsMax = this.#suspects.size === 0 ? half : Math.min(half, this.#suspectsMax);
    // First the rest of a group that is being searched through.
    const isGroup = streams.every((stream) => this.#suspects.has(stream));
    this.#suspects = new Set(isGroup ? [...streams, ...this.#suspects] : [...this.#suspects, ...streams]);
    return undefined;
  }

  stored(streams: Iterable<StreamId>): void {
    if (this.#suspects.size === 0 && this.#blocked.size === 0) return;
    const before = this.#suspects.size;
    for (const stream of streams) this.forget(stream);
    if (this.#suspects.size < before) this.#suspectsMax *= 2;
  }

  forget(stream: StreamId): void {
    this.#suspects.delete(stream);
    this.#blocked.delete(stream);
  }

  #chosen(
    streams: readonly StreamId[],
    { nowMs, turn }: { readonly nowMs: number; readonly turn: number },
  ): readonly StreamId[] {
    const free = streams.filter((stream) => !this.#suspects.has(stream) && !this.#blocked.has(stream));
    const due = streams.find((stream) => (this.#blocked.get(stream)?.untilMs ?? Infinity) <= nowMs);
    if (due !== undefined && (turn % 4 === 0 || free.length === 0)) return [due];
    const those = new Set(streams);
    const suspects = [...this.#suspects].filter((stream) => those.has(stream)).slice(0, this.#suspectsMax);
    const isTheirTurn = turn % 2 === 1 || free.length === 0;
    return suspects.length > 0 && isTheirTurn ? suspects : free;
  }
}

const nothing: ReadonlySet<StreamId> = new Set();
const blockedMsMin = 60_000;
const blockedMsMax = 600_000;
