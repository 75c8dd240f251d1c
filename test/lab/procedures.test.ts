import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import type { AgentStatus, ServerStatus } from '../../src/server/status.ts';
import { type Block, procedure } from './document.ts';
import { journalCursor, journalLines } from './journal.ts';
import { eventually, Lab } from './lab.ts';
import { Prometheus } from './prometheus.ts';
import { SpoolRecord } from './record.ts';
import { archiveOf, releaseVersion, unpack, variant, wgetScript } from './release.ts';

const prompt = 'prints on the server (it is not shown): ';

// The procedures of docs/operating.md, by the document's own commands, one after another on one fleet: a server, an agent on
// Debian 12, one on Debian 13, and one behind a NAT, which reaches nothing but the server's two ports.
describe('the procedures of the manual', () => {
  const lab = new Lab();
  const record = new SpoolRecord('web-1');
  let prometheus: Prometheus;
  let later: string;

  before(async () => {
    const release = unpack(archiveOf(), lab.folder);
    later = variant(release, join(lab.folder, 'later'), {
      VERSION: () => '0.2.0\n',
      'dist/sysmon-server.cjs': (text) => text.replace(`"${releaseVersion}"`, '"0.2.0"'),
      'dist/sysmon-agent.cjs': (text) => text.replace(`"${releaseVersion}"`, '"0.2.0"'),
    });
    await lab.boot('s1');
    await lab.copy('s1', release, '/root/release');
    await lab.boot('web-1');
    await lab.boot('web-2', { suite: 'trixie' });
    await lab.boot('nat-1', { nat: true });
    const key = join(lab.folder, 'id');
    execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', key]);
    for (const host of ['s1', 'web-1', 'web-2']) await openSsh(host, key);
    await lab.sh('nat-1', 'cat >/usr/local/bin/wget && chmod 755 /usr/local/bin/wget', wgetScript);
  });
  after(() => lab.down());

  const agents = async (server = 's1') =>
    JSON.parse(await lab.sh(server, 'sysmon-server agents --json')) as readonly AgentStatus[];
  const status = async (server = 's1') =>
    JSON.parse(await lab.sh(server, 'sysmon-server status --json')) as ServerStatus;
  const areUp = (names: readonly string[], server = 's1') =>
    eventually(`${names} are up on ${server}`, async () => {
      const up = (await agents(server)).filter((agent) => agent.up && agent.connected).map(({ name }) => name);
      return names.every((name) => up.includes(name));
    });
  /** Where the document's commands are run: root's folder with the release. */
  const run = ({ host, script }: Block): Promise<string> => lab.sh(host, `set -e; cd /root/release\n${script}`);
  /** What a person finds who has run all of a procedure. */
  const runAll = async (heading: string): Promise<string> => {
    let out = '';
    for (const block of procedure(heading)) out += `${await run(block)}\n`;
    return out;
  };
  /** What a program has logged, behind a cursor or at all. */
  const logged = async (host: string, program: string, cursor?: string): Promise<string[]> =>
    (await journalLines(lab, host, cursor)).flatMap((line) => (line.program === program ? [line.text] : []));

  test('the server is installed at a terminal, and two hosts by the command that enroll prints for ssh', async () => {
    const installed = await lab.atTerminal('s1', '/root/release/install.sh server');
    assert.equal(installed.code, 0, installed.shown);
    assert.match(installed.shown, /made the fleet key/);
    for (const host of ['web-1', 'web-2']) {
      const { shown } = await lab.atTerminal('s1', `sysmon-server enroll ${host}`);
      const command = shown.split('\r\n').find((line) => line.includes(`| ssh ${host} `));
      assert.ok(command !== undefined, shown);
      assert.match(await lab.sh('s1', command), new RegExp(`agent '${host}' is connected to s1:9732`));
    }
    assert.match(await lab.sh('web-2', 'cat /etc/debian_version'), /^13\./);
    await areUp(['web-1', 'web-2']);
    prometheus = await Prometheus.start(lab, await lab.address('s1'));
  });

  test('a host behind a NAT joins at its terminal, and reaches the two ports alone', async () => {
    const server = await lab.address('s1');
    const reaches = async (address: string, port: number) =>
      (await lab.try('nat-1', `timeout 2 bash -c 'exec 3<>/dev/tcp/${address}/${port}'`)).code === 0;
    assert.deepEqual([await reaches(server, 9732), await reaches(server, 9733)], [true, true]);
    assert.deepEqual([await reaches(server, 22), await reaches(await lab.address('web-1'), 22)], [false, false]);
    assert.notEqual((await lab.try('s1', 'timeout 2 ssh nat-1 true')).code, 0, 'nobody reaches it');

    const { shown } = await lab.atTerminal('s1', 'sysmon-server enroll nat-1');
    const command = shown.split('\r\n').find((line) => /^ .*\/install\//.test(line));
    assert.ok(command !== undefined, shown);
    const joined = await lab.atTerminal('nat-1', command, [[prompt, `${joinLineIn(shown)}\r`]]);
    assert.equal(joined.code, 0, joined.shown);
    assert.match(joined.shown, /agent 'nat-1' is connected to s1:9732/);
    const value = () => prometheus.value('count(node_load1)');
    await eventually('all three have samples in Prometheus', async () => (await value()) === 3);
    assert.match(await lab.sh('s1', 'sysmon-server agents'), /^3 agents, none with problems$/m);
  });

  test('while all is well the journals get no line', async () => {
    await eventually('it is well', async () => /^state +healthy$/m.test(await lab.sh('s1', 'sysmon-server status')));
    const programs = [
      ['s1', 'sysmon-server'],
      ...['web-1', 'web-2', 'nat-1'].map((host) => [host, 'sysmon-agent'] as const),
    ] as const;
    const cursors = await Promise.all(programs.map(([host]) => journalCursor(lab, host)));
    await delay(30_000);
    for (const [index, [host, program]] of programs.entries()) {
      assert.ok((await logged(host, program)).length >= 2, `${host} has logged its start`);
      assert.deepEqual(await logged(host, program, cursors[index]), [], host);
    }
    assert.match(await lab.sh('web-1', 'sysmon-agent status'), /^state +healthy$/m);
  });

  test('rename a host, and back', async () => {
    const out = await runAll('### Rename a host');
    assert.match(out, /agent 'db-1' is connected to s1:9732/);
    assert.match(out, /agent 'web-2' is revoked; 0 connections ended\n/);
    await areUp(['db-1']);
    assert.deepEqual(
      (await agents()).map(({ name }) => name),
      ['db-1', 'nat-1', 'web-1'],
    );
    await eventually(
      'Prometheus has the new name',
      async () => (await prometheus.value('sysmon_agent_up{agent="db-1"}')) === 1,
    );
    // A scrape between the two commands has both.
    await eventually(
      'Prometheus has the old name no more',
      async () => (await prometheus.value('sysmon_agent_up{agent="web-2"}')) === undefined,
    );
    await lab.sh('s1', 'sysmon-server enroll web-2 | ssh web-2 sudo sysmon-agent join && sysmon-server revoke db-1');
    await areUp(['web-2']);
  });

  test('retire a Prometheus', async () => {
    const other = await Prometheus.start(lab, await lab.address('s1'), { scraper: 'prometheus-b', port: 9091 });
    const names = async () => (await status()).scrapers.filter(({ known }) => known).map(({ scraper }) => scraper);
    await eventually('both are known', async () => (await names()).join() === 'prometheus,prometheus-b');
    other.stop();
    const waiting = async () => (await agents()).find(({ name }) => name === 'web-1')!.unscrapedReports!;
    await eventually('reports wait for it', async () => (await waiting()) > 3);
    const out = await runAll('### Retire a Prometheus');
    assert.match(out, /^prometheus-b +Prometheus /m);
    assert.match(out, /scraper 'prometheus-b' is forgotten: 1 cursor removed, \d+ reports no longer held for it/);
    assert.deepEqual(await names(), ['prometheus']);
    assert.ok((await waiting()) <= 3);
  });

  test('rotate the fleet key: who did not join again is named, refused, and joins at its terminal', async () => {
    const [block] = procedure('### Rotate the fleet key');
    const script = block!.script.trimEnd();
    const last = script.lastIndexOf('\n');
    const before = await lab.sh('s1', 'cat /etc/sysmon/fleet.key');
    assert.match(
      await run({ host: block!.host, script: script.slice(0, last) }),
      /3 agents have keys of [0-9a-f]{8}: nat-1, web-1, web-2/,
    );
    await areUp(['nat-1', 'web-1', 'web-2']);
    const finished = await lab.atTerminal(block!.host, script.slice(last + 1), [['(yes or no) ', 'yes\r']]);
    assert.equal(finished.code, 0, finished.shown);
    assert.match(finished.shown, /1 agent has a key of [0-9a-f]{8}: nat-1;/);
    assert.match(finished.shown, /is the only one; 1 connection ended/);
    const present = await lab.sh('s1', 'cat /etc/sysmon/fleet.key');
    assert.match(present, /^[0-9a-f]{64}$/);
    assert.notEqual(present, before);
    await areUp(['web-1', 'web-2']);
    await eventually('it is told', async () =>
      /revoked|does not know the key/.test(await lab.sh('nat-1', 'sysmon-agent status')),
    );
    const { shown } = await lab.atTerminal('s1', 'sysmon-server enroll nat-1');
    const joined = await lab.atTerminal('nat-1', 'sysmon-agent join', [[prompt, `${joinLineIn(shown)}\r`]]);
    assert.equal(joined.code, 0, joined.shown);
    assert.ok(joined.isAsBefore);
    await areUp(['nat-1']);
  });

  test('upgrade a fleet: the server, and the hosts from it', async () => {
    await lab.sh('s1', 'rm -r /root/release');
    await lab.copy('s1', later, '/root/release');
    const out = await runAll('### Upgrade a fleet');
    assert.equal([...out.matchAll(/sysmon-agent 0\.2\.0 is installed/g)].length, 2, out);
    await areUp(['nat-1', 'web-1', 'web-2']);
    const list = await lab.sh('s1', 'sysmon-server agents');
    assert.match(
      list,
      new RegExp(`^3 agents, versions ${releaseVersion} \\(1\\), 0\\.2\\.0 \\(2\\), none with problems`),
    );
    assert.match(list, /^web-2 +up .* 0\.2\.0 /m);
  });

  test('move the server: hosts that dial an address join again, those that dial a name come by themselves, nothing is lost', async () => {
    await lab.boot('s2');
    await lab.copy('s2', later, '/root/release');
    await openSsh('s2', join(lab.folder, 'id'));
    const [old, renewed, joining] = procedure('## Restore or move the server');
    record.read(lab);
    const cursor = await journalCursor(lab, 'nat-1');
    await run(old!);
    await delay(6000);
    await run(renewed!);
    // What the lab's hosts know of each other.
    const names = join(lab.folder, 'hosts');
    const [from, to] = [await lab.address('s1'), await lab.address('s2')];
    assert.match(await run(joining!), /agent 'web-2' is connected to s2:9732/);
    writeFileSync(names, readFileSync(names, 'utf8').replace(`${from} s1`, `${to} s1`));
    await areUp(['nat-1', 'web-1', 'web-2'], 's2');
    prometheus.moveTo(to);
    record.read(lab);
    const last = Math.max(...record.reports.keys());
    await eventually('the last report is scraped', async () =>
      [...(await prometheus.samplesOf('web-1')).values()].some((samples) => samples.has(last)),
    );
    record.expectStored(await prometheus.samplesOf('web-1'));
    const warnings = (await logged('nat-1', 'sysmon-agent', cursor)).filter((line) =>
      /^(?:lost|cannot connect)/.test(line),
    );
    // None where the upgrade, which cut it off too, was less than a minute ago.
    assert.ok(warnings.length <= 2, warnings.join('\n'));
  });

  test('remove a host: nothing of it is left, neither there nor here', async () => {
    const [{ script }] = procedure('### Remove a host') as [Block];
    // The server has moved.
    const out = await run({ host: 's2', script });
    assert.match(out, /sysmon-agent is removed/);
    assert.match(out, /agent 'web-2' is revoked/);
    assert.deepEqual(
      (await agents('s2')).map(({ name }) => name),
      ['nat-1', 'web-1'],
    );
    const left =
      'ls -d /etc/sysmon /var/lib/sysmon-agent /usr/local/lib/sysmon /usr/local/bin/sysmon-agent 2>/dev/null; getent passwd sysmon-agent';
    assert.equal((await lab.try('web-2', left)).out, '');
  });

  /** sshd runs, and root may come from every host that has the key. */
  async function openSsh(host: string, key: string): Promise<void> {
    await lab.sh(
      host,
      'mkdir -p -m 700 /root/.ssh && cat >/root/.ssh/id_ed25519 && chmod 600 /root/.ssh/id_ed25519',
      readFileSync(key, 'utf8'),
    );
    await lab.sh(host, 'cat >/root/.ssh/authorized_keys', readFileSync(`${key}.pub`, 'utf8'));
    await lab.sh(host, 'cat >/root/.ssh/config', 'StrictHostKeyChecking no\nLogLevel ERROR\n');
    await lab.sh(host, 'rm /etc/systemd/system/ssh.service && systemctl daemon-reload && systemctl start ssh');
  }
});

function joinLineIn(shown: string): string {
  const [line] = /^sysmon-join-v1 .*$/m.exec(shown) ?? [];
  assert.ok(line !== undefined, shown);
  return line.trim();
}
