import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { parse } from 'yaml';
import { rootFile } from './support/files.ts';
import { skipHere } from './support/installed.ts';

test('the play for Ansible: two plays, keys are not logged; Ansible accepts it', (context) => {
  const file = rootFile('examples/ansible/sysmon.yml');
  const plays = parse(readFileSync(file, 'utf8')) as { hosts: string; tasks: Record<string, unknown>[] }[];
  assert.deepEqual(
    plays.map(({ hosts }) => hosts),
    ['sysmon_server:sysmon_agents', 'sysmon_agents'],
  );
  for (const task of plays[1]!.tasks) assert.equal(task.no_log, true, String(task.name));
  const args = ['--syntax-check', '-i', 'sysmon_server,sysmon_agents,', '-e', 'release=release version=0.1.0', file];
  const { error, status, stderr } = spawnSync('ansible-playbook', args, { encoding: 'utf8' });
  if (error !== undefined) return skipHere(context, 'ansible-playbook is missing: apt-get install ansible-core');
  assert.equal(status, 0, stderr);
});

test("cloud-init's file: the join line is for root alone, and its shell is valid", () => {
  const text = readFileSync(rootFile('examples/cloud-init/agent.yml'), 'utf8');
  assert.match(text, /^#cloud-config\n/);
  const config = parse(text) as { write_files: { permissions: string; content: string }[]; runcmd: string[][] };
  assert.equal(config.write_files[0]!.permissions, '0600');
  // There the programs have their sockets, and the last command removes the folder.
  assert.doesNotMatch(text, /\/run\/sysmon(?!-join)/);
  assert.match(config.write_files[0]!.content, /^sysmon-join-v1 (\S+ ){2}\S+\n$/);
  const [shell, flags, script] = config.runcmd[0]!;
  assert.equal(`${shell} ${flags}`, 'sh -ec');
  const { status, stderr } = spawnSync('sh', ['-n', '-c', script!], { encoding: 'utf8' });
  assert.equal(status, 0, stderr);
});
