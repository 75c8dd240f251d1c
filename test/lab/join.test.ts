import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { eventually, Lab } from './lab.ts';
import { listing } from './listing.ts';
import { Prometheus } from './prometheus.ts';
import { archiveOf, unpack, wgetScript } from './release.ts';

const installer = '/root/release/install.sh';
const prompt = 'prints on the server (it is not shown): ';

describe('hosts join', () => {
  const lab = new Lab();
  const archive = archiveOf();
  let release: string;
  let address: string;

  before(async () => {
    release = unpack(archive, lab.folder);
    await lab.boot('s1');
    await lab.copy('s1', release, '/root/release');
    for (const name of ['b1', 'b2']) await lab.boot(name, { bare: true });
    address = await lab.address('s1');
  });
  after(() => lab.down());

  const line = async (name: string) => (await lab.try('s1', `sysmon-server enroll ${name}`)).out.trim();
  const indented = (shown: string, pattern: RegExp): string => {
    const found = shown.split('\r\n').find((each) => each.startsWith('  ') && pattern.test(each));
    assert.ok(found !== undefined, shown);
    return found.trim();
  };

  test('the server keeps the archive that it was installed from, and enroll names it and an address', async () => {
    await lab.sh('s1', `${installer} server`);
    const { shown, code } = await lab.atTerminal('s1', 'sysmon-server enroll b1');
    assert.equal(code, 0, shown);
    assert.match(shown, new RegExp(`DNS does not have the name 's1', so the line names ${address}:9732 too`));
    assert.match(shown, new RegExp(`^sysmon-join-v1 s1:9732,${address}:9732 b1:1:`, 'm'));
    const sha256 = createHash('sha256').update(readFileSync(archive)).digest('hex');
    const command = indented(shown, /\/install\//);
    assert.ok(command.includes(`u=http://${address}:9733/install/`), command);
    assert.ok(command.includes(sha256), 'the same bytes as the release');
    assert.match(await lab.sh('s1', `${installer} server`), /nothing to change/);
  });

  test('a bare Debian, from the printed command to samples in Prometheus', async () => {
    await lab.sh('b1', 'cat >/usr/local/bin/wget && chmod 755 /usr/local/bin/wget', wgetScript);
    const { shown } = await lab.atTerminal('s1', 'sysmon-server enroll b1');
    const [joinLine = ''] = /^sysmon-join-v1 .*$/m.exec(shown) ?? [];
    const command = indented(shown, /\/install\//);
    const joined = await lab.atTerminal('b1', command, [[prompt, `${joinLine.trim()}\r`]]);
    assert.equal(joined.code, 0, joined.shown);
    assert.match(joined.shown, new RegExp(`agent 'b1' is connected to s1:9732 \\(${address}\\)`));
    assert.doesNotMatch(joined.shown, /[0-9a-f]{32}/);
    assert.ok(joined.isAsBefore);
    assert.equal(await lab.sh('b1', 'stat -c "%U:%G %a" /etc/sysmon/agent.key'), 'root:sysmon-agent 440');
    assert.equal(await lab.sh('b1', 'systemctl is-enabled sysmon-agent'), 'enabled');
    const prometheus = await Prometheus.start(lab, address);
    await eventually('it is up', async () => (await prometheus.value('sysmon_agent_up{agent="b1"}')) === 1);
    await eventually('it has samples', async () => (await prometheus.value('count(node_load1{agent="b1"})')) === 1);
  });

  test('a bare Debian that can fetch nothing, by the printed pipe', async () => {
    const { shown } = await lab.atTerminal('s1', 'sysmon-server enroll b2');
    const [, left = '', right = ''] = /^(.*) \| ssh b2 '(.*)'$/.exec(indented(shown, /\| ssh b2 /)) ?? [];
    const { code, out, err } = await lab.pipe(['s1', left], ['b2', right]);
    assert.equal(code, 0, err);
    assert.match(out, /agent 'b2' is connected to s1:9732 /);
    assert.equal(await lab.sh('b2', "journalctl -o cat | grep -c '[0-9a-f]\\{64\\}' || true"), '0');
  });

  test('a line that is piped to a host that has joined is never thrown away', async () => {
    await lab.copy('b1', release, '/root/release');
    const same = await lab.try('b1', `${installer} agent`, await line('b1'));
    assert.equal(same.code, 0, same.err);
    assert.match(same.out, /nothing to change[\s\S]*agent 'b1' is connected to s1:9732/);
    const renamed = await lab.try('b1', `${installer} agent`, `${await line('web-9')}\r\n`);
    assert.equal(renamed.code, 0, renamed.err);
    assert.match(renamed.out, /agent 'web-9' is connected to s1:9732 .*\n.*this host is 'b1' and reports as 'web-9'/);
    const before = await listing(lab, 'b1');
    const nonsense = await lab.try('b1', `${installer} agent`, 'web-9\n');
    assert.equal(nonsense.code, 2);
    assert.match(nonsense.err, /begins with another word/);
    assert.equal(await listing(lab, 'b1'), before);
    const silent = await lab.pipe(['s1', 'sleep 15'], ['b1', `${installer} agent`]);
    assert.equal(silent.code, 0, silent.err);
    assert.match(silent.err, /waiting 10 s for a join line on standard input/);
  });

  test('sysmon-agent join: the same line changes nothing, another one restarts the unit, a wrong one leaves it alone', async () => {
    const pid = () => lab.sh('b1', 'systemctl show -p MainPID sysmon-agent');
    const before = (await listing(lab, 'b1')) + (await pid());
    const same = await lab.sh('b1', 'sysmon-agent join', await line('web-9'));
    assert.match(same, /^nothing to change: this host has joined as 'web-9'\nagent 'web-9' is connected to s1:9732/);
    const start = performance.now();
    const right = await line('b1');
    const unknown = await lab.try('b1', 'sysmon-agent join', right.replace(/ \S+:9732 /, ' srv.lan:9732 '));
    assert.equal(unknown.code, 1);
    assert.match(unknown.err, /the name of srv\.lan:9732 cannot be resolved: .*SYSMON_ADVERTISE=ADDRESS:9732/);
    assert.ok(performance.now() - start < 10_000);
    assert.equal((await listing(lab, 'b1')) + (await pid()), before);

    const old = await line('web-9');
    const renamed = await lab.try('b1', 'sysmon-agent join', right);
    assert.equal(renamed.code, 0, renamed.err);
    assert.match(renamed.out, /^agent 'b1' is connected to s1:9732 \(/);
    assert.match(renamed.err, /this host was 'web-9' before: 'sudo sysmon-server revoke web-9'/);
    assert.notEqual(await pid(), before);
    await lab.sh('s1', 'sysmon-server revoke web-9');
    const revoked = await lab.try('b1', 'sysmon-agent join', old);
    assert.equal(revoked.code, 1, revoked.out);
    assert.match(revoked.err, /refused this agent \(revoked\): /);
    assert.match(await lab.sh('b1', 'sysmon-agent status --wait'), /agent 'b1' is connected/);
  });

  test('a name server that does not answer is waited for for 2 s', async () => {
    await lab.act('drop', 'b2');
    const nameServer = await lab.address('b2');
    await lab.sh('b1', `echo nameserver ${nameServer} >/etc/resolv.conf`);
    const there = (await line('b1')).replace(/ \S+:9732 /, ' srv.lan:9732 ');
    const start = performance.now();
    const { code, err } = await lab.try('b1', 'sysmon-agent join', there);
    assert.equal(code, 1);
    assert.match(err, /the name of srv\.lan:9732 cannot be resolved: no answer within 2 s; make the name known/);
    assert.ok(performance.now() - start < 8000, 'getaddrinfo alone would take 10 s');
    await lab.sh('b1', ': >/etc/resolv.conf');
    await lab.act('undrop', 'b2');
  });

  test('an agent with a server that is not there is repaired by the same pipe', async () => {
    await lab.sh('b1', "sed -i 's/^SYSMON_SERVER=.*/SYSMON_SERVER=srv.lan:9732/' /etc/sysmon/agent.env");
    await lab.sh('b1', 'systemctl restart sysmon-agent');
    const out = await lab.sh('b1', `${installer} agent`, await line('b1'));
    assert.match(out, /agent 'b1' is connected to s1:9732/);
  });

  test('Ctrl-C at the prompt: the terminal and the host are as they were', async () => {
    await lab.boot('b3', { bare: true });
    await lab.copy('b3', release, '/root/release');
    const before = await listing(lab, 'b3');
    const { code, isAsBefore, shown } = await lab.atTerminal('b3', `${installer} agent`, [[prompt, '\u0003']]);
    assert.deepEqual([code, isAsBefore], [130, true], shown);
    assert.equal(await listing(lab, 'b3'), before);
    // A join that fails at the prompt installs nothing either.
    const wrong = await lab.atTerminal('b3', `${installer} agent`, [[prompt, 'sysmon-join-v1 s1:9732 x\r']]);
    assert.equal(wrong.code, 2, wrong.shown);
    assert.equal(await listing(lab, 'b3'), before);
  });

  test("the server's own agent follows a new fleet key", async () => {
    assert.match(await lab.sh('s1', `${installer} agent`), /agent 's1' is connected to 127\.0\.0\.1:9732/);
    assert.match(await lab.sh('s1', `${installer} agent`), /nothing to change/);
    const old = await lab.sh('s1', 'cut -d " " -f 2 /etc/sysmon/agent.key');
    await lab.sh(
      's1',
      `cd /etc/sysmon && { od -An -tx1 -N32 /dev/urandom | tr -d ' \\n'; echo; cat fleet.key; } >n && chown root:sysmon-server n &&
        chmod 440 n && mv n fleet.key && systemctl reload sysmon-server`,
    );
    assert.match(await lab.sh('s1', `${installer} agent`), /agent 's1' is connected to/);
    assert.notEqual(await lab.sh('s1', 'cut -d " " -f 2 /etc/sysmon/agent.key'), old);
  });

  test('one program is removed, the other runs on', async () => {
    const pid = await lab.sh('s1', 'systemctl show -p MainPID sysmon-server');
    assert.match(await lab.sh('s1', `${installer} uninstall agent --purge`), /sysmon-agent is removed/);
    assert.equal(await lab.sh('s1', 'systemctl show -p MainPID sysmon-server'), pid);
    assert.equal(await lab.sh('s1', 'ls /etc/sysmon'), 'fleet.key\nrevoked.json\nserver.env');
    assert.notEqual((await lab.try('s1', 'getent passwd sysmon-agent')).code, 0);
    const refused = await lab.try('s1', `${installer} uninstall --purge`);
    assert.equal(refused.code, 2);
    assert.match(refused.err, /this destroys the fleet key \/etc\/sysmon\/fleet\.key: .*add --yes/);
    const asked = await lab.atTerminal('s1', `${installer} uninstall --purge`, [['(yes or no) ', 'no\r']]);
    assert.equal(asked.code, 2, asked.shown);
    assert.equal(await lab.sh('s1', 'systemctl is-active sysmon-server'), 'active');
  });

  test('a prefix of its own: it starts, and the installed copy knows where it is', async () => {
    const before = await listing(lab, 'b3');
    const joined = await lab.try('b3', `${installer} agent --prefix /opt/sysmon`, await line('b3'));
    assert.equal(joined.code, 0, joined.err);
    assert.match(joined.out, /agent 'b3' is connected to/);
    const other = await lab.try('b3', `${installer} agent --prefix /usr`);
    assert.equal(other.code, 2);
    assert.match(other.err, /sysmon is installed below '\/opt\/sysmon'/);
    assert.match(await lab.sh('b3', `${installer} agent`), /nothing to change/);
    await lab.sh('b3', '/opt/sysmon/lib/sysmon/current/install.sh uninstall --purge');
    assert.equal(await listing(lab, 'b3'), before);
  });
});
