// A third of npm run screenshots: two hosts with systemd that are booted, and installed as a person does it, into docs/screenshots/. As
// root, with what test/lab/host needs; some 3 min.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { root, run } from '../lib.mjs';
import { save, version } from './transcript.mjs';

const folder = mkdtempSync(join(tmpdir(), 'sysmon-screenshots-'));
const release = `sysmon-${version}-linux-${process.arch}`;

try {
  run(process.execPath, [join(root, 'scripts/package.mjs'), process.arch, `--out=${folder}`, '--no-sbom']);
  lab('start', 's1', 'web-1');
  for (const host of ['s1', 'web-1']) lab('cp', host, join(folder, `${release}.tar.gz`), `/root/${release}.tar.gz`);
  save('install-server', [
    typed('s1', `tar xzf ${release}.tar.gz && ${release}/install.sh server`),
    typed('s1', 'umask 077; sysmon-server enroll web-1 >web-1.join'),
  ]);
  // What scp does.
  writeFileSync(join(folder, 'join'), lab('exec', 's1', '--', 'cat', '/root/web-1.join'), { mode: 0o600 });
  lab('cp', 'web-1', join(folder, 'join'), '/root/web-1.join');
  save('install-agent', [
    typed('web-1', `tar xzf ${release}.tar.gz && ${release}/install.sh agent --join-file web-1.join`),
    typed('web-1', 'rm web-1.join'),
  ]);
  // Two reports.
  await sleep(12_000);
  save('journal', [
    typed('web-1', 'systemctl status sysmon-agent --no-pager --lines 0'),
    typed('web-1', 'journalctl -u sysmon-agent -o short-iso --no-hostname --no-pager'),
    typed('s1', 'journalctl -u sysmon-server -o short-iso --no-hostname --no-pager'),
    typed('s1', 'sysmon-server agents'),
  ]);
  console.log('docs/screenshots/ is written: look at each file, then npm run report');
} finally {
  spawnSync(join(root, 'test/lab/host'), ['down'], { env: inLab() });
  rmSync(folder, { recursive: true, force: true });
}

function inLab() {
  return { ...process.env, LAB: join(folder, 'lab') };
}

function lab(...args) {
  const { status, stdout, stderr } = spawnSync(join(root, 'test/lab/host'), args, { encoding: 'utf8', env: inLab() });
  if (status !== 0) throw new Error(`host ${args.join(' ')}: ${stderr}${stdout}`);
  return stdout;
}

/** A line of shell and what it prints, as a terminal shows it. */
function typed(host, command) {
  return `root@${host}:~# ${command}\n${lab('exec', host, '--', 'sh', '-c', `cd /root && { ${command}; } 2>&1`)}`;
}
