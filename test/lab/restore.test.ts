import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { eventually, Lab } from './lab.ts';
import { archiveOf, unpack } from './release.ts';

const home = '/root/release';
const installer = `${home}/install.sh`;

// As docs/operating.md says under "Restore or move the server".
describe('a server that is lost, and restored from a backup of /etc/sysmon', () => {
  const lab = new Lab();
  let backup: string;
  let revokedLine: string;

  before(async () => {
    const release = unpack(archiveOf(), lab.folder);
    for (const name of ['s1', 'a1']) {
      await lab.boot(name);
      await lab.copy(name, release, home);
    }
  });
  after(() => lab.down());

  const agents = async () =>
    JSON.parse(await lab.sh('s1', 'sysmon-server agents --json')) as { name: string; connected: boolean }[];
  const isConnected = (name: string) => async () =>
    (await agents()).some((agent) => agent.name === name && agent.connected);
  const journal = (lines: string) => lab.sh('s1', `journalctl -u sysmon-server -o cat ${lines}`);

  test('a fleet with an agent and a revoked key, and its backup', async () => {
    await lab.sh('s1', `${installer} server`);
    assert.equal(await lab.sh('s1', 'stat -c "%U:%G %a" /etc/sysmon/revoked.json'), 'root:root 644');
    assert.doesNotMatch(await journal(''), /is missing/);
    assert.match(
      await lab.sh('a1', `${installer} agent`, await lab.sh('s1', 'sysmon-server enroll a1')),
      /is connected/,
    );
    revokedLine = await lab.sh('s1', 'sysmon-server enroll old');
    const said = await lab.sh('s1', 'sysmon-server revoke old');
    assert.match(said, /generation 1 of agent 'old' is revoked; 0 connections ended\nno agent named 'old' is known/);
    backup = await lab.sh('s1', 'tar czf - -C / etc/sysmon | base64');
  });

  test('on a new host with other users the agent comes back by itself, and the revoked key does not', async () => {
    await lab.sh('s1', '/usr/local/lib/sysmon/current/install.sh uninstall --purge --yes');
    assert.equal((await lab.try('s1', 'ls /etc/sysmon /var/lib/sysmon-server')).out, '');
    // So that the numbers in the backup are those of somebody else.
    await lab.sh('s1', 'base64 -d | tar xzf - -C /', backup);
    await lab.sh('s1', 'groupadd -r -g "$(stat -c %g /etc/sysmon/fleet.key)" someone');
    assert.equal(await lab.sh('s1', 'stat -c %G /etc/sysmon/fleet.key'), 'someone');
    assert.match(await lab.sh('s1', `${installer} server`), /sysmon-server \S+ is installed/);
    assert.match(await lab.sh('s1', 'sysmon-server check'), /their join lines say 's1:9732,/);
    assert.equal(await lab.sh('s1', 'stat -c "%U:%G %a" /etc/sysmon/fleet.key'), 'root:sysmon-server 440');
    assert.doesNotMatch(await journal('-b'), /is missing, so no key is refused/);
    await eventually('a1 is connected', isConnected('a1'));

    assert.match(await lab.sh('s1', 'sysmon-server enroll old'), /^sysmon-join-v1 s1:9732,\S+ old:2:/);
    const { code, err } = await lab.try('s1', `${installer} agent --join-file -`, revokedLine);
    assert.equal(code, 1, err);
    assert.match(err, /refused this agent \(revoked\): /);
  });

  test('with the fleet key alone the server says what is missing', async () => {
    await lab.sh('s1', 'rm /etc/sysmon/revoked.json && systemctl restart sysmon-server');
    assert.match(
      await journal('-n 20'),
      /'\/etc\/sysmon\/revoked\.json' is missing, so no key is refused: if keys were revoked/,
    );
    const { out, err } = await lab.try('s1', 'sysmon-server enroll a1');
    assert.match(out, / a1:1:/);
    assert.match(
      err,
      /'\/etc\/sysmon\/revoked\.json' was missing, and was made with 0 revocations: if keys were revoked/,
    );
    await lab.sh('s1', 'systemctl restart sysmon-server');
    await eventually('a1 is connected', isConnected('a1'));
  });

  test('the units: text is no code, what they write cannot be run, the agent cannot listen', async () => {
    for (const [host, unit] of [
      ['a1', 'sysmon-agent'],
      ['s1', 'sysmon-server'],
    ] as const) {
      const pid = await lab.sh(host, `systemctl show -p MainPID --value ${unit}`);
      assert.match(
        await lab.sh(host, `tr '\\0' ' ' </proc/${pid}/cmdline`),
        / --disallow-code-generation-from-strings /,
      );
      const mounts = await lab.sh(host, `cat /proc/${pid}/mountinfo`);
      for (const folder of [`/var/lib/${unit}`, `/run/${unit}`]) {
        assert.match(mounts, new RegExp(` ${folder} \\S*noexec`), folder);
      }
      assert.notEqual(
        await lab.sh(host, `readlink /proc/${pid}/ns/ipc`),
        await lab.sh(host, 'readlink /proc/1/ns/ipc'),
      );
    }
    assert.equal(await lab.sh('a1', 'systemctl show -p SocketBindDeny --value sysmon-agent'), 'any');
  });
});
