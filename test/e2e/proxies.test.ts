import assert from 'node:assert/strict';
import { test } from 'node:test';
import { skipWithout } from '../support/installed.ts';
import { AgentProgram, eventually, ServerProgram } from '../support/programs.ts';
import { Prometheus } from '../support/prometheus.ts';
import { ProxyProgram } from '../support/proxies.ts';
import { leanAgent } from './scrape-world.ts';

const skip = skipWithout('/usr/bin/prometheus', '/usr/sbin/nginx');

test('two Prometheus servers without names behind nginx, which share one connection: the log warns', {
  skip,
  timeout: 90_000,
}, async (context) => {
  const server = await ServerProgram.start(context);
  await AgentProgram.start(context, { name: 'a', port: server.port, schedule: '1s', flags: leanAgent });
  const { port } = await ProxyProgram.nginx(context, { to: server.webPort, keepAlive: '60s' });
  // Of one host and one configuration they would scrape at the same instants.
  const both = await Promise.all(
    ['1s', '1500ms'].map((scrapeInterval) => Prometheus.start(context, { target: port, scraper: '', scrapeInterval })),
  );
  await server.run.line(/scraper 'addr\/127\.0\.0\.1' connects through an HTTP proxy \(more scrapes on one connection/);
  await eventually(30_000, async () => {
    for (const prometheus of both) assert.deepEqual(await prometheus.values('up{job="sysmon"}'), [1]);
  });
});
