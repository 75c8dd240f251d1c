import { limits } from '../../protocol/limits.ts';

// How the server's clock is measured, and what follows from it for the times of reports. Everything is in boot time,
// which neither a step of this host's clock nor a suspend disturbs: so what contradicts an earlier measurement is the
// server's clock.

/** A question and its answer in boot time, and what the server's clock said in between. */
export interface Measurement {
  readonly sentAtMs: number;
  readonly receivedAtMs: number;
  readonly serverMs: number;
}

/** How far the server's clock is ahead of boot time; undefined where the round trip was too slow to tell. */
export function serverAheadMs({ sentAtMs, receivedAtMs, serverMs }: Measurement): number | undefined {
  if (receivedAtMs - sentAtMs > limits.roundTripMsMax) return undefined;
  return serverMs - (sentAtMs + receivedAtMs) / 2;
}

/** Whether the offsets in use agree with what was measured since. */
export type Agreement =
  | { readonly kind: 'agreed' }
  /** The server itself doubts it: it has ended a connection because of its clock. */
  | { readonly kind: 'doubted' }
  /** One measurement contradicts: the next one decides. */
  | { readonly kind: 'contradicted'; readonly measuredMs: number };

/** The server's clock was set: twice in a row it was found elsewhere than before. */
export interface ClockStep {
  readonly kind: 'stepped';
  /** By so much, forwards. */
  readonly byMs: number;
  /** How far it is ahead of boot time now. */
  readonly aheadMs: number;
}

/** `knownMs` and `measuredMs`: how far the server's clock is ahead of boot time, as it was taken so far, and now. */
export function compare(before: Agreement, knownMs: number, measuredMs: number): Agreement | ClockStep {
  if (!isApart(knownMs, measuredMs)) return { kind: 'agreed' };
  const isRepeated =
    before.kind === 'doubted' || (before.kind === 'contradicted' && !isApart(before.measuredMs, measuredMs));
  if (!isRepeated) return { kind: 'contradicted', measuredMs };
  return { kind: 'stepped', byMs: Math.round(measuredMs - knownMs), aheadMs: measuredMs };
}

function isApart(aMs: number, bMs: number): boolean {
  return Math.abs(aMs - bMs) > limits.clockOffsetIgnoredMs;
}

/** What the server adds to the times of an epoch whose clock is `baseMs` at boot time 0, by a measurement of now. */
export function offsetMeasured(baseMs: number, measuredMs: number): number {
  const exactMs = Math.round(measuredMs - baseMs);
  return Math.abs(exactMs) <= limits.clockOffsetIgnoredMs ? 0 : exactMs;
}

/**
 * The same for an epoch that begins after others. `knownMs` says how far the server was ahead of boot time by the offset
 * of the epoch before. A correction that is smaller than a clock is trusted must not set the times back: the server drops
 * what is not newer, and it is this host's clock that has moved, not its boot time.
 */
export function offsetOfNext(baseMs: number, measuredMs: number | undefined, knownMs: number): number {
  const carriedOnMs = Math.round(knownMs - baseMs);
  if (measuredMs === undefined) return carriedOnMs;
  return Math.max(offsetMeasured(baseMs, measuredMs), carriedOnMs);
}
