// npm run package [-- x64 arm64 --out=FOLDER]: release/sysmon-VERSION-linux-ARCH.tar.gz for hosts with neither Node.js nor npm nor a
// network, and release/SHA256SUMS. The same sources give the same bytes.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmodSync, cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { bundle } from './compile.mjs';
import { fail, isMain, root, run } from './lib.mjs';
import { setup } from './setup.mjs';

// The LTS that a release brings, as npm's packages carry it; a newer one is a new version and new hashes here.
const runtime = {
  version: '24.21.0',
  integrity: {
    x64: 'sha512-3nULszZ5X0fciYpG0t6TrdApJzAn8+FlINP6OiMX7V8HrvpATPN936U1LlReOJriLRa4e8yEqQBYCnLyPNAs7Q==',
    arm64: 'sha512-FpJRPEz2OvvTLfjIOlNGFY9JLPMKgl5m+d4oGYBLg24kJ1mmvN1Zl/HPJgF4HDaJ51ISev1l1cRZ/DM+keXW5g==',
  },
};

const files = [
  'install.sh',
  'LICENSE',
  'README.md',
  'CHANGELOG.md',
  'SECURITY.md',
  'docs/operating.md',
  'docs/scrapers.md',
  'prometheus',
  'systemd',
  'dist/sysmon-agent.cjs',
  'dist/sysmon-server.cjs',
  'dist/THIRD-PARTY.txt',
];

const cache = join(root, 'var/cache');

async function makeReleases(architectures, out) {
  setup();
  await bundle();
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  mkdirSync(out, { recursive: true });
  const sums = architectures.map((architecture) => {
    const file = makeRelease(version, architecture, out);
    return `${sha(join(out, file), 'sha256', 'hex')}  ${file}\n`;
  });
  writeFileSync(join(out, 'SHA256SUMS'), sums.join(''));
  process.stdout.write(sums.join(''));
}

function makeRelease(version, architecture, out) {
  const name = `sysmon-${version}-linux-${architecture}`;
  const folder = join(out, name);
  for (const old of [folder, `${folder}.tar`, `${folder}.tar.gz`]) rmSync(old, { recursive: true, force: true });
  for (const file of files) cpSync(join(root, file), join(folder, file), { recursive: true });
  writeFileSync(join(folder, 'VERSION'), `${version}\n`);
  addRuntime(architecture, join(folder, 'runtime'));
  setModes(folder);
  archive(name, out);
  rmSync(folder, { recursive: true });
  return `${name}.tar.gz`;
}

/** The program and its licence, out of npm's package; what is in the cache is verified each time. */
function addRuntime(architecture, folder) {
  const name = `node-linux-${architecture}`;
  const file = join(cache, `${name}-${runtime.version}.tgz`);
  if (!existsSync(file)) {
    mkdirSync(cache, { recursive: true });
    run('npm', ['pack', '--silent', '--pack-destination', cache, `${name}@${runtime.version}`], {
      stdio: ['ignore', 'ignore', 'inherit'],
    });
  }
  const wanted = runtime.integrity[architecture];
  const found = `sha512-${sha(file, 'sha512', 'base64')}`;
  if (found !== wanted) {
    rmSync(file);
    fail(
      `'${name}@${runtime.version}' is not what it was: its integrity is ${found}, expected ${wanted}; it was removed`,
    );
  }
  mkdirSync(folder);
  run('tar', ['-xzf', file, '-C', folder, '--strip-components=1', 'package/LICENSE']);
  run('tar', ['-xzf', file, '-C', folder, '--strip-components=2', 'package/bin/node']);
}

// Whatever the umask and the modes in this clone are.
function setModes(folder) {
  chmodSync(folder, 0o755);
  const programs = /^(install\.sh|sysmon-(agent|server)\.cjs|node)$/;
  for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
    const isProgram = entry.isDirectory() || programs.test(entry.name);
    chmodSync(join(entry.parentPath ?? entry.path, entry.name), isProgram ? 0o755 : 0o644);
  }
}

/** Names in order, one time, one owner, and a gzip header without a time. */
function archive(name, out) {
  const order = [
    '--sort=name',
    `--mtime=@${sourceDate()}`,
    '--owner=0',
    '--group=0',
    '--numeric-owner',
    '--format=ustar',
  ];
  const tar = join(out, `${name}.tar`);
  run('tar', [...order, '-C', out, '-cf', tar, name]);
  run('gzip', ['-n', '-6', tar]);
}

/** Of the last commit, unless it is set: https://reproducible-builds.org/docs/source-date-epoch/ */
function sourceDate() {
  const given = process.env.SOURCE_DATE_EPOCH;
  if (given !== undefined) {
    if (!/^\d+$/.test(given)) fail(`SOURCE_DATE_EPOCH is '${given}': expected seconds since 1970`);
    return given;
  }
  const commit = spawnSync('git', ['log', '-1', '--format=%ct'], { cwd: root, encoding: 'utf8' });
  return commit.status === 0 ? commit.stdout.trim() : '0';
}

function sha(file, algorithm, encoding) {
  return createHash(algorithm).update(readFileSync(file)).digest(encoding);
}

if (isMain(import.meta)) {
  const known = Object.keys(runtime.integrity);
  const given = process.argv.slice(2);
  const folder = given.find((argument) => argument.startsWith('--out='))?.slice('--out='.length);
  const wanted = given.filter((argument) => !argument.startsWith('--out='));
  const unknown = wanted.find((name) => !known.includes(name));
  if (unknown !== undefined) fail(`unknown architecture '${unknown}': expected ${known.join(' or ')}`);
  const { stdout } = spawnSync('tar', ['--version'], { encoding: 'utf8' });
  if (!stdout?.includes('GNU tar')) fail('GNU tar is needed: its options make the same bytes each time');
  await makeReleases(wanted.length > 0 ? wanted : known, folder ? resolve(folder) : join(root, 'release'));
}
