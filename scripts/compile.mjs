// src/ → build/ (what the tests run, file by file) and dist/ (one file per program, which needs no node_modules).
import { chmodSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { installedTexts } from './installed-docs.mjs';
import { filesBelow, nodeMin, root, run, tool } from './lib.mjs';

const programs = ['agent', 'server'];

/** Type check and emit; tsc itself skips what is up to date. */
export async function compile() {
  run(tool('tsc'), ['-b']);
  removeStale();
  const { text } = await assets();
  writeIfChanged('build/src/server/web/page/assets.json', JSON.stringify(text), 0o644);
}

/** What the server's pages load, by name; and the packages inside it. */
async function assets() {
  const esbuild = await import('esbuild'); // not at the top: setup() may still have to install it
  const { outputFiles, metafile } = await esbuild.build({
    absWorkingDir: root,
    entryPoints: ['fleet', 'agent', 'scrapers'].map((page) => `src/server/web/page/browser/${page}.ts`),
    bundle: true,
    write: false,
    metafile: true,
    minify: true,
    format: 'iife',
    target: 'es2022',
    outdir: 'assets',
    logLevel: 'warning',
  });
  await esbuild.stop();
  const text = Object.fromEntries(outputFiles.map(({ path, text }) => [basename(path), text]));
  text['uPlot.css'] = readFileSync(join(root, 'node_modules/uplot/dist/uPlot.min.css'), 'utf8');
  return { text, inputs: Object.keys(metafile.inputs) };
}

/** tsc leaves behind what it made of a source that is gone: an import of it would still work here, and nowhere else. */
function removeStale() {
  for (const file of filesBelow('build', (each) => /\.(?:js|js\.map|d\.ts|d\.ts\.map)$/.test(each))) {
    const source = file.replace(/^build\//, '').replace(/\.(?:js|js\.map|d\.ts|d\.ts\.map)$/, '.ts');
    if (!existsSync(join(root, source))) rmSync(join(root, file), { force: true });
  }
}

/** One CommonJS file per program; the names of the packages inside them. A file that would not change is not written. */
export async function bundle() {
  const esbuild = await import('esbuild'); // not at the top: setup() may still have to install it
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  mkdirSync(join(root, 'dist'), { recursive: true });
  const packages = new Set();
  const { text, inputs } = await assets();
  for (const input of inputs) packages.add(packageOf(input));
  for (const program of programs) {
    const { outputFiles, metafile } = await esbuild.build({
      ...options(version, program === 'server' ? text : {}),
      entryPoints: [`src/${program}/main.ts`],
    });
    writeIfChanged(`dist/sysmon-${program}.cjs`, outputFiles[0].text, 0o755);
    for (const input of Object.keys(metafile.inputs)) packages.add(packageOf(input));
  }
  await esbuild.stop(); // its service would live as long as we do, which in npm start is long
  packages.delete(undefined);
  const names = [...packages].sort();
  writeIfChanged('dist/THIRD-PARTY.txt', notices(names), 0o644);
  writeDocuments();
  return names;
}

/** What install.sh puts beside the programs, with the folders `prometheus` and `examples`. */
function writeDocuments() {
  mkdirSync(join(root, 'dist/doc'), { recursive: true });
  const texts = installedTexts((file) => (/^(?:prometheus|examples)\//.test(file) ? file : undefined));
  for (const { name, text } of texts) writeIfChanged(`dist/doc/${name}`, text, 0o644);
  for (const file of filesBelow('dist/doc', () => true)) {
    if (!texts.some(({ name }) => name === basename(file))) rmSync(join(root, file));
  }
}

function options(version, assets) {
  return {
    absWorkingDir: root,
    bundle: true,
    write: false,
    metafile: true,
    platform: 'node',
    target: 'node20.15',
    format: 'cjs',
    logLevel: 'warning',
    // A CommonJS file has no import.meta; node-cron asks for its url, and only when an expression is scheduled.
    banner: {
      js: `#!/usr/bin/env node\n${nodeCheck}\nconst importMetaUrl = require('node:url').pathToFileURL(__filename).href;`,
    },
    define: {
      'import.meta.url': 'importMetaUrl',
      SYSMON_VERSION: JSON.stringify(version),
      SYSMON_ASSETS: JSON.stringify(assets),
      // Set here, so that the bundle can load no native addon from wherever it happens to lie.
      'process.env.MSGPACKR_NATIVE_ACCELERATION_DISABLED': '"true"',
    },
    // V8 keeps the text in memory. Names stay, and short lines, for the stack of a bug.
    minifyWhitespace: true,
    minifySyntax: true,
    lineLimit: 120,
    external: ['msgpackr-extract'],
  };
}

// The system's Node.js may be replaced by an older one after an install. 2: systemd does not start the program again.
const nodeCheck = `{ const [major, minor] = process.versions.node.split('.').map(Number);
if (major < ${nodeMin[0]} || (major === ${nodeMin[0]} && minor < ${nodeMin[1]})) {
  console.error('sysmon: Node.js ' + process.versions.node + ' (' + process.execPath + ') is too old: ${nodeMin.join('.')} or newer is needed');
  process.exit(2);
} }`;

/** `node_modules/@a/b/c.js` → `@a/b`; undefined for a file of our own. */
function packageOf(path) {
  return /^node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1];
}

/** The licences of what is inside the bundles: every one of them asks to travel with the code. */
function notices(names) {
  const parts = names.map((name) => {
    const folder = join(root, 'node_modules', name);
    const { version, license } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
    return `${name} ${version} (${license})\n\n${licenceText(folder)}`;
  });
  return parts.join(`\n${'-'.repeat(78)}\n\n`);
}

function licenceText(folder) {
  for (const file of ['LICENSE', 'LICENSE.md', 'LICENSE.txt', 'LICENCE', 'license']) {
    try {
      return readFileSync(join(folder, file), 'utf8');
    } catch (error) {
      if (error.code !== 'ENOENT') throw error;
    }
  }
  return 'The package holds no licence text of its own.\n';
}

/** Written beside and renamed, so that a program that starts meanwhile never reads half a file. */
function writeIfChanged(path, text, mode) {
  const absolute = join(root, path);
  try {
    if (readFileSync(absolute, 'utf8') === text) return;
  } catch (error) {
    if (error.code !== 'ENOENT') throw error;
  }
  const temporary = join(dirname(absolute), `.${process.pid}.tmp`);
  writeFileSync(temporary, text);
  chmodSync(temporary, mode);
  renameSync(temporary, absolute);
}
