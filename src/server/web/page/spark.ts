import { escapeHtml } from './html.ts';

/** A point of a line; undefined: nothing is known of that moment, and the line has a gap. */
export interface Point {
  readonly timeMs: number;
  readonly value: number | undefined;
}

/**
 * A line over time as SVG, `width` × `height` units. From 0 to `most`, or to the largest value where that is more. `label`
 * says in words what it shows, for those who do not see it.
 */
export function lineSvg(
  points: readonly Point[],
  {
    width,
    height,
    most,
    label,
    className,
  }: {
    readonly width: number;
    readonly height: number;
    readonly most: number;
    readonly label: string;
    readonly className?: string;
  },
): string {
  const known = points.flatMap(({ value }) => (value === undefined ? [] : [value]));
  if (known.length < 2) return '';
  const top = Math.max(most, ...known) || 1;
  const firstMs = points[0]!.timeMs;
  const lastMs = points.at(-1)!.timeMs;
  let path = '';
  let isDrawing = false;
  for (const { timeMs, value } of points) {
    if (value !== undefined) {
      const x = Math.round((width * (timeMs - firstMs)) / (lastMs - firstMs || 1));
      const y = Math.round((height - 1) * (1 - Math.max(0, value) / top) * 10) / 10 + 0.5;
      path += `${isDrawing ? 'L' : 'M'}${x} ${y}`;
    }
    isDrawing = value !== undefined;
  }
  const attributes = className === undefined ? 'preserveAspectRatio=none' : `class=${className}`;
  return `<svg ${attributes} viewBox="0 0 ${width} ${height}" role=img aria-label="${escapeHtml(label)}"><path d="${path}"/></svg>`;
}

/** `3 to 17 %`, with what makes a text of a value. */
export function rangeText(points: readonly Point[], textOf: (value: number) => string): string {
  const known = points.flatMap(({ value }) => (value === undefined ? [] : [value]));
  if (known.length === 0) return 'unknown';
  const [least, most] = [textOf(Math.min(...known)), textOf(Math.max(...known))];
  return least === most ? least : `${least} to ${most}`;
}
