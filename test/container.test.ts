import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { parse } from 'yaml';
import { environmentName } from '../src/runtime/options.ts';
import { program } from '../src/server/options.ts';
import { rootFile } from './support/files.ts';

// Containerfile and compose.yaml, as far as they can be read; container.long.test.ts builds and runs them.

const containerfile = readFileSync(rootFile('Containerfile'), 'utf8');

interface Service {
  readonly build?: { readonly context: string; readonly dockerfile: string };
  readonly environment?: Readonly<Record<string, string>>;
  readonly volumes: readonly string[];
}

test('the container runs the server with the flags of the unit, and options that exist', () => {
  const unit = readFileSync(rootFile('systemd/sysmon-server.service'), 'utf8');
  const flags = /^ExecStart=\/bin\/sh \S+\/start (.*) \S+\.cjs run$/m.exec(unit)![1]!;
  assert.ok(containerfile.includes(`exec /opt/sysmon/node ${flags} /opt/sysmon/sysmon-server.cjs "$@"`), flags);
  const known = Object.values(program.options).map(({ name }) => environmentName(name));
  const compose = readFileSync(rootFile('compose.yaml'), 'utf8');
  for (const [name] of `${containerfile}${compose}`.matchAll(/SYSMON_[A-Z_]+/g)) assert.ok(known.includes(name), name);
});

test('compose.yaml: what it mounts and builds is there, and Prometheus finds the server where its file says', () => {
  const { services, volumes } = parse(readFileSync(rootFile('compose.yaml'), 'utf8')) as {
    services: { server: Service; prometheus: Service };
    volumes: Readonly<Record<string, unknown>>;
  };
  assert.deepEqual(Object.keys(services), ['server', 'prometheus']);
  for (const { volumes: mounts } of Object.values(services)) {
    for (const mount of mounts) {
      const [from] = mount.split(':');
      // The folder of keys is made by who runs it.
      if (from!.startsWith('./') && from !== './sysmon') assert.ok(existsSync(rootFile(from!)), mount);
      if (!from!.startsWith('.')) assert.ok(from! in volumes, mount);
    }
  }
  assert.equal(services.server.build!.dockerfile, '../Containerfile');
  assert.equal(services.server.environment!.SYSMON_WEB_HOST, 'server');
  // The same as without containers, but for the target.
  const [alone, beside] = ['prometheus.yml', 'container.yml'].map((name) => {
    const text = readFileSync(rootFile(`prometheus/${name}`), 'utf8');
    return parse(text) as { scrape_configs: { static_configs: { targets: string[] }[] }[] };
  });
  alone!.scrape_configs[0]!.static_configs[0]!.targets = ['server:9733'];
  assert.deepEqual(beside, alone);
});
