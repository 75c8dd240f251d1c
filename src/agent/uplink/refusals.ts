import type { Refused } from '../../protocol/messages.ts';

/** Why a report reaches no scraper although it was sent: what the server says, or what it cannot take. */
export const refusalReasons = ['too_old', 'not_newer', 'server_bug', 'server_clock', 'other'] as const;
export type RefusalReason = (typeof refusalReasons)[number];

/** Reports that the server did not store, for one reason, since the agent's start. */
export type Refusal = Omit<Refused, 'kind' | 'reason'> & { readonly reason: RefusalReason };

/** The reports that one server did not store, by reason. */
export class Refusals {
  readonly #all = new Map<RefusalReason, Refusal>();
  readonly #counters: Record<RefusalReason, number>;

  constructor(counters: Record<RefusalReason, number>) {
    this.#counters = counters;
  }

  get all(): readonly Refusal[] {
    return [...this.#all.values()];
  }

  /** A reason of a later version is `other`. */
  add(refused: Omit<Refused, 'kind'>): void {
    const reason = refusalReasons.find((each) => each === refused.reason) ?? 'other';
    const before = this.#all.get(reason);
    this.#counters[reason] += refused.count;
    this.#all.set(reason, {
      reason,
      text: refused.text,
      count: refused.count + (before?.count ?? 0),
      firstMs: Math.min(refused.firstMs, before?.firstMs ?? Infinity),
      lastMs: Math.max(refused.lastMs, before?.lastMs ?? -Infinity),
    });
  }
}
