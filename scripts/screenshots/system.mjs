// A third of npm run screenshots: what docs/report.md shows of the running system, into docs/screenshots/: pages as pictures, terminals
// as text. A server, a small made-up fleet, an agent of this host and a Prometheus, on their usual ports in a network of their own;
// in their midst the server is killed for a minute. Needs prometheus, chromium and iproute2 (Debian), and some 5 min.
import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { bundle, compile } from '../compile.mjs';
import { fail, root } from '../lib.mjs';
import { setup } from '../setup.mjs';
import { save, version } from './transcript.mjs';

const outageMs = 60_000;
const web = 'http://127.0.0.1:9733';
const prometheus = 'http://127.0.0.1:9090';
const shown = join(root, 'docs/screenshots');
const busyHost = 'build-1';
const ownHost = 'lab-1';

if (process.env.SYSMON_OWN_NETWORK !== '1') inOwnNetwork();
for (const program of ['prometheus', 'promtool', 'chromium']) {
  if (spawnSync(program, ['--version'], { stdio: 'ignore' }).error)
    fail(`'${program}' is missing: apt-get install ${program === 'promtool' ? 'prometheus' : program}`);
}
setup();
await compile();
await bundle();
const { chromium } = await import('playwright-core');
const folder = mkdtempSync(join(tmpdir(), 'sysmon-screenshots-'));
const fleetKey = '5a'.repeat(32);
const children = new Set();
let browser;

try {
  prepare();
  enrol();
  browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: ['--no-sandbox'] });
  let server = startServer();
  await until('the server', async () => (await fetch(`${web}/-/ready`)).ok);
  startPrometheus();
  start('fleet', process.execPath, [
    ...['--import', `data:text/javascript,globalThis.SYSMON_VERSION=${JSON.stringify(version)}`],
    ...[join(root, 'build/bench/support/picture-fleet.js'), '9732', fleetKey],
  ]);
  await until('an agent that is down', async () => (await isUp('mail-1')) === false);
  await until('its backlog in Prometheus', async () => (await lag()) === 0);
  // Some scrapes and rules of what is new.
  await sleep(40_000);
  await picture('page', `${web}/`, { width: 1840, height: 600 });
  await picture('page-dark', `${web}/`, { width: 1840, height: 600, colorScheme: 'dark' });
  await picture('page-narrow', `${web}/`, { width: 320, height: 640 });
  await picture('agent', `${web}/agents/${busyHost}`, { height: 900 });
  await picture('scrapers', `${web}/scrapers`, { width: 1440, height: 220 });

  const agent = startAgent();
  await until('the agent of this host', async () => (await isUp(ownHost)) === true);
  await sleep(70_000);
  transcript(
    'collect',
    "sysmon-agent collect 2>/dev/null | grep -A2 '^# HELP node_load1 \\|^# HELP node_memory_MemAvailable\\|^# HELP node_context'",
    'sysmon-agent collect 2>/dev/null | grep -vc ^#',
  );
  transcript('status', 'sysmon-agent status', 'sysmon-server status');
  transcript('agents', 'sysmon-server agents');
  const asPrometheus = "-H 'User-Agent: Prometheus/2.53.3' -H 'X-Prometheus-Scrape-Timeout-Seconds: 5'";
  transcript(
    'endpoint',
    `curl -s '${web}/metrics?agent=web-1' | grep 'node_load1\\b\\|sysmon_agent_up'`,
    `curl -s ${asPrometheus} '${web}/metrics?agent=web-1&scraper=reader' | grep '^node_load1{' | head -n 5`,
    'sysmon-server forget-scraper reader',
  );
  await picture('targets', `${prometheus}/classic/targets`, { height: 430 });
  transcript(
    'promql',
    instant('sysmon_agent_up'),
    instant('topk(3, 1 - avg by (agent) (rate(node_cpu_seconds_total{mode="idle"}[1m])))'),
    instant('1 - node_filesystem_avail_bytes / node_filesystem_size_bytes > 0.9'),
    instant('sum by (site) (rate(node_network_transmit_bytes_total{device!="lo"}[1m]))'),
  );
  transcript('alerts', instant(`ALERTS{agent!="${ownHost}"}`));

  const killedAtMs = Date.now();
  await end(server, 'SIGKILL');
  await sleep(outageMs);
  const count = instant(`count_over_time(node_load1{agent="${ownHost}"}[1m])`);
  transcript('outage-during', 'sysmon-agent status', count);
  await picture('outage-during', graph(), { height: 800 });
  server = startServer();
  await until('the backlog in Prometheus', async () => (await lag()) === 0);
  await sleep(20_000);
  const back = Math.ceil((Date.now() - killedAtMs) / 1000) + 10;
  transcript('outage-after', count, instant(`node_load1{agent="${ownHost}"}[${back}s]`));
  await picture('outage-after', graph(), { height: 800 });
  await end(agent, 'SIGTERM');
  await sleep(1000);
  transcript('log-agent', 'cat agent.log');
  transcript('log-server', 'cat server.log');
  console.log('docs/screenshots/ is written: look at each file, then npm run report');
} finally {
  await browser?.close();
  await Promise.all([...children].map((child) => end(child, 'SIGTERM')));
  rmSync(folder, { recursive: true, force: true });
}

/** The same again in a network that has nothing but a loopback, so that the usual ports are free. */
function inOwnNetwork() {
  const unshare = process.getuid() === 0 ? ['--net'] : ['--net', '--map-root-user'];
  const script = 'ip link set lo up && exec "$0" "$@"';
  const { status, error } = spawnSync('unshare', [...unshare, 'sh', '-c', script, process.execPath, process.argv[1]], {
    stdio: 'inherit',
    env: { ...process.env, SYSMON_OWN_NETWORK: '1' },
  });
  if (error) fail(`cannot run 'unshare': ${error.message}`);
  process.exit(status ?? 1);
}

/** Folders, keys, no revocations, and both programs as commands. */
function prepare() {
  for (const name of ['bin', 'server', 'agent', 'prometheus']) mkdirSync(join(folder, name));
  writeFileSync(join(folder, 'fleet.key'), `${fleetKey}\n`, { mode: 0o400 });
  for (const name of ['server', 'agent']) {
    writeFileSync(
      join(folder, `bin/sysmon-${name}`),
      `#!/bin/sh
export SYSMON_CONFIG_FILE=/dev/null SYSMON_CONTROL_SOCKET=${name}/control.sock SYSMON_STATUS_SOCKET=
exec ${process.execPath} ${join(root, `dist/sysmon-${name}.cjs`)} "$@"
`,
      { mode: 0o755 },
    );
  }
}

/** What the server's enroll and the agent's join do; it also makes the file of revocations. */
function enrol() {
  const { stdout, stderr } = spawnSync('sysmon-server', ['enroll', ownHost, '--fleet-key-file=fleet.key'], run());
  const [, identity, key] = /^sysmon-join-v1 \S+ (\S+) ([0-9a-f]{64})$/m.exec(stdout) ?? [];
  if (key === undefined) fail(`enroll printed no join line: ${stderr}`);
  writeFileSync(join(folder, 'agent.key'), `sysmon-key-v1 ${identity} ${key}\n`, { mode: 0o400 });
}

function startServer() {
  const options = ['--fleet-key-file=fleet.key', '--listen=127.0.0.1:9732', '--web.listen-address=127.0.0.1:9733'];
  return start('server', 'sysmon-server', ['run', ...options, '--state-dir=server']);
}

function startAgent() {
  return start('agent', 'sysmon-agent', ['run', '--key-file=agent.key', '--label=site=north', '--spool-dir=agent']);
}

/** As the documentation says, but for where its data are. */
function startPrometheus() {
  const options = [`--config.file=${join(root, 'prometheus/prometheus.yml')}`, '--storage.tsdb.path=prometheus'];
  return start('prometheus', 'prometheus', options);
}

function run() {
  return { cwd: folder, encoding: 'utf8', env: { ...process.env, PATH: `${join(folder, 'bin')}:${process.env.PATH}` } };
}

/** What it says goes to NAME.log. */
function start(name, program, args) {
  const log = openSync(join(folder, `${name}.log`), 'a');
  const child = spawn(program, args, { ...run(), stdio: ['ignore', log, log] });
  children.add(child);
  child.ended = new Promise((resolve) => child.once('exit', resolve));
  return child;
}

async function end(child, signal) {
  children.delete(child);
  child.kill(signal);
  await child.ended;
}

async function until(what, isSo) {
  for (let tries = 0; tries < 300; tries++) {
    if (await isSo().catch(() => false)) return;
    await sleep(1000);
  }
  throw new Error(`${what}: not within 5 min`);
}

async function isUp(name) {
  const { agents } = await (await fetch(`${web}/api/v1/agents`)).json();
  return agents.find((each) => each.name === name)?.up;
}

/** Agents that have reports which Prometheus lacks. */
async function lag() {
  const { agents } = await (await fetch(`${web}/api/v1/agents`)).json();
  return agents.filter(({ name, connected, newestAt, unscrapedReports }) => {
    return name !== 'mail-1' && (!connected || Date.now() - Date.parse(newestAt) > 15_000 || unscrapedReports > 3);
  }).length;
}

/** Commands and what they print. */
function transcript(name, ...commands) {
  const parts = commands.map((command) => {
    const { stdout, stderr } = spawnSync('bash', ['-c', command], run());
    return `$ ${command}\n${stdout}${stderr}`;
  });
  save(name, parts);
}

function instant(expression) {
  return `promtool query instant ${prometheus} '${expression}'`;
}

// Debian's package has the classic pages only.
function graph() {
  // Its scale has round numbers, of which that page writes all digits.
  const expression = 'node_hwmon_temp_celsius{agent="web-1",sensor="temp1"}';
  return `${prometheus}/classic/graph?g0.expr=${encodeURIComponent(expression)}&g0.tab=0&g0.range_input=5m&g0.step_input=1`;
}

async function picture(name, url, { width = 1280, height = 640, colorScheme = 'light' } = {}) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme, reducedMotion: 'reduce' });
  const page = await context.newPage();
  await page.goto(url);
  // Its stream, or what it draws.
  await sleep(3000);
  await page.screenshot({ path: join(shown, `${name}.png`) });
  await context.close();
}
