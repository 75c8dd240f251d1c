// Debian packages of both programs, and of the archives for other hosts, by dpkg-deb alone: https://www.debian.org/doc/debian-policy/

import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { installedTexts } from './installed-docs.mjs';
import { fail, filesIn, root, run, setModes } from './lib.mjs';
import { manPage } from './man-page.mjs';
import { addRuntime, runtime } from './runtime.mjs';

const debianArchitectures = { x64: 'amd64', arm64: 'arm64' };

// The project has no address for mail; SECURITY.md says how to report.
const maintainer = 'sysmon maintainers <maintainers@sysmon.invalid>';

const archivesName = 'sysmon-agent-archives';

// What differs between the two. An option that is set here is one that install.sh sets too.
const roles = {
  agent: {
    summary: 'metrics of this host for a Prometheus that cannot reach it',
    description: [
      'sysmon-agent reads /proc and /sys as node_exporter does, and sends the',
      'samples over one TLS connection, which it opens, to a sysmon-server that',
      'Prometheus scrapes. What cannot be sent is kept, and arrives later with its',
      'own timestamps.',
      '',
      "A host joins with 'sysmon-agent join' and the line that 'sysmon-server enroll'",
      'prints on the server.',
    ],
    options: { SYSMON_SPOOL_DIR: '/var/lib/sysmon-agent', SYSMON_KEY_FILE: '/etc/sysmon/agent.key' },
    files: [
      ['/etc/sysmon/agent.env', 'the options'],
      ['/etc/sysmon/agent.key', 'the key with which this host has joined'],
      ['/var/lib/sysmon-agent', 'reports that the server has not acknowledged'],
    ],
  },
  server: {
    summary: 'metrics of hosts behind NAT and firewalls, for Prometheus',
    description: [
      'sysmon-server receives the reports of sysmon agents, which open the',
      'connections, and hands each of them to every Prometheus that scrapes it, with',
      "the agents' timestamps. After an outage the next scrapes deliver the backlog.",
    ],
    recommends: archivesName,
    options: { SYSMON_STATE_DIR: '/var/lib/sysmon-server', SYSMON_FLEET_KEY_FILE: '/etc/sysmon/fleet.key' },
    files: [
      ['/etc/sysmon/server.env', 'the options'],
      ['/etc/sysmon/fleet.key', "the key from which agents' keys are derived: keep a copy in a safe place"],
      ['/var/lib/sysmon-server', 'how far each Prometheus has read'],
    ],
  },
};

/** Makes the package of one program; the name of its file in `out`. */
export function makeDeb({ version, seconds, out }, architecture, role) {
  const name = `sysmon-${role}`;
  const debianVersion = debianVersionOf(version);
  const deb = { name, debianVersion, architecture: debianArchitectures[architecture], seconds, out };
  const { recommends, summary, description } = roles[role];
  return build(deb, {
    // Level 1: a sixth more bytes than level 6, in a quarter of the time.
    compression: ['-Zxz', '-z1'],
    control: {
      Depends: `${runtime.debianDepends}, systemd (>= 249)`,
      ...(recommends === undefined ? {} : { Recommends: `${recommends} (= ${debianVersion})` }),
    },
    summary,
    description,
    fill: (tree) => {
      addProgram(tree, { name, architecture });
      addUnit(tree, { name, role });
      addDocumentation(tree, { name, role, version, debianVersion, seconds });
      tree.text(`usr/share/lintian/overrides/${name}`, overridesOf(name));
      for (const script of scripts) tree.copy(`deb/${script}`, `DEBIAN/${script}`);
    },
  });
}

/** Makes the package of the archives, which the server's hands out to hosts; `archives` are their names in `out`. */
export function makeArchivesDeb({ version, seconds, out }, archives) {
  const debianVersion = debianVersionOf(version);
  const deb = { name: archivesName, debianVersion, architecture: 'all', seconds, out };
  return build(deb, {
    // What is in it is compressed.
    compression: ['-Zgzip', '-z1'],
    control: { Enhances: 'sysmon-server' },
    summary: 'releases of sysmon that a sysmon-server hands out to hosts',
    description: [
      'The archives of this release for x86-64 and ARM64. A host that has nothing',
      "fetches one from the server's HTTP port, with the command that 'sysmon-server",
      "enroll' prints, and joins.",
    ],
    fill: (tree) => {
      for (const archive of archives)
        cpSync(join(out, archive), tree.place(`usr/lib/sysmon-server/install/${archive}`));
      const doc = `usr/share/doc/${archivesName}`;
      tree.compressed(`${doc}/changelog`, changelogText({ name: archivesName, debianVersion, seconds }));
      tree.compressed(`${doc}/NEWS`, readFileSync(join(root, 'CHANGELOG.md'), 'utf8'));
      tree.text(`${doc}/copyright`, copyrightText(nodeLicenceIn(join(out, archives[0]))));
      tree.text(`usr/share/lintian/overrides/${archivesName}`, licenceOverridesOf(archivesName));
    },
  });
}

/** A tilde sorts before the release that it leads to. */
function debianVersionOf(version) {
  return version.replace('-', '~');
}

/** Makes a package of what `fill` puts into its tree; the name of its file in `out`. */
function build(
  { name, debianVersion, architecture, seconds, out },
  { compression, control, summary, description, fill },
) {
  const file = `${name}_${debianVersion}_${architecture}.deb`;
  const folder = join(out, `.${file}`);
  rmSync(folder, { recursive: true, force: true });
  const tree = treeAt(folder);
  fill(tree);
  const installed = filesIn(folder).filter((path) => !path.startsWith('DEBIAN/'));
  const fields = { Package: name, Version: debianVersion, Architecture: architecture, Maintainer: maintainer };
  const size = { 'Installed-Size': kibibytesOf(installed.map((path) => join(folder, path))) };
  tree.text(
    'DEBIAN/control',
    controlText({ ...fields, ...size, ...control, Section: 'net', Priority: 'optional' }, { summary, description }),
  );
  tree.text('DEBIAN/md5sums', installed.map((path) => `${md5(join(folder, path))}  ${path}\n`).join(''));
  setModes(folder, /^(DEBIAN\/(pre|post)(inst|rm)|usr\/bin\/[^/]+|usr\/lib\/[^/]+\/node)$/);
  run('dpkg-deb', ['--root-owner-group', ...compression, '--build', folder, join(out, file)], {
    stdio: ['ignore', 'ignore', 'inherit'],
    env: { ...process.env, SOURCE_DATE_EPOCH: String(seconds) },
  });
  rmSync(folder, { recursive: true });
  return file;
}

const scripts = ['preinst', 'postinst', 'prerm', 'postrm'];

function treeAt(folder) {
  const place = (path) => {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    return join(folder, path);
  };
  return {
    place,
    text: (path, text) => writeFileSync(place(path), text),
    copy: (from, path) => cpSync(join(root, from), place(path), { recursive: true }),
    compressed: (path, text) => {
      writeFileSync(place(path), text);
      run('gzip', ['-9n', join(folder, path)]);
    },
  };
}

function addProgram(tree, { name, architecture }) {
  const lib = `usr/lib/${name}`;
  addRuntime(architecture, dirname(tree.place(`${lib}/node`)));
  tree.text(`usr/bin/${name}`, `#!/bin/sh\nexec /${lib}/node /${lib}/${name}.cjs "$@"\n`);
  const program = readFileSync(join(root, `dist/${name}.cjs`), 'utf8');
  tree.text(`${lib}/${name}.cjs`, edited(program, '#!/usr/bin/env node', `// Run by /usr/bin/${name}.`));
}

function addUnit(tree, { name, role }) {
  let unit = readFileSync(join(root, `systemd/${name}.service`), 'utf8');
  // With a Node.js of its own, which is always there.
  unit = edited(unit, '/bin/sh /usr/local/lib/sysmon/current/start ', `/usr/lib/${name}/node `);
  unit = edited(
    unit,
    "# A shell that becomes Node, or ends with 2 and a line where the system's Node.js has been removed.\n",
    '',
  );
  unit = edited(unit, '/usr/local/lib/sysmon/current/', `/usr/lib/${name}/`);
  unit = edited(unit, '/usr/local/share/doc/sysmon/', `/usr/share/doc/${name}/`);
  tree.text(`usr/lib/systemd/system/${name}.service`, unit);
  if (role === 'agent') tree.copy('deb/joined.conf', `usr/lib/systemd/system/${name}.service.d/joined.conf`);
  tree.copy(`systemd/${name}.conf`, `usr/lib/sysusers.d/${name}.conf`);
  let options = readFileSync(join(root, `systemd/${role}.env`), 'utf8');
  for (const [variable, value] of Object.entries(roles[role].options)) {
    options = edited(options, `#${variable}=\n`, `${variable}=${value}\n`);
  }
  tree.text(`usr/share/${name}/${role}.env`, options);
}

function addDocumentation(tree, { name, role, version, debianVersion, seconds }) {
  const doc = `usr/share/doc/${name}`;
  // NEWS.gz is the changelog.
  const source = role === 'server' ? 'prometheus' : 'examples';
  const placeOf = (file) => (file.startsWith(`${source}/`) ? file.replace(source, 'examples') : undefined);
  for (const { name: file, text } of installedTexts(placeOf)) {
    if (file !== 'CHANGELOG.md') tree.text(`${doc}/${file}`, text.replaceAll('](CHANGELOG.md)', '](NEWS.gz)'));
  }
  tree.copy(source, `${doc}/examples`);
  if (role === 'server') {
    const alerts = readFileSync(join(root, 'prometheus/rules/alerts.yml'), 'utf8');
    tree.text(
      `${doc}/examples/rules/alerts.yml`,
      edited(alerts, '/usr/local/share/doc/sysmon/', `/usr/share/doc/${name}/`),
    );
  }
  tree.compressed(`${doc}/changelog`, changelogText({ name, debianVersion, seconds }));
  tree.compressed(`${doc}/NEWS`, readFileSync(join(root, 'CHANGELOG.md'), 'utf8'));
  // With the program, which addRuntime puts beside its licence.
  const licence = tree.place(`usr/lib/${name}/LICENSE`);
  tree.text(`${doc}/copyright`, copyrightText(readFileSync(licence, 'utf8')));
  rmSync(licence);
  tree.compressed(
    `usr/share/man/man1/${name}.1`,
    manPage({
      name,
      version,
      seconds,
      help: helpOf(name),
      files: roles[role].files,
      seeAlso: [`/usr/share/doc/${name}/operating.md`, 'systemctl(1)', 'journalctl(1)'],
    }),
  );
}

function helpOf(name) {
  const { stdout, stderr, status } = spawnSync(process.execPath, [join(root, `dist/${name}.cjs`), '--help'], {
    encoding: 'utf8',
  });
  if (status !== 0) fail(`'${name} --help' failed: ${stderr}`);
  return stdout;
}

function kibibytesOf(paths) {
  return Math.ceil(paths.reduce((sum, path) => sum + Math.ceil(statSync(path).size / 4096) * 4096, 0) / 1024);
}

function controlText(fields, { summary, description }) {
  const lines = Object.entries({ ...fields, Description: summary }).map(([field, value]) => `${field}: ${value}\n`);
  return lines.join('') + description.map((line) => ` ${line === '' ? '.' : line}\n`).join('');
}

function changelogText({ name, debianVersion, seconds }) {
  const date = new Date(seconds * 1000).toUTCString().replace('GMT', '+0000');
  return `${name} (${debianVersion}) unstable; urgency=medium

  * What has changed is in NEWS.gz beside this file.

 -- ${maintainer}  ${date}
`;
}

function copyrightText(nodeLicence) {
  const thirdParty = readFileSync(join(root, 'dist/THIRD-PARTY.txt'), 'utf8');
  const rule = '='.repeat(78);
  return `sysmon is Copyright the sysmon maintainers, and under the Apache License, Version 2.0, which is in
/usr/share/common-licenses/Apache-2.0.

${rule}
Packages that are bundled with the program:

${thirdParty.trimEnd()}

${rule}
Node.js ${runtime.version}, which the program runs on, in /usr/lib:

${nodeLicence}`;
}

function nodeLicenceIn(archive) {
  const { stdout, status } = spawnSync('tar', ['-xzOf', archive, '--wildcards', '*/runtime/LICENSE'], {
    encoding: 'utf8',
  });
  if (status !== 0) fail(`'${archive}' has no licence of Node.js`);
  return stdout;
}

/** The overrides of both programs' packages, with the reason of each above it. */
function overridesOf(name) {
  return readFileSync(join(root, 'deb/lintian-overrides'), 'utf8').replaceAll('PACKAGE', name);
}

/** The first of them, which are of any package with the copyright of what is bundled. */
function licenceOverridesOf(name) {
  return overridesOf(name).split(/^(?=#)/m)[0];
}

/** A text in which something is replaced that must be there. */
function edited(text, from, to) {
  if (!text.includes(from)) fail(`a package needs '${from.trim()}' to replace, which is no longer there`);
  return text.replaceAll(from, to);
}

function md5(path) {
  return createHash('md5').update(readFileSync(path)).digest('hex');
}
