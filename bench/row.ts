/** One line of `npm run bench`. `ok` is undefined where the row has no target. */
export interface BenchRow {
  readonly what: string;
  readonly measured: string;
  readonly target: string;
  readonly ok: boolean | undefined;
}
