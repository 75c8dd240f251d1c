import { existsSync } from 'node:fs';
import type { TestContext } from 'node:test';

/** Programs of Debian that tests run, and the package of each. */
const packages = {
  '/usr/sbin/nginx': 'nginx',
  '/usr/sbin/haproxy': 'haproxy',
  '/usr/bin/prometheus': 'prometheus',
  '/usr/bin/promtool': 'prometheus',
  '/usr/bin/victoria-metrics': 'victoria-metrics',
  '/usr/bin/vmagent': 'victoria-metrics',
  '/usr/bin/vmalert': 'victoria-metrics',
  '/usr/bin/chromium': 'chromium',
  '/usr/sbin/chronyd': 'chrony',
} as const;

export type InstalledProgram = keyof typeof packages;

/** A reason to skip a test that needs these programs; none where they must be there. */
export function skipWithout(...paths: readonly InstalledProgram[]): string | false {
  const missing = paths.filter((path) => !existsSync(path));
  if (missing.length === 0 || process.env['CI'] === 'true') return false;
  const names = [...new Set(missing.map((path) => packages[path]))].join(' ');
  return `no ${missing.join(', ')}: apt-get install ${names}`;
}

/** A test that cannot run on this machine, for a reason that says what to install; with CI=true it fails. */
export function skipHere(context: TestContext, reason: string): undefined {
  if (process.env['CI'] === 'true') throw new Error(reason);
  context.skip(reason);
}
