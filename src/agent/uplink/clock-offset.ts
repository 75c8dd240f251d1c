import { limits } from '../../protocol/limits.ts';

// How the server's clock is measured, and what follows for the timestamps of reports. Everything is in boot time, which
// neither a step of this host's clock nor a suspend changes: if two measurements differ, the server's clock was set.

/** When a ping was sent and answered, in boot time, and the server's clock in between. */
export interface Measurement {
  readonly sentAtMs: number;
  readonly receivedAtMs: number;
  readonly serverMs: number;
}

/** How far the server's clock is ahead of boot time, and the error of that. */
export interface ServerAhead {
  readonly aheadMs: number;
  readonly errorMs: number;
  /** The round trip was quick enough for an offset of times. */
  readonly isExact: boolean;
}

export function serverAhead({ sentAtMs, receivedAtMs, serverMs }: Measurement): ServerAhead {
  const roundTripMs = receivedAtMs - sentAtMs;
  return {
    aheadMs: serverMs - (sentAtMs + receivedAtMs) / 2,
    errorMs: roundTripMs / 2,
    isExact: roundTripMs <= limits.roundTripMsMax,
  };
}

/** Whether the offsets in use agree with the measurements since. */
export type Agreement =
  | { readonly kind: 'agreed' }
  /** The server has ended a connection because of its clock. */
  | { readonly kind: 'doubted' }
  /** One measurement disagrees: the next one decides. */
  | { readonly kind: 'contradicted'; readonly measured: ServerAhead };

/** The server's clock was set: twice in a row it was found elsewhere than before. */
export interface ClockStep {
  readonly kind: 'stepped';
  /** By so much, forwards. */
  readonly byMs: number;
  readonly measured: ServerAhead;
}

/** How far the server's clock is taken to be ahead of boot time. */
export interface KnownAhead {
  /** By the offset in use. */
  readonly usedMs: number;
  /** As it was measured when that was fixed: up to the difference that is ignored beside it. */
  readonly measuredMs: number;
}

/**
 * What a measurement of now shows. It contradicts what it is far from on both counts: a clock that was 1.9999 s off when
 * its offset was fixed at 0 was not set when 2.0001 s are measured.
 */
export function compare(
  before: Agreement,
  { usedMs, measuredMs }: KnownAhead,
  measured: ServerAhead,
): Agreement | ClockStep {
  if (!isApart(measured, usedMs) || !isApart(measured, measuredMs)) return { kind: 'agreed' };
  const isRepeated =
    before.kind === 'doubted' ||
    (before.kind === 'contradicted' && !isApart(measured, before.measured.aheadMs, before.measured.errorMs));
  if (!isRepeated) return { kind: 'contradicted', measured };
  return { kind: 'stepped', byMs: Math.round(measured.aheadMs - usedMs), measured };
}

/** Whether two clocks differ by more than is ignored, and by more than the error of slow round trips. */
function isApart({ aheadMs, errorMs, isExact }: ServerAhead, otherMs: number, otherErrorMs = 0): boolean {
  const allowedMs = limits.clockOffsetIgnoredMs + (isExact ? 0 : errorMs + otherErrorMs);
  return Math.abs(aheadMs - otherMs) > allowedMs;
}

/** What the server adds to the times of an epoch whose clock is `baseMs` at boot time 0, by a measurement of now. */
export function offsetMeasured(baseMs: number, measured: ServerAhead): number {
  return isApart(measured, baseMs) ? Math.round(measured.aheadMs - baseMs) : 0;
}

/**
 * The same for an epoch that begins after others. `knownMs` says how far the server was ahead of boot time by the
 * offset of the epoch before. A correction below the ignored difference must not move timestamps backwards: the server
 * refuses what is not newer, and it is this host's clock that was set, not its boot time.
 */
export function offsetOfNext(baseMs: number, measured: ServerAhead, knownMs: number): number {
  const carriedOnMs = Math.round(knownMs - baseMs);
  if (!measured.isExact) return carriedOnMs;
  const offsetMs = offsetMeasured(baseMs, measured);
  return carriedOnMs > offsetMs + goneBackMsMax ? carriedOnMs : offsetMs;
}

// Two reports are never as close as this.
const goneBackMsMax = limits.intervalMsMin / 2;

/** One server's clock, over all connections to it. */
export class ServerClock {
  #agreement: Agreement = { kind: 'agreed' };
  #fixedBy: ServerAhead | undefined;

  /** All measurements agree with the offsets in use. */
  get isAgreed(): boolean {
    return this.#agreement.kind === 'agreed';
  }

  /** The server has ended a connection because of its clock. */
  doubt(): void {
    this.#agreement = { kind: 'doubted' };
  }

  /** An offset of this run is fixed by this measurement. */
  fixed(measured: ServerAhead): void {
    this.#fixedBy = measured;
  }

  /** The step that a measurement shows, if it does: by it the offsets are fixed anew. `usedMs`: see {@link KnownAhead}. */
  compare(usedMs: number, measured: ServerAhead): ClockStep | undefined {
    const measuredMs = this.#fixedBy?.aheadMs ?? usedMs;
    const result = compare(this.#agreement, { usedMs, measuredMs }, measured);
    this.#agreement = result.kind === 'stepped' ? { kind: 'agreed' } : result;
    if (result.kind !== 'stepped') return undefined;
    this.#fixedBy = measured;
    return result;
  }
}
