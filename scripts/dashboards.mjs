// npm run dashboards: scripts/dashboards/*.ts → prometheus/grafana/*.json, which are committed: Grafana imports them as they are.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { compile } from './compile.mjs';
import { root } from './lib.mjs';
import { setup } from './setup.mjs';

setup();
compile();
const { dashboards, dashboardText } = await import(join(root, 'build/scripts/dashboards/index.js'));
mkdirSync(join(root, 'prometheus/grafana'), { recursive: true });
for (const [file, make] of Object.entries(dashboards)) {
  writeFileSync(join(root, 'prometheus/grafana', file), dashboardText(make));
}
