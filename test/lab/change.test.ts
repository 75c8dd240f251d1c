import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { eventually, Lab } from './lab.ts';
import { archiveOf, unpack } from './release.ts';

// What an operator changes: keys, options, files, and who may look.

const installer = '/root/release/install.sh';

describe('changes', () => {
  const lab = new Lab();

  before(async () => {
    const release = unpack(archiveOf(), lab.folder);
    for (const name of ['s1', 'a1']) {
      await lab.boot(name);
      await lab.copy(name, release, '/root/release');
    }
  });
  after(() => lab.down());

  const pid = () => lab.sh('s1', 'systemctl show -p MainPID sysmon-server');
  const journal = async (host: string, unit: string) => lab.sh(host, `journalctl --sync; journalctl -o cat -t ${unit}`);

  test('the install says who can read the HTTP port, and how to close it', async () => {
    const out = await lab.sh('s1', `${installer} server`);
    assert.match(
      out,
      /HTTP port 9733 is open to every host of this network without a password, unless a firewall closes it: /,
    );
    assert.match(out, /SYSMON_WEB_LISTEN_ADDRESS=127\.0\.0\.1:9733 in \/etc\/sysmon\/server\.env closes it/);
    const { code, out: joined, err } = await lab.pipe(['s1', 'sysmon-server enroll a1'], ['a1', `${installer} agent`]);
    assert.equal(code, 0, err + joined);
    assert.match(await lab.sh('s1', `${installer} agent`), /agent 's1' is connected/);
  });

  test('who is in the group may look, and neither read keys nor change anything', async () => {
    await lab.sh('s1', 'useradd op && usermod -aG sysmon op');
    const asOp = (script: string) => lab.try('s1', `runuser -u op -- sh -c '${script}'`);
    for (const script of ['sysmon-server agents', 'sysmon-server status', 'sysmon-agent status']) {
      const { code, out, err } = await asOp(script);
      assert.equal(code, 0, `${script}: ${err}`);
      assert.match(out, /\S/);
    }
    for (const script of [
      'cat /etc/sysmon/fleet.key',
      'cat /etc/sysmon/agent.key',
      'sysmon-server revoke a1',
      'sysmon-server forget-scraper x',
      'sysmon-server reload',
      'sysmon-agent reload',
      'sysmon-server rotate-key',
    ]) {
      assert.notEqual((await asOp(script)).code, 0, script);
    }
    await lab.sh('s1', 'useradd stranger');
    const { code, err } = await lab.try('s1', 'runuser -u stranger -- sysmon-server agents');
    assert.equal(code, 1);
    assert.match(err, /only root and members of the group 'sysmon' may ask: 'sudo usermod -aG sysmon stranger'/);
  });

  test('rotate-key: as root, with one command a half; the server has read the file and is the same process', async () => {
    const before = await pid();
    const begun = await lab.sh('s1', 'sysmon-server rotate-key');
    assert.match(begun, /2 agents have keys of [0-9a-f]{8}: a1, s1\n/);
    assert.equal(await lab.sh('s1', 'stat -c "%U:%G %a" /etc/sysmon/fleet.key'), 'root:sysmon-server 440');
    const joined = await lab.pipe(['s1', 'sysmon-server enroll a1'], ['a1', 'sysmon-agent join']);
    assert.equal(joined.code, 0, joined.err);
    const refused = await lab.try('s1', 'sysmon-server rotate-key --finish');
    assert.equal(refused.code, 2);
    assert.match(refused.err, /1 agent has a key of [0-9a-f]{8}: s1; .*: add --yes/);
    assert.equal((await lab.try('s1', 'sysmon-server enroll s1 | sysmon-agent join')).code, 0);
    const finished = await lab.sh('s1', 'sysmon-server rotate-key --finish --yes');
    assert.match(finished, /no agent that the server knows has a key of [\s\S]*is the only one; 0 connections ended/);
    assert.equal(await lab.sh('s1', 'stat -c "%U:%G %a" /etc/sysmon/fleet.key'), 'root:sysmon-server 440');
    assert.match(await lab.sh('a1', 'sysmon-agent status --wait'), /agent 'a1' is connected/);
    assert.equal(await pid(), before);
    await lab.sh('s1', 'systemctl restart sysmon-server');
  });

  test('systemctl reload fails where a file is wrong, with the reason and both commands, and changes nothing', async () => {
    const before = await pid();
    await lab.sh('s1', 'cp -p /etc/sysmon/fleet.key /root/kept.key');
    const edit = '{ od -An -tx1 -N32 /dev/urandom | tr -d " \\n"; echo; cat /root/kept.key; } >/etc/sysmon/new';
    await lab.sh('s1', `${edit} && chmod 440 /etc/sysmon/new && mv /etc/sysmon/new /etc/sysmon/fleet.key`);
    const failed = await lab.try('s1', 'systemctl reload sysmon-server');
    assert.notEqual(failed.code, 0, 'the key is root:root');
    const remedy = 'chown root:sysmon-server /etc/sysmon/fleet.key && chmod 0440 /etc/sysmon/fleet.key';
    assert.ok((await journal('s1', 'sysmon-server')).includes(`may not read it; run '${remedy}'`));
    const checked = await lab.try('s1', 'sysmon-server check');
    assert.equal(checked.code, 2, 'as the unit would find it');
    assert.ok(checked.err.includes(remedy), checked.err);
    await lab.sh('s1', `${remedy} && systemctl reload sysmon-server`);
    await lab.sh('s1', 'cp -p /root/kept.key /etc/sysmon/fleet.key && systemctl reload sysmon-server');
    await lab.sh('s1', 'echo SYSMON_WINDOW=soon >>/etc/sysmon/server.env');
    assert.notEqual((await lab.try('s1', 'systemctl reload sysmon-server')).code, 0);
    await lab.sh('s1', "sed -i 's/^SYSMON_WINDOW=soon/SYSMON_WINDOW=20m/' /etc/sysmon/server.env");
    await lab.sh('s1', 'systemctl reload sysmon-server');
    assert.match(
      await journal('s1', 'sysmon-server'),
      /SYSMON_WINDOW has changed since the start: a restart applies it \('systemctl restart sysmon-server'\)/,
    );
    await lab.sh('s1', "sed -i '$d' /etc/sysmon/server.env");
    assert.equal(await pid(), before);
    await lab.sh('a1', 'systemctl reload sysmon-agent');
    await lab.sh('a1', 'chmod 444 /etc/sysmon/agent.key');
    assert.notEqual((await lab.try('a1', 'systemctl reload sysmon-agent')).code, 0);
    assert.match(
      await journal('a1', 'sysmon-agent'),
      /its mode is 0444, so others can read or change it; run 'chmod 0440/,
    );
    await lab.sh('a1', 'chmod 440 /etc/sysmon/agent.key');
    assert.match(await lab.sh('a1', 'sysmon-agent status --wait'), /agent 'a1' is connected/);
  });

  test('check, as root, finds what the unit would', async () => {
    assert.match(
      await lab.sh('s1', 'sysmon-server check'),
      /^looking as the user 'sysmon-server'.*\nthe options are valid/,
    );
    assert.match(await lab.sh('a1', 'sysmon-agent check'), /the server answers at s1:9732/);
    const wrong = async (
      host: string,
      program: string,
      [change, back]: readonly [string, string],
      expected: RegExp,
    ) => {
      await lab.sh(host, change);
      const { code, err } = await lab.try(host, `${program} check`);
      await lab.sh(host, back);
      assert.equal(code, 2, `${change}: ${err}`);
      assert.match(err, expected);
    };
    const option = (line: string) =>
      [`echo ${line} >>/etc/sysmon/server.env`, "sed -i '$d' /etc/sysmon/server.env"] as const;
    const key = '/etc/sysmon/agent.key';
    await wrong(
      'a1',
      'sysmon-agent',
      [`chown root:root ${key}`, `chown root:sysmon-agent ${key}`],
      /the user 'sysmon-agent' may not read it; run 'chown root:sysmon-agent \S+ && chmod 0440 /,
    );
    await wrong(
      'a1',
      'sysmon-agent',
      ['chmod 600 /etc/sysmon/agent.env', 'chmod 644 /etc/sysmon/agent.env'],
      /the user 'sysmon-agent' may not read it; run 'chmod 0644 \/etc\/sysmon\/agent\.env'/,
    );
    await wrong(
      'a1',
      'sysmon-agent',
      ['chmod 700 /etc/sysmon', 'chmod 755 /etc/sysmon'],
      /the user 'sysmon-agent' may not enter '\/etc\/sysmon'; run 'chmod 0755 \/etc\/sysmon'/,
    );
    await wrong('s1', 'sysmon-server', option('SYSMON_STATE_DIR=/root'), /--state-dir '\/root': /);
    await wrong(
      's1',
      'sysmon-server',
      option('SYSMON_LISTEN=:80'),
      /cannot listen on :80: a port below 1024 needs privileges/,
    );
    await wrong('s1', 'sysmon-server', option('SYSMON_LISTEN=10.9.9.9:9732'), /this host does not have the address/);
    await lab.sh('s1', "systemd-run -q --unit=squatter /usr/bin/node -e 'net.createServer().listen(9900)'");
    await eventually('9900 is taken', async () => (await lab.try('s1', "ss -tln | grep -q ':9900 '")).code === 0);
    await wrong(
      's1',
      'sysmon-server',
      option('SYSMON_WEB_LISTEN_ADDRESS=:9900'),
      /:9900: another program uses the port/,
    );
    await lab.sh('s1', option('SYSMON_MEMORY_MAX=4GiB')[0]);
    assert.match(
      await lab.sh('s1', 'sysmon-server check'),
      /--memory-max 4GiB is too much for MemoryMax=1536MiB of the unit/,
    );
    await lab.sh('s1', option('')[1]);
  });

  test("the system's Node.js is removed: one line, and the unit stays stopped", async () => {
    await lab.sh(
      'a1',
      'rm -f /usr/local/lib/sysmon/current/node && ln -s /usr/bin/node /usr/local/lib/sysmon/current/node',
    );
    await lab.sh('a1', 'systemctl restart sysmon-agent && mv /usr/bin/node /root/node');
    assert.notEqual((await lab.try('a1', 'systemctl restart sysmon-agent')).code, 0);
    assert.match(await journal('a1', 'sysmon-agent'), /^there is no Node\.js at \/usr\/bin\/node: install it again/m);
    assert.match(
      await lab.sh('a1', 'systemctl show -p ExecMainStatus,SubState sysmon-agent'),
      /ExecMainStatus=2[\s\S]*SubState=failed|SubState=failed[\s\S]*ExecMainStatus=2/,
    );
    assert.equal((await lab.try('a1', 'sysmon-agent status')).code, 2);
    await lab.sh('a1', 'mv /root/node /usr/bin/node && systemctl restart sysmon-agent');
    assert.match(await lab.sh('a1', 'sysmon-agent status --wait'), /agent 'a1' is connected/);
  });
});
