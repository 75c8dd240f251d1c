import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { parse } from 'yaml';
import { rootFile } from '../support/files.ts';
import { eventually, Lab } from './lab.ts';
import { listing } from './listing.ts';
import {
  type Architecture,
  archiveOf,
  debName,
  handedOut,
  packageVariant,
  releaseVersion,
  unpack,
  wgetScript,
} from './release.ts';

const fileOf = (role: Parameters<typeof debName>[0]) => join(handedOut, debName(role, process.arch as Architecture));
const installer = '/root/release/install.sh';

const sha256 = (file: string) => createHash('sha256').update(readFileSync(file)).digest('hex');

describe('Debian packages on a bare Debian', () => {
  const lab = new Lab();
  const asBooted = new Map<string, readonly string[]>();

  before(async () => {
    const release = unpack(archiveOf(), lab.folder);
    const later = packageVariant(fileOf('agent'), join(lab.folder, 'later.deb'), {
      'DEBIAN/control': (text) => text.replace(/^Version: .*$/m, 'Version: 0.2.0'),
      'usr/lib/sysmon-agent/sysmon-agent.cjs': (text) => text.replace(`"${releaseVersion}"`, '"0.2.0"'),
      'usr/share/sysmon-agent/agent.env': (text) => `${text}\n# How it is new.\n#SYSMON_NEW=\n`,
    });
    for (const name of ['s1', 'a1']) {
      await lab.boot(name, { bare: true });
      asBooted.set(name, await hostListing(name));
      await lab.sh(name, 'mkdir -p /root/debs');
    }
    await lab.copy('s1', fileOf('server'), '/root/debs/sysmon-server.deb');
    await lab.copy('s1', fileOf('agent'), '/root/debs/sysmon-agent.deb');
    await lab.copy('s1', fileOf('agent-archives'), '/root/debs/sysmon-agent-archives.deb');
    await lab.copy('a1', fileOf('agent'), '/root/debs/sysmon-agent.deb');
    await lab.copy('a1', later, '/root/debs/later.deb');
    await lab.copy('a1', release, '/root/release');
  });
  after(() => lab.down());

  test('the server runs when it is installed, with a fleet key of its own', async () => {
    // As docs/operating.md has it. From /var/tmp, which apt's own user can read.
    const out = await lab.sh(
      's1',
      'mv /root/debs /var/tmp/debs; apt-get install -y /var/tmp/debs/sysmon-server.deb 2>&1',
    );
    assert.match(out, /^sysmon-server: made the fleet key \/etc\/sysmon\/fleet\.key/m);
    assert.match(out, /^sysmon-server: the options are valid: /m);
    assert.match(out, /^sysmon-server: 'sudo sysmon-server enroll NAME' prints/m);
    assert.equal(await lab.sh('s1', 'systemctl is-active sysmon-server'), 'active');
    assert.equal(await lab.sh('s1', 'systemctl is-enabled sysmon-server'), 'enabled');
    assert.equal(await lab.sh('s1', 'sysmon-server --version'), `sysmon-server ${releaseVersion}`);
    assert.match(await lab.sh('s1', 'sysmon-server status'), new RegExp(`version +${releaseVersion}`));
    assert.equal(
      await lab.sh('s1', 'cd /etc/sysmon && stat -c "%n %U:%G %a" *'),
      'fleet.key root:sysmon-server 440\nrevoked.json root:root 644\nserver.env root:root 644',
    );
    assert.equal(await lab.sh('s1', 'systemctl --failed --no-legend'), '');
  });

  test('an agent waits for its key without an error, and then starts', async () => {
    const out = await lab.sh('a1', 'dpkg -i /root/debs/sysmon-agent.deb 2>&1');
    assert.match(
      out,
      /^sysmon-agent: this host has not joined: give the line that 'sudo sysmon-server enroll a1' prints on the server to 'sudo sysmon-agent join'$/m,
    );
    assert.equal(
      await lab.sh('a1', 'systemctl start sysmon-agent; systemctl is-active sysmon-agent || true'),
      'inactive',
    );
    assert.equal(await lab.sh('a1', 'systemctl is-enabled sysmon-agent; systemctl --failed --no-legend'), 'enabled');
    assert.equal(await lab.sh('a1', 'dpkg --verify sysmon-agent | grep -v " /usr/share/\\(doc\\|man\\)/" || true'), '');

    const line = await lab.sh('s1', 'sysmon-server enroll a1');
    assert.match(await lab.sh('a1', 'sysmon-agent join', line), /^agent 'a1' is connected to /);
    assert.equal(await lab.sh('a1', 'stat -c "%U:%G %a" /etc/sysmon/agent.key'), 'root:sysmon-agent 440');
    assert.match(await lab.sh('a1', 'sysmon-agent join', line), /nothing to change/);
  });

  test('the archives for other hosts: installed, the running server hands them out, and a bare host joins with them', async () => {
    const enroll = () => lab.atTerminal('s1', 'sysmon-server enroll b1');
    assert.match(
      (await enroll()).shown,
      /no release archive in '\/usr\/lib\/sysmon-server\/install\/', which sysmon-agent-archives brings/,
    );
    const pid = await lab.sh('s1', 'systemctl show -P MainPID sysmon-server');
    await lab.sh('s1', 'apt-get install -y /var/tmp/debs/sysmon-agent-archives.deb');
    assert.equal(await lab.sh('s1', 'systemctl show -P MainPID sysmon-server'), pid, 'the server was restarted');
    const { shown } = await enroll();
    const lines = shown.split('\r\n').map((each) => each.trim());
    const command = lines.find((each) => each.includes('/install/')) ?? '';
    for (const name of ['x64', 'arm64']) assert.ok(command.includes(sha256(archiveOf(name))), shown);
    const line = lines.find((each) => each.startsWith('sysmon-join-v1 '));
    await lab.boot('b1', { bare: true });
    await lab.sh('b1', 'cat >/usr/local/bin/wget && chmod 755 /usr/local/bin/wget', wgetScript);
    assert.match(await lab.sh('b1', command, `${line}\n`), /^sysmon: agent 'b1' is connected to /m);
    await lab.sh('s1', 'apt-get purge -y sysmon-agent-archives');
    assert.equal(await lab.sh('s1', 'ls /usr/lib/sysmon-server'), 'node\nsysmon-server.cjs');
    await lab.act('stop', 'b1');
  });

  test('the example for cloud-init: a host that boots for the first time joins, and its line is gone afterwards', async () => {
    const text = readFileSync(rootFile('examples/cloud-init/agent.yml'), 'utf8');
    const { write_files: files, runcmd } = parse(text) as {
      write_files: { path: string; permissions: string }[];
      runcmd: string[][];
    };
    const { path, permissions } = files[0]!;
    await lab.boot('c1', { bare: true });
    await lab.copy('c1', fileOf('agent'), '/root/sysmon-agent.deb');
    const curl = '#!/bin/sh\ncp /root/sysmon-agent.deb "$2"\n';
    await lab.sh('c1', 'cat >/usr/local/bin/curl && chmod 755 /usr/local/bin/curl', curl);
    // As cloud-init does it.
    const line = await lab.sh('s1', 'sysmon-server enroll c1');
    await lab.sh('c1', `mkdir -p "$(dirname ${path})" && cat >${path} && chmod ${permissions} ${path}`, `${line}\n`);
    const script = runcmd[0]!.at(-1)!.replace('SHA256', sha256(fileOf('agent')));
    assert.match(await lab.sh('c1', `set -e\n${script}`), /^agent 'c1' is connected to /m);
    assert.equal(await lab.sh('c1', `ls -d "$(dirname ${path})" 2>/dev/null || echo gone`), 'gone');
    const asMember = 'setpriv --reuid nobody --regid sysmon --clear-groups sysmon-agent status';
    await eventually('who may look can', async () => /^state +healthy$/m.test(await lab.sh('c1', asMember)));
    await lab.act('stop', 'c1');
  });

  test('the units: verified, as closed as Node allows, on the Node of the package', async () => {
    for (const [host, unit, exposureMax] of [
      ['a1', 'sysmon-agent', 1.5],
      ['s1', 'sysmon-server', 1.3],
    ] as const) {
      assert.equal(
        await lab.sh(host, `systemd-analyze verify ${unit}.service 2>&1 | grep -v 'man .* not' || true`),
        '',
      );
      const out = await lab.sh(host, `systemd-analyze security ${unit} --no-pager`);
      const [, exposure] = /Overall exposure level for \S+: ([0-9.]+)/.exec(out) ?? [];
      assert.ok(Number(exposure) <= exposureMax, `${unit}: ${exposure}`);
      const program = `readlink /proc/$(systemctl show -P MainPID ${unit})/exe`;
      assert.equal(await lab.sh(host, program), `/usr/lib/${unit}/node`);
    }
  });

  test('upgraded and downgraded it keeps options and key, and the program that runs is the one that is installed', async () => {
    await lab.sh('a1', 'echo SYSMON_LABEL=site=north >>/etc/sysmon/agent.env && systemctl restart sysmon-agent');
    const kept = await listing(lab, 'a1', '/etc/sysmon');
    for (const [file, version] of [
      ['later', '0.2.0'],
      ['sysmon-agent', releaseVersion],
    ] as const) {
      const before = await mainPid();
      await lab.sh('a1', `dpkg -i /root/debs/${file}.deb`);
      assert.equal(await lab.sh('a1', 'sysmon-agent --version'), `sysmon-agent ${version}`);
      assert.notEqual(await mainPid(), before);
      await connected('a1');
      assert.match(await lab.sh('a1', 'sysmon-agent status'), new RegExp(`version +${version.replaceAll('.', '\\.')}`));
      assert.equal(await listing(lab, 'a1', '/etc/sysmon'), kept);
    }
  });

  test('options that the new version refuses are said, and the old program runs on', async () => {
    await lab.sh(
      'a1',
      'cp /etc/sysmon/agent.env /root/agent.env; echo SYSMON_SCHEDULE=sometimes >>/etc/sysmon/agent.env',
    );
    const before = await mainPid();
    const out = await lab.sh('a1', 'dpkg -i /root/debs/later.deb 2>&1');
    assert.match(
      out,
      /^sysmon-agent: the options of \/etc\/sysmon\/agent\.env are refused, so sysmon-agent\.service is not started again: .*sometimes/m,
    );
    assert.equal(await mainPid(), before);
    assert.equal(await lab.sh('a1', 'dpkg --status sysmon-agent | grep ^Status:'), 'Status: install ok installed');
    await lab.sh('a1', 'cp /root/agent.env /etc/sysmon/agent.env && dpkg -i /root/debs/sysmon-agent.deb');
    await connected('a1');
  });

  test('what the administrator has stopped and disabled stays so', async () => {
    await lab.sh('a1', 'systemctl -q disable --now sysmon-agent && dpkg -i /root/debs/later.deb');
    assert.equal(
      await lab.sh('a1', 'systemctl is-enabled sysmon-agent; systemctl is-active sysmon-agent || true'),
      'disabled\ninactive',
    );
    await lab.sh('a1', 'systemctl -q enable --now sysmon-agent && dpkg -i /root/debs/sysmon-agent.deb');
    await connected('a1');
  });

  test('removed, it leaves options, key, state and user; installed again it goes on', async () => {
    const kept = await listing(lab, 'a1', '/etc/sysmon');
    await lab.sh('a1', 'dpkg -r sysmon-agent');
    assert.equal(await listing(lab, 'a1', '/etc/sysmon'), kept);
    assert.equal(
      await lab.sh(
        'a1',
        'find /usr /etc/systemd -xdev -name "*sysmon*"; ls -d /var/lib/sysmon-agent; getent passwd sysmon-agent | cut -d: -f1',
      ),
      '/etc/systemd/system/multi-user.target.wants/sysmon-agent.service\n/var/lib/sysmon-agent\nsysmon-agent',
    );
    assert.equal(await lab.sh('a1', 'pgrep -c sysmon-agent || ps -e 2>/dev/null | grep -c sysmon || true'), '0');
    await lab.sh('a1', 'dpkg -i /root/debs/sysmon-agent.deb');
    await connected('a1');
    assert.equal(await listing(lab, 'a1', '/etc/sysmon'), kept);
  });

  test('install.sh and the package each leave alone what is of the other', async () => {
    const kept = await listing(lab, 'a1', '/etc/sysmon');
    for (const [command, words] of [
      [
        'agent',
        /the Debian package sysmon-agent is installed on this host: upgrade that, or run 'apt remove sysmon-agent'/,
      ],
      ['uninstall --purge', /sysmon-agent is a Debian package.*run 'apt purge sysmon-agent' first/],
    ] as const) {
      const { code, err } = await lab.try('a1', `${installer} ${command}`);
      assert.equal(code, 1);
      assert.match(err, words);
    }
    assert.match(
      await lab.sh('a1', `${installer} uninstall`),
      /sysmon-agent is a Debian package: 'apt remove sysmon-agent' removes it/,
    );
    await connected('a1');

    await lab.sh('a1', 'dpkg -r sysmon-agent');
    assert.match(await lab.sh('a1', `${installer} agent`), /^sysmon: agent 'a1' is connected to /m);
    const { code, err } = await lab.try('a1', 'dpkg -i /root/debs/sysmon-agent.deb');
    assert.notEqual(code, 0);
    assert.match(
      err,
      /install\.sh has put sysmon-agent on this host: run '\/usr\/local\/lib\/sysmon\/current\/install\.sh uninstall agent' first/,
    );
    assert.match(
      await lab.sh('a1', 'dpkg -P sysmon-agent'),
      /sysmon-agent: kept options, keys, state and user: install\.sh/,
    );
    assert.equal(await listing(lab, 'a1', '/etc/sysmon'), kept);
    assert.equal(
      await lab.sh('a1', 'systemctl is-enabled sysmon-agent; systemctl is-active sysmon-agent'),
      'enabled\nactive',
    );

    await lab.sh('a1', '/usr/local/lib/sysmon/current/install.sh uninstall && dpkg -i /root/debs/sysmon-agent.deb');
    await connected('a1');
    assert.equal(await listing(lab, 'a1', '/etc/sysmon'), kept);
  });

  test('purged, the host is as it was; with a key that is there before it, the package starts at once', async () => {
    const [key, env] = [
      await lab.sh('a1', 'cat /etc/sysmon/agent.key'),
      await lab.sh('a1', 'cat /etc/sysmon/agent.env'),
    ];
    await lab.sh('a1', 'dpkg -P sysmon-agent');
    await expectAsBooted('a1');

    // As a backup or a configuration management does it.
    await lab.sh('a1', 'mkdir /etc/sysmon && cat >/etc/sysmon/agent.env', `${env}\n`);
    await lab.sh('a1', 'umask 077; cat >/etc/sysmon/agent.key', `${key}\n`);
    await lab.sh('a1', 'dpkg -i /root/debs/sysmon-agent.deb');
    assert.equal(await lab.sh('a1', 'stat -c "%U:%G %a" /etc/sysmon/agent.key'), 'root:sysmon-agent 440');
    assert.equal(await lab.sh('a1', 'cat /etc/sysmon/agent.env'), env);
    await connected('a1');
  });

  test('both on one host: each is purged without the other', async () => {
    await lab.sh('s1', 'dpkg -i /var/tmp/debs/sysmon-agent.deb && dpkg -P sysmon-agent');
    assert.equal(await lab.sh('s1', 'systemctl is-active sysmon-server'), 'active');
    const out = await lab.sh('s1', 'apt-get purge -y sysmon-server 2>&1');
    assert.match(out, /^sysmon-server: removed the fleet key: /m);
    await expectAsBooted('s1');
  });

  /** But for dpkg's and apt's own notes, whose files stay when their contents go, and the lab's list of hosts. */
  async function hostListing(host: string): Promise<readonly string[]> {
    const lines = (await listing(lab, host)).split('\n');
    return lines.filter((line) => !/(^| {2})\.\/(var\/(lib|cache)\/(dpkg|apt)\b|etc\/hosts)/.test(line));
  }

  async function expectAsBooted(host: string): Promise<void> {
    const [before, now] = [asBooted.get(host)!, await hostListing(host)];
    const not = (lines: readonly string[]) => (line: string) => !lines.includes(line);
    assert.deepEqual({ gone: before.filter(not(now)), left: now.filter(not(before)) }, { gone: [], left: [] });
  }

  const mainPid = () => lab.sh('a1', 'systemctl show -P MainPID sysmon-agent');

  async function connected(host: string): Promise<void> {
    await eventually('the agent is connected', async () => {
      const status = await lab.try(host, 'sysmon-agent status --json');
      return status.code === 0 && (JSON.parse(status.out) as { link: { state: string } }).link.state === 'connected';
    });
  }
});
