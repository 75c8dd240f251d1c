import type { Sums } from '../model/report.ts';
import { ProtocolError } from './errors.ts';
import type { Pairs } from './messages.ts';

/** The pairs of a key report: what makes `next` of "all present, all 0". */
export function encodeKey(next: Sums): (number | null)[] {
  const { sums, present } = next;
  const pairs: (number | null)[] = [];
  let from = 0; // the first series that no pair has passed
  for (let i = 0; i < sums.length; i++) {
    if (present[i] === 0) {
      pairs.push(from - i - 1, null);
      from = i + 1;
    } else if (sums[i] !== 0) {
      from = pushSum(pairs, from, i, 0, sums[i]!);
    }
  }
  return pairs;
}

/** The pairs that make `next` of `previous`. Both are of the same series. */
export function encodeDelta(previous: Sums, next: Sums): (number | null)[] {
  const { sums, present } = next;
  const { sums: sumsBefore, present: presentBefore } = previous;
  if (sums.length !== sumsBefore.length) {
    throw new RangeError(`delta: ${sums.length} series after ${sumsBefore.length}; a key report comes between`);
  }
  const pairs: (number | null)[] = [];
  let from = 0;
  for (let i = 0; i < sums.length; i++) {
    const sum = sums[i]!;
    const before = sumsBefore[i]!;
    if (sum === before && present[i] === presentBefore[i]) continue;
    if (present[i] === 0) {
      if (presentBefore[i] === 0) continue;
      pairs.push(from - i - 1, null);
      from = i + 1;
    } else if (presentBefore[i] === 0) {
      from = pushSum(pairs, from, i, 0, sum);
    } else if (!(Number.isNaN(sum) && Number.isNaN(before))) {
      from = pushSum(pairs, from, i, before, sum);
    }
  }
  return pairs;
}

/** A pair that takes series `i` from one sum to another: as a difference where that is exact, otherwise as it stands. */
function pushSum(pairs: (number | null)[], from: number, i: number, before: number, sum: number): number {
  const delta = sum - before;
  if (before + delta === sum && Number.isSafeInteger(delta)) pairs.push(i - from, delta);
  else pairs.push(from - i - 1, sum);
  return i + 1;
}

/**
 * Applies the pairs of a report to the first `count` series of `state`, in place. On an error the state is half changed,
 * and of no more use: the connection ends.
 */
export function applyPairs(state: Sums, count: number, key: boolean, pairs: Pairs): void {
  const { sums, present } = state;
  if (key) {
    sums.fill(0, 0, count);
    present.fill(1, 0, count);
  }
  if (pairs.length % 2 !== 0) {
    throw new ProtocolError('bad-message', `report pairs: were ${pairs.length} elements, expected an even number`);
  }
  let at = 0;
  for (let p = 0; p < pairs.length; p += 2) {
    const skip = pairs[p];
    const delta = pairs[p + 1];
    if (typeof skip !== 'number' || !Number.isSafeInteger(skip)) throw badPair(p, 'skip', skip, 'an integer');
    const i = at + (skip < 0 ? -skip - 1 : skip);
    if (i >= count) throw badPair(p, 'skip', skip, `to stay within ${count} series from series ${at}`);
    if (typeof delta !== 'number') {
      if (delta !== null || skip >= 0) throw badPair(p, 'delta', delta, 'a number, or nil behind a negative skip');
      sums[i] = 0;
      present[i] = 0;
    } else if (skip < 0) {
      sums[i] = delta;
      present[i] = 1;
    } else {
      if (!Number.isSafeInteger(delta)) throw badPair(p, 'delta', delta, 'a safe integer');
      sums[i]! += delta;
      present[i] = 1;
    }
    at = i + 1;
  }
}

function badPair(index: number, what: 'skip' | 'delta', was: unknown, expected: string): ProtocolError {
  return new ProtocolError('bad-message', `report pair ${index / 2}, ${what}: was ${was}, expected ${expected}`);
}
