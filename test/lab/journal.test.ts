import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { eventually, Lab } from './lab.ts';
import { Prometheus } from './prometheus.ts';
import { archiveOf, unpack } from './release.ts';

// The disk is one that many hosts share.
const isOfDisk = (text: string) => /: disk (slow since|ok after) /.test(text);

// How many lines real journals get in a minute or less; test/simulation/noise.test.ts has the whole hour, in virtual time.
describe('the journal', () => {
  const lab = new Lab();
  let prometheus: Prometheus;

  before(async () => {
    const release = unpack(archiveOf(), lab.folder);
    for (const name of ['s1', 'a1']) {
      await lab.boot(name);
      await lab.copy(name, release, '/root/release');
    }
    await lab.sh('s1', '/root/release/install.sh server');
    await lab.sh('a1', '/root/release/install.sh agent', await lab.sh('s1', 'sysmon-server enroll a1'));
    prometheus = await Prometheus.start(lab, await lab.address('s1'));
    await eventually('the agent is up', async () => (await prometheus.value('sysmon_agent_up{agent="a1"}')) === 1);
    // The first lines about the scraper and its agents.
    await delay(5000);
  });
  after(() => lab.down());

  test('nothing happens: not a line', async () => {
    assert.deepEqual(await linesOf(['s1', 'a1'], () => delay(30_000)), { s1: [], a1: [] });
  });

  test('the server is away: a line says so, and the next one comes much later', async () => {
    const { s1, a1 } = await linesOf(['s1', 'a1'], async () => {
      await lab.sh('s1', 'systemctl stop sysmon-server');
      await delay(40_000);
    });
    assert.equal(s1!.length, 1, s1!.join('\n'));
    assert.match(s1![0]!, /^stopped; 1 connection of agents ended$/);
    // At twelve an hour the second would be due after five minutes: it is of another error, if there is one.
    assert.ok(a1!.length === 1 || a1!.length === 2, a1!.join('\n'));
    assert.match(a1![0]!, /^lost 's1:9732': /);
    await lab.sh('s1', 'systemctl start sysmon-server');
    await eventually('it is back', async () => (await prometheus.value('sysmon_agent_up{agent="a1"}')) === 1);
  });

  test('a cloned host: one of the two is whole, the other refused, and both together have a line a minute at most', async () => {
    // As from a template: the key, the machine-id and the name.
    mkdirSync(join(lab.folder, 'c1'));
    execFileSync('cp', ['-a', join(lab.folder, 'a1/upper'), join(lab.folder, 'c1/upper')]);
    await lab.boot('c1');
    await eventually('the server says what is wrong', async () =>
      /two hosts run as 'a1' and have one machine-id/.test(await lab.sh('s1', 'journalctl -o cat -t sysmon-server')),
    );
    await delay(10_000);
    const lines = await linesOf(['s1', 'a1', 'c1'], () => delay(60_000));
    const all = Object.entries(lines).flatMap(([host, texts]) => texts.map((text) => `${host}: ${text}`));
    // Two, where the one of the minute before comes late.
    assert.ok(all.length <= 2, all.join('\n'));
    const states = await Promise.all(
      ['a1', 'c1'].map(async (host) => {
        const { out } = await lab.try(host, 'sysmon-agent status --json');
        return (JSON.parse(out) as { link: { state: string } }).link.state;
      }),
    );
    assert.deepEqual(states.sort(), ['connected', 'refused']);
  });

  /** The lines of our programs on each host while something is done. */
  async function linesOf(hosts: readonly string[], act: () => Promise<unknown>): Promise<Record<string, string[]>> {
    const cursors = await Promise.all(
      hosts.map(async (host) => {
        const shown = await lab.sh(host, 'journalctl --sync; journalctl -n 0 --show-cursor -q');
        return /-- cursor: (.*)$/.exec(shown)![1]!;
      }),
    );
    await act();
    const lines = await Promise.all(hosts.map((host, at) => linesAfter(host, cursors[at]!)));
    return Object.fromEntries(hosts.map((host, at) => [host, lines[at]!]));
  }

  /** Chosen here: behind a cursor of another line, journalctl -t passes over the first that it should show. */
  async function linesAfter(host: string, cursor: string): Promise<string[]> {
    const fields = '--output-fields=MESSAGE,SYSLOG_IDENTIFIER';
    const out = await lab.sh(host, `journalctl --sync; journalctl -q -o json ${fields} --after-cursor '${cursor}'`);
    return out
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as { readonly MESSAGE: string; readonly SYSLOG_IDENTIFIER?: string })
      .filter(({ SYSLOG_IDENTIFIER: name }) => name === 'sysmon-agent' || name === 'sysmon-server')
      .map(({ MESSAGE }) => MESSAGE)
      .filter((text) => !isOfDisk(text));
  }
});
