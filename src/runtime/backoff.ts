/**
 * How long to wait after so many failures in a row: anything from nothing to a ceiling that doubles with each (full
 * jitter), so that a fleet whose server comes back does not arrive at once.
 */
export function backoffMs(
  failures: number,
  { baseMs, maxMs }: { readonly baseMs: number; readonly maxMs: number },
  random: () => number,
): number {
  return random() * Math.min(maxMs, baseMs * 2 ** failures);
}
