import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { hashSync } from 'bcryptjs';
import { AgentsRecord, assertSameSamples } from '../support/agents-record.ts';
import { type Authority, authority } from '../support/certificates.ts';
import { AgentProgram, command, eventually, ServerProgram, temporaryFolder } from '../support/programs.ts';
import { Prometheus, prometheusPrograms } from '../support/prometheus.ts';
import { Tap } from '../support/tap.ts';

// The HTTP port with TLS, client certificates and passwords, and as a unix socket: the programs as they are shipped.

/** A folder with web.yml, and what it names. */
function webConfig(context: TestContext, made: Authority): string {
  const folder = temporaryFolder(context);
  issue(made, folder);
  writeFileSync(
    join(folder, 'web.yml'),
    [
      'tls_server_config:',
      '  cert_file: cert',
      '  key_file: key',
      '  client_auth_type: RequireAndVerifyClientCert',
      `  client_ca_file: ${made.file}`,
      '  client_allowed_sans: [prometheus.example]',
      'basic_auth_users:',
      `  scraper: ${hashSync('secret', 10)}`,
    ].join('\n'),
    { mode: 0o600 },
  );
  return folder;
}

function issue(made: Authority, folder: string): void {
  const { cert, key } = made.issue('DNS:sysmon.example');
  writeFileSync(join(folder, 'cert'), cert);
  writeFileSync(join(folder, 'key'), key, { mode: 0o600 });
}

interface Status {
  readonly scrapers: readonly { readonly scraper: string; readonly known: boolean; readonly backlogReports: number }[];
}

describe('by TLS, with a client certificate and a password', { concurrency: true }, () => {
  for (const { name, path, skip } of prometheusPrograms) {
    test(`${name} scrapes`, {
      skip,
      timeout: 120_000,
    }, async (context) => {
      const made = authority(context);
      if (made === undefined) return;
      const folder = webConfig(context, made);
      const file = join(folder, 'web.yml');
      const checked = await command('server', 'check', '--web.config.file', file, '--config.file', '/dev/null');
      assert.match(
        checked,
        /Prometheus to port 9733 of 127\.0\.0\.1 by TLS with client certificates and passwords \(1 user\)/,
      );
      const server = await ServerProgram.start(context, ['--web.config.file', file]);
      const record = new AgentsRecord();
      const line = await Tap.open(context, { to: server.port, watch: () => record.connection() });
      const agent = await AgentProgram.start(context, { name: 'a', port: line.port, schedule: '1s' });
      const scrapers = async () => {
        const status = await command('server', 'status', '--json', '--control-socket', server.controlSocket);
        return (JSON.parse(status) as Status).scrapers;
      };
      const client = made.issue('DNS:prometheus.example');
      const tls = `{ca_file: ${made.file}, cert_file: ${client.certFile}, key_file: ${client.keyFile}, server_name: sysmon.example}`;
      const prometheus = await Prometheus.start(context, {
        ...{ path, target: server.webPort, scraper: '', scrapeInterval: '1s' },
        job: `    scheme: https\n    tls_config: ${tls}\n    basic_auth: {username: scraper, password: secret}\n`,
      });
      const times = async () => [...(await prometheus.raw('node_load1')).values()].flatMap((each) => [...each.keys()]);
      const stored = (count: number) =>
        eventually(60_000, async () => {
          const found = (await times()).length;
          assert.ok(found >= count, `Prometheus has ${found} reports`);
        });
      await stored(3);
      // Without a name in the URL the user is it; and reports are acknowledged, as answers are confirmed.
      await eventually(30_000, async () => {
        const seen = (await scrapers()).map(({ scraper, known }) => ({ scraper, known }));
        assert.deepEqual(seen, [{ scraper: 'user/scraper', known: true }]);
      });
      issue(made, folder);
      await server.run.line(/reloaded '.*web\.yml': HTTP by TLS with client certificates and passwords \(1 user\)$/);
      // A new Prometheus process has to accept the new certificate.
      await prometheus.stop('SIGTERM');
      await prometheus.start();
      await stored((await times()).length + 3);
      // Wrong files change nothing.
      writeFileSync(file, 'tls_server_config: {certfile: cert}\n');
      process.kill(server.run.pid, 'SIGHUP');
      await server.run.line(/line 1: unknown key 'tls_server_config\.certfile'; keeping the present configuration/);
      await stored((await times()).length + 2);
      // And nothing is missing, also of the time in which Prometheus was away.
      await agent.kill('SIGTERM');
      await eventually(30_000, async () => assert.equal((await scrapers())[0]?.backlogReports, 0));
      record.check();
      assertSameSamples(await prometheus.agentSamples(), record.samples(), 'Prometheus');
    });
  }
});

test('a scrape over a unix socket, which goes with the server', { timeout: 60_000 }, async (context) => {
  const path = join(temporaryFolder(context), 'web.sock');
  const server = await ServerProgram.start(context, ['--web.listen-address', `unix:${path}`]);
  const text = await new Promise<string>((resolve, reject) => {
    const asked = request({ socketPath: path, path: '/metrics' }, (response) => {
      let body = '';
      response.on('data', (chunk) => {
        body += chunk;
      });
      response.on('end', () => resolve(body));
    });
    asked.on('error', reject);
    asked.end();
  });
  assert.match(text, /^sysmon_server_agents\{state="up"\} 0$/m);
  await server.run.line(new RegExp(`HTTP on 127\\.0\\.0\\.1:${server.webPort} and unix:${path} without TLS`));
});
