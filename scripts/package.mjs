// npm run package: what is handed out, in release/, with SHA256SUMS and an SBOM. The same sources give the same bytes.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { bundle } from './compile.mjs';
import { makeArchivesDeb, makeDeb } from './deb.mjs';
import { installedDocuments } from './installed-docs.mjs';
import { fail, filesIn, isMain, root, run, setModes } from './lib.mjs';
import { addRuntime, architectures } from './runtime.mjs';
import { sbomText } from './sbom.mjs';
import { setup } from './setup.mjs';

const usage = `Usage: npm run package -- [--deb] [--sign KEYFILE] [--out FOLDER] [--no-sbom] [${architectures.join('] [')}]

Makes sysmon-VERSION-linux-ARCH.tar.gz, for hosts with neither Node.js nor npm nor a network, for the architectures that are
named (all without one); sysmon-VERSION.cdx.json, which lists what is bundled (CycloneDX); and SHA256SUMS of all of them.

  --deb            also the Debian packages sysmon-agent and sysmon-server and, with all architectures, sysmon-agent-archives:
                   what the server hands out to hosts (needs dpkg-deb)
  --sign KEYFILE   sign SHA256SUMS, and the list of files in each archive, with minisign's secret key
  --out FOLDER     where to put them, release/ by default
  --no-sbom        without the list of what is bundled, for which npm is asked

Times in the files are of the last commit, or SOURCE_DATE_EPOCH.
`;

const files = [
  'install.sh',
  'LICENSE',
  ...installedDocuments(),
  'examples',
  'prometheus',
  'systemd',
  'dist/sysmon-agent.cjs',
  'dist/sysmon-server.cjs',
  'dist/THIRD-PARTY.txt',
  'dist/doc',
];

async function makeReleases({ wanted, out, deb, key, sbom }) {
  setup();
  const bundled = await bundle();
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  const release = { version, seconds: sourceDate(), out };
  mkdirSync(out, { recursive: true });
  const folders = wanted.map((architecture) => makeFolder(release, architecture));
  if (key !== undefined)
    sign(
      release,
      key,
      folders.map((folder) => join(out, folder, 'SHA256SUMS')),
    );
  const made = folders.map((folder) => archive(release, folder));
  if (deb) made.push(...debs(release, wanted, made));
  if (sbom) {
    made.push(`sysmon-${version}.cdx.json`);
    writeFileSync(join(out, made.at(-1)), sbomText(release, bundled));
  }
  const sums = sumsOf(out, made);
  writeFileSync(join(out, 'SHA256SUMS'), sums);
  rmSync(join(out, 'SHA256SUMS.minisig'), { force: true });
  if (key !== undefined) sign(release, key, [join(out, 'SHA256SUMS')]);
  process.stdout.write(sums);
}

/** A package that is for all architectures is the same each time, so it has all archives or is not made. */
function debs(release, wanted, archives) {
  const programs = wanted.flatMap((architecture) =>
    ['agent', 'server'].map((role) => makeDeb(release, architecture, role)),
  );
  const hasAll = architectures.every((architecture) => wanted.includes(architecture));
  return hasAll ? [...programs, makeArchivesDeb(release, archives)] : programs;
}

/** The archive's folder, with a list of its files. */
function makeFolder({ version, out }, architecture) {
  const name = `sysmon-${version}-linux-${architecture}`;
  const folder = join(out, name);
  for (const old of [folder, `${folder}.tar`, `${folder}.tar.gz`]) rmSync(old, { recursive: true, force: true });
  for (const file of files) cpSync(join(root, file), join(folder, file), { recursive: true });
  writeFileSync(join(folder, 'VERSION'), `${version}\n`);
  mkdirSync(join(folder, 'runtime'));
  addRuntime(architecture, join(folder, 'runtime'));
  writeFileSync(join(folder, 'SHA256SUMS'), sumsOf(folder, filesIn(folder)));
  return name;
}

/** Names in order, one time, one owner, and a gzip header without a time. */
function archive({ seconds, out }, folder) {
  setModes(join(out, folder), /^(install\.sh|dist\/sysmon-(agent|server)\.cjs|runtime\/node)$/);
  const tar = join(out, `${folder}.tar`);
  const same = ['--sort=name', `--mtime=@${seconds}`, '--owner=0', '--group=0', '--numeric-owner', '--format=ustar'];
  run('tar', [...same, '-C', out, '-cf', tar, folder]);
  run('gzip', ['-n', '-6', tar]);
  rmSync(join(out, folder), { recursive: true });
  return `${folder}.tar.gz`;
}

/** FILE.minisig beside each. A comment without a time, so that it too has the same bytes. Asks for the key's password, if it has one. */
function sign({ version }, key, paths) {
  run('minisign', ['-S', '-s', key, '-t', `sysmon ${version}`, '-c', `signature of sysmon ${version}`, '-m', ...paths]);
}

/** As sha256sum writes it. */
function sumsOf(folder, names) {
  const lines = names.map((name) => {
    return `${createHash('sha256')
      .update(readFileSync(join(folder, name)))
      .digest('hex')}  ${name}\n`;
  });
  return lines.join('');
}

/** Of the last commit, unless it is set: https://reproducible-builds.org/docs/source-date-epoch/ */
function sourceDate() {
  const given = process.env.SOURCE_DATE_EPOCH;
  if (given !== undefined) {
    if (!/^\d+$/.test(given)) fail(`SOURCE_DATE_EPOCH is '${given}': expected seconds since 1970`);
    return Number(given);
  }
  const commit = spawnSync('git', ['log', '-1', '--format=%ct'], { cwd: root, encoding: 'utf8' });
  return commit.status === 0 ? Number(commit.stdout.trim()) : 0;
}

function readArguments() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        deb: { type: 'boolean', default: false },
        sign: { type: 'string' },
        out: { type: 'string', default: join(root, 'release') },
        'no-sbom': { type: 'boolean', default: false },
        help: { type: 'boolean', short: 'h', default: false },
      },
    });
  } catch (error) {
    return fail(`${error.message.split('. ')[0]}: see --help`);
  }
}

function needs(program, args, why) {
  const { stdout, error } = spawnSync(program, args, { encoding: 'utf8' });
  if (error !== undefined)
    fail(`'${program}' is missing, ${why}: apt-get install ${program === 'dpkg-deb' ? 'dpkg' : program}`);
  return stdout;
}

if (isMain(import.meta)) {
  const { values, positionals } = readArguments();
  if (values.help) {
    process.stdout.write(usage);
  } else {
    const unknown = positionals.find((name) => !architectures.includes(name));
    if (unknown !== undefined) fail(`unknown architecture '${unknown}': expected ${architectures.join(' or ')}`);
    if (!needs('tar', ['--version'], 'which makes archives').includes('GNU tar')) {
      fail('GNU tar is needed: its options make the same bytes each time');
    }
    if (values.deb) needs('dpkg-deb', ['--version'], 'which makes the packages of --deb');
    if (values.sign !== undefined) needs('minisign', ['-v'], 'which signs with the key of --sign');
    await makeReleases({
      wanted: positionals.length > 0 ? positionals : architectures,
      out: resolve(values.out),
      deb: values.deb,
      key: values.sign === undefined ? undefined : resolve(values.sign),
      sbom: !values['no-sbom'],
    });
  }
}
