// A third of npm run screenshots: the image is built and run, into docs/screenshots/. As root, with podman, runc and mmdebstrap
// (Debian), of which the base of the image is made; some 2 min.
import { chownSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { compile } from '../compile.mjs';
import { fail, root, run } from '../lib.mjs';
import { setup } from '../setup.mjs';
import { save } from './transcript.mjs';

setup();
await compile();
const { Containers, noContainers } = await import(join(root, 'build/test/support/containers.js'));
const reason = noContainers();
if (reason !== undefined) fail(reason);

const folder = mkdtempSync(join(tmpdir(), 'sysmon-screenshots-'));
const containers = new Containers(join(folder, 'containers'));
try {
  const archives = join(folder, 'release');
  run(process.execPath, [join(root, 'scripts/package.mjs'), process.arch, `--out=${archives}`, '--no-sbom']);
  containers.build('sysmon-server', archives);
  const keys = join(folder, 'sysmon');
  mkdirSync(keys, { mode: 0o700 });
  writeFileSync(join(keys, 'fleet.key'), `${'5a'.repeat(32)}\n`, { mode: 0o400 });
  for (const path of [keys, join(keys, 'fleet.key')]) chownSync(path, 9732, 9732);
  const [, ...limits] = Containers.runOptions;
  const safe = ['--read-only', '--cap-drop=all', '--security-opt=no-new-privileges'];
  containers.podman(
    'run',
    '--detach',
    '--name=server',
    '--network=none',
    ...limits,
    ...safe,
    `--volume=${keys}:/etc/sysmon`,
    'sysmon-server',
  );
  await sleep(5000);
  save('container', [
    typed('images', '--format={{.Repository}} {{.Size}}', '--filter=reference=sysmon-server'),
    typed('ps', '--format={{.Names}}: {{.Image}} {{.Command}}, {{.Status}}'),
    typed('exec', 'server', 'sysmon-server', 'status'),
    typed('logs', 'server'),
    typed('stop', 'server'),
    typed('logs', '--tail=3', 'server'),
  ]);
  console.log('docs/screenshots/ is written: look at each file, then npm run report');
} finally {
  containers.close();
  rmSync(folder, { recursive: true, force: true });
}

/** A command of podman and what it prints. */
function typed(...args) {
  const words = args.map((word) => (/[ {]/.test(word) ? `'${word}'` : word));
  return `$ podman ${words.join(' ')}\n${containers.podman(...args)}`;
}
