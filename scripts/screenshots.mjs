// npm run screenshots: a server, two agents and a Prometheus on loopback, an outage in their midst, and pictures of the
// pages into docs/screenshots/. Needs prometheus and chromium (Debian: apt-get install prometheus chromium). About 3 min.
import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { bundle } from './compile.mjs';
import { fail, root } from './lib.mjs';
import { setup } from './setup.mjs';

const ports = { agents: 29732, http: 29733, prometheus: 29090 };
const steadyMs = 60_000;
const outageMs = 40_000;

for (const program of ['prometheus', 'chromium']) {
  if (spawnSync(program, ['--version'], { stdio: 'ignore' }).error)
    fail(`'${program}' is missing: apt-get install ${program}`);
}
setup();
await bundle();
const folder = mkdtempSync(join(tmpdir(), 'sysmon-screenshots-'));
const pictures = join(root, 'docs/screenshots');
mkdirSync(pictures, { recursive: true });
const children = new Set();

try {
  let server = startServer();
  startAgent('web-1', ['--label', 'site=north']);
  startAgent('db-1', ['--label', 'site=south']);
  startPrometheus();
  await sleep(steadyMs);
  await picture('page', `http://127.0.0.1:${ports.http}/`, '1280,560');
  await picture('targets', `http://127.0.0.1:${ports.prometheus}/classic/targets`, '1280,420');
  await picture('graph-cpu', graph('sum by (instance, mode) (rate(node_cpu_seconds_total{mode!="idle"}[30s]))', '2m'));
  await picture('graph-up', graph('sysmon_agent_up', '2m'));
  const killedAtMs = Date.now();
  await end(server, 'SIGKILL');
  await sleep(outageMs);
  await picture('outage-during', graph('node_load1', '3m'));
  server = startServer();
  await sleep(25_000);
  await picture('outage-after', graph('node_load1', '3m'));
  await picture('samples', tables('node_load1{agent="web-1"}', Math.ceil((Date.now() - killedAtMs) / 1000) + 10));
  console.log(`pictures are in docs/screenshots/`);
} finally {
  await Promise.all([...children].map((child) => end(child, 'SIGTERM')));
  rmSync(folder, { recursive: true, force: true });
}

function startServer() {
  const state = join(folder, 'server');
  mkdirSync(state, { recursive: true });
  return start(process.execPath, [
    join(root, 'dist/sysmon-server.cjs'),
    ...['--config.file', '/dev/null', '--state-dir', state, '--control-socket', join(state, 'control.sock')],
    ...['--listen', `127.0.0.1:${ports.agents}`, '--web.listen-address', `127.0.0.1:${ports.http}`],
  ]);
}

function startAgent(name, options) {
  const spool = join(folder, name);
  mkdirSync(spool);
  return start(process.execPath, [
    join(root, 'dist/sysmon-agent.cjs'),
    ...['--config.file', '/dev/null', '--spool-dir', spool, '--control-socket', join(spool, 'control.sock')],
    ...['--server', `127.0.0.1:${ports.agents}`, '--name', name, ...options],
  ]);
}

/** The configuration that the README names, with this run's port. */
function startPrometheus() {
  const config = readFileSync(join(root, 'prometheus/prometheus.yml'), 'utf8').replace(
    '127.0.0.1:9733',
    `127.0.0.1:${ports.http}`,
  );
  const file = join(folder, 'prometheus.yml');
  writeFileSync(file, config);
  return start('prometheus', [
    `--config.file=${file}`,
    `--storage.tsdb.path=${join(folder, 'prometheus')}`,
    `--web.listen-address=127.0.0.1:${ports.prometheus}`,
  ]);
}

// Debian's package has the classic pages only.
function graph(expression, range) {
  return `http://127.0.0.1:${ports.prometheus}/classic/graph?g0.expr=${encodeURIComponent(expression)}&g0.tab=0&g0.range_input=${range}&g0.step_input=1`;
}

/** Raw samples with their times. */
function tables(selector, seconds) {
  return `http://127.0.0.1:${ports.prometheus}/classic/graph?g0.expr=${encodeURIComponent(`${selector}[${seconds}s]`)}&g0.tab=1`;
}

function start(program, args) {
  const child = spawn(program, args, { stdio: 'ignore' });
  children.add(child);
  child.ended = new Promise((resolve) => child.once('exit', resolve));
  return child;
}

async function end(child, signal) {
  children.delete(child);
  child.kill(signal);
  await child.ended;
}

async function picture(name, url, size = '1280,800') {
  const file = join(pictures, `${name}.png`);
  const browser = spawn('chromium', [
    ...['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--hide-scrollbars'],
    ...[
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      '--force-device-scale-factor=1',
    ],
    ...[`--user-data-dir=${join(folder, 'browser')}`, `--window-size=${size}`, '--virtual-time-budget=6000'],
    ...[`--screenshot=${file}`, url],
  ]);
  const code = await new Promise((resolve) => browser.once('exit', resolve));
  if (code !== 0) throw new Error(`chromium ended with ${code} at ${url}`);
}
