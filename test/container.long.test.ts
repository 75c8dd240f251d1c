import assert from 'node:assert/strict';
import { chownSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { makeRelease } from './lab/release.ts';
import { Containers, noContainers } from './support/containers.ts';
import { skipHere } from './support/installed.ts';
import { bundleOf, eventually, freePort, Program, temporaryFolder } from './support/programs.ts';

// The Containerfile, built of the release archive and run as compose.yaml runs it: read-only, without rights.

test('the image is built, runs, enrols an agent and gives its samples', async (context) => {
  const reason = noContainers();
  if (reason !== undefined) return skipHere(context, reason);
  const folder = temporaryFolder(context);
  const archives = join(folder, 'archives');
  mkdirSync(archives);
  makeRelease(archives, [process.arch, '--no-sbom']);
  const containers = new Containers(join(folder, 'containers'));
  context.after(() => containers.close());
  containers.build('sysmon-server', archives);

  const keys = join(folder, 'keys');
  const keyFile = join(keys, 'fleet.key');
  mkdirSync(keys, { mode: 0o700 });
  writeFileSync(keyFile, `${'5a'.repeat(32)}\n`, { mode: 0o400 });
  for (const path of [keys, keyFile]) chownSync(path, 9732, 9732);
  const [port, webPort] = [await freePort(), await freePort()];
  containers.podman(
    ...['run', '--detach', '--name=server', ...Containers.runOptions],
    ...['--read-only', '--cap-drop=all', '--security-opt=no-new-privileges', `--volume=${keys}:/etc/sysmon`],
    ...[`--env=SYSMON_LISTEN=127.0.0.1:${port}`, `--env=SYSMON_WEB_LISTEN_ADDRESS=127.0.0.1:${webPort}`],
    ...[`--env=SYSMON_ADVERTISE=127.0.0.1:${port}`, 'sysmon-server'],
  );
  await eventually(20_000, async () => assert.ok((await fetch(`http://127.0.0.1:${webPort}/-/ready`)).ok));

  const line = containers.podman('exec', 'server', 'sysmon-server', 'enroll', 'web-1');
  const [, identity, key] = /^sysmon-join-v1 \S+ (\S+) ([0-9a-f]{64})$/m.exec(line)!;
  assert.deepEqual(JSON.parse(readFileSync(join(keys, 'revoked.json'), 'utf8')), { version: 1, revoked: {} });
  const agentKey = join(folder, 'agent.key');
  writeFileSync(agentKey, `sysmon-key-v1 ${identity} ${key}\n`, { mode: 0o400 });
  const agent = new Program('agent', process.execPath, [
    ...[bundleOf('agent'), 'run', '--config.file=/dev/null', `--key-file=${agentKey}`, `--server=127.0.0.1:${port}`],
    `--control-socket=${join(folder, 'agent.sock')}`,
  ]);
  context.after(() => agent.kill('SIGTERM'));
  await eventually(20_000, async () => {
    const text = await (await fetch(`http://127.0.0.1:${webPort}/metrics`)).text();
    assert.match(text, /^sysmon_agent_up\{agent="web-1"\} 1$/m);
    assert.match(text, /^node_load1\{agent="web-1"\} /m);
  });
  assert.match(containers.podman('exec', 'server', 'sysmon-server', 'status'), /1 of 1 up, 1 connected/);

  containers.podman('stop', '--time=8', 'server');
  assert.match(containers.podman('logs', 'server'), /sysmon-server: stopped; 1 connection of agents ended/);
  assert.equal(containers.podman('inspect', '--format={{.State.ExitCode}}', 'server').trim(), '0');
});
