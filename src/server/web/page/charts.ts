import type { Window } from '../../delivery/window.ts';
import { percentText, rateText } from './html.ts';
import { Reading } from './reading.ts';
import type { Point } from './spark.ts';
import { type Vitals, vitalsOf } from './vitals.ts';

/** A chart of a host's page. */
export interface ChartKind {
  readonly id: string;
  readonly title: string;
  readonly unit: 'share' | 'bytes a second' | 'number' | 'celsius';
  read(vitals: Vitals): number | undefined;
}

export const charts: readonly ChartKind[] = [
  { id: 'cpu', title: 'CPU', unit: 'share', read: ({ cpu }) => cpu },
  { id: 'memory', title: 'Memory in use', unit: 'share', read: ({ memory }) => memory },
  { id: 'load', title: 'Load by core', unit: 'number', read: ({ load }) => load },
  { id: 'pressure', title: 'Pressure, the highest', unit: 'share', read: ({ pressure }) => pressure?.share },
  { id: 'read', title: 'Disk reads', unit: 'bytes a second', read: ({ readBytes }) => readBytes },
  { id: 'written', title: 'Disk writes', unit: 'bytes a second', read: ({ writtenBytes }) => writtenBytes },
  { id: 'received', title: 'Network received', unit: 'bytes a second', read: ({ receivedBytes }) => receivedBytes },
  { id: 'sent', title: 'Network sent', unit: 'bytes a second', read: ({ sentBytes }) => sentBytes },
  { id: 'celsius', title: 'Hottest sensor', unit: 'celsius', read: ({ celsius }) => celsius },
];

export const unitText: { readonly [unit in ChartKind['unit']]: (value: number) => string } = {
  share: percentText,
  'bytes a second': rateText,
  number: (value) => value.toFixed(2),
  celsius: (value) => `${Math.round(value)} °C`,
};

/** How a host was over its window, oldest first: report by report, or chunk by chunk where there are many, or large ones. */
export function historyOf(window: Window): Vitals[] {
  const history: Vitals[] = [];
  let before: Reading | undefined;
  for (const report of window.history()) {
    const now = new Reading(report);
    if (before !== undefined) history.push(vitalsOf(now, before));
    before = now;
  }
  return history;
}

export const pointsOf = (history: readonly Vitals[], { read }: ChartKind): Point[] =>
  history.map((vitals) => ({ timeMs: vitals.timeMs, value: read(vitals) }));

export interface ChartData {
  readonly times: readonly number[];
  readonly values: Readonly<Record<string, readonly (number | null)[]>>;
}

/** What a chart is drawn of: seconds since 1970, and values by chart; null where nothing is known. */
export function chartsOf(history: readonly Vitals[]): ChartData {
  const values = charts.map((chart) => [chart.id, pointsOf(history, chart).map(({ value }) => value ?? null)] as const);
  return {
    times: history.map(({ timeMs }) => timeMs / 1000),
    values: Object.fromEntries(values.filter(([, each]) => each.some((value) => value !== null))),
  };
}
