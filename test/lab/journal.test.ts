import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { type JournalLine, journalCursor, journalLines, ofPrograms } from './journal.ts';
import { eventually, Lab } from './lab.ts';
import { Prometheus } from './prometheus.ts';
import { archiveOf, unpack } from './release.ts';

// How many lines real journals get, in as many minutes as `--minutes` says: npm run test:lab -- journal --minutes 60 is the whole hour,
// which test/simulation/noise.test.ts has in virtual time. Three fleets side by side: one that is left alone, one without its server,
// and one with a cloned host.
const minutes = Number(process.env['LAB_MINUTES'] ?? '1');

const fleets = [
  { server: 's1', agent: 'a1', port: 9091 },
  { server: 's2', agent: 'a2', port: 9092 },
  { server: 's3', agent: 'a3', port: 9093 },
] as const;
const clone = 'c3';

describe(`the journal in ${minutes} min`, () => {
  const lab = new Lab();
  /** What each host has logged meanwhile. */
  const lines = new Map<string, readonly JournalLine[]>();
  /** Of it, what the cloned hosts and their server have logged once the server had said what is wrong. */
  const linesSettled = new Map<string, readonly JournalLine[]>();
  let states: readonly string[] = [];

  before(async () => {
    const release = unpack(archiveOf(), lab.folder);
    for (const { server, agent, port } of fleets) {
      for (const name of [server, agent]) {
        await lab.boot(name);
        await lab.copy(name, release, '/root/release');
      }
      await lab.sh(server, '/root/release/install.sh server');
      await lab.sh(agent, '/root/release/install.sh agent', await lab.sh(server, `sysmon-server enroll ${agent}`));
      const scraper = `prometheus-of-${server}`;
      const prometheus = await Prometheus.start(lab, await lab.address(server), { scraper, port, intervalSeconds: 5 });
      await eventually(
        `${agent} is up`,
        async () => (await prometheus.value(`sysmon_agent_up{agent="${agent}"}`)) === 1,
      );
    }
    // The first lines about the scraper and its agents.
    await delay(10_000);

    const hosts = fleets.flatMap(({ server, agent }) => [server, agent]);
    const cursors = new Map<string, string>();
    for (const host of hosts) cursors.set(host, await journalCursor(lab, host));
    await lab.sh('s2', 'systemctl stop sysmon-server');
    // As from a template: the key, the machine-id and the name.
    mkdirSync(join(lab.folder, clone));
    execFileSync('cp', ['-a', join(lab.folder, 'a3/upper'), join(lab.folder, clone, 'upper')]);
    // It holds what the other one has logged.
    cursors.set(clone, cursors.get('a3')!);
    await lab.boot(clone);
    await eventually('the server says what is wrong', async () => {
      return (await programsOf('s3', cursors)).some(({ text }) => /two hosts run as 'a3' and have one mach/.test(text));
    });
    await delay(10_000);
    const settled = new Map<string, string>();
    for (const host of ['s3', 'a3', clone]) settled.set(host, await journalCursor(lab, host));

    await delay(minutes * 60_000);
    states = await Promise.all(
      ['a3', clone].map(async (host) => {
        const { out } = await lab.try(host, 'sysmon-agent status --json');
        return (JSON.parse(out) as { link: { state: string } }).link.state;
      }),
    );
    for (const host of ['s3', 'a3', clone]) linesSettled.set(host, await programsOf(host, settled));
    lines.set('s2', await programsOf('s2', cursors));
    await lab.sh('s2', 'systemctl start sysmon-server');
    await eventually('a2 is connected again', async () => {
      return (await programsOf('a2', cursors)).some(({ text }) => text.startsWith('connected to '));
    });
    // What of its reports was too old, if anything, is told with the first answers.
    await delay(15_000);
    for (const host of cursors.keys()) if (host !== 's2') lines.set(host, await programsOf(host, cursors));
  });
  after(() => lab.down());

  const programsOf = async (host: string, cursors: ReadonlyMap<string, string>) =>
    // The disk is one that many hosts share.
    ofPrograms(await journalLines(lab, host, cursors.get(host)!)).filter(
      ({ text }) => !/: disk (slow since|ok after) /.test(text),
    );
  const textsOf = (host: string, from: ReadonlyMap<string, readonly JournalLine[]> = lines): string[] =>
    from.get(host)!.map(({ text }) => text);

  test('nothing happens: not a line', () => {
    assert.deepEqual({ s1: textsOf('s1'), a1: textsOf('a1') }, { s1: [], a1: [] });
  });

  test('the server is away: a line says so, then rarely one, and what came of it when it is back', (context) => {
    const [s2, a2] = [textsOf('s2'), textsOf('a2')];
    context.diagnostic(`${a2.length} lines of the agent, ${s2.length} of the server:\n${[...a2, ...s2].join('\n')}`);
    assert.equal(s2.length, 1, s2.join('\n'));
    assert.match(s2[0]!, /^stopped; 1 connection of agents ended$/);
    assert.match(a2[0]!, /^lost 's2:9732': /);
    // Twelve an hour. In some minutes: that it is away, the next error if there is one, that it is back.
    assert.ok(a2.length <= Math.max(3, Math.floor(minutes / 5)), a2.join('\n'));
    const back = a2.filter((text) =>
      /^connected to 's2:9732' \(10\.77\.\d+\.\d+:9732\); \d+ reports? to send$/.test(text),
    );
    assert.equal(back.length, 1, a2.join('\n'));
    // The reports that the window no longer takes.
    const lost = a2.filter((text) => text.startsWith("'s2:9732' did not store "));
    assert.equal(lost.length, minutes > 31 ? 1 : 0, a2.join('\n'));
  });

  test('a cloned host: one of the two is whole, the other refused, and all three have a line a minute at most', (context) => {
    const all = (from: typeof lines) =>
      ['s3', 'a3', clone].flatMap((host) => textsOf(host, from).map((text) => `${host}: ${text}`));
    // Without what each process says of its own start and stop.
    const texts = all(lines).filter((line) => !/^\S+ (version |stopped)/.test(line));
    context.diagnostic(`${texts.length} lines:\n${texts.join('\n')}`);
    assert.ok(texts.length <= Math.max(15, minutes), texts.join('\n'));
    // Two, where the one of the minute before comes late.
    const settled = all(linesSettled);
    assert.ok(settled.length <= Math.max(2, minutes), settled.join('\n'));
    assert.deepEqual(states.toSorted(), ['connected', 'refused']);
  });
});
