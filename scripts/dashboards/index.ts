import type { Dashboard } from '@grafana/grafana-foundation-sdk/dashboard';
import { fleet } from './fleet.ts';
import { host } from './host.ts';

/** Each dashboard by its file in prometheus/grafana/. `npm run dashboards` writes them. */
export const dashboards: Readonly<Record<string, () => Dashboard>> = { 'fleet.json': fleet, 'host.json': host };

/** As it is in the file. */
export function dashboardText(make: () => Dashboard): string {
  return `${JSON.stringify(make(), null, 2)}\n`;
}
