/**
 * How long to wait after so many failures in a row: a random time up to a bound that doubles with each failure (full
 * jitter), so that agents do not all reconnect at the moment at which their server is back.
 */
export function backoffMs(
  failures: number,
  { baseMs, maxMs }: { readonly baseMs: number; readonly maxMs: number },
  random: () => number,
): number {
  return random() * Math.min(maxMs, baseMs * 2 ** failures);
}
