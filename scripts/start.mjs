// npm start: the server and an agent of this host in the foreground, on loopback, with their state in var/.
// Options are passed as SYSMON_*, and set by the environment: SYSMON_LISTEN=127.0.0.1:19732 npm start
import { spawn } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { get } from 'node:http';
import { createServer } from 'node:net';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { bundle } from './compile.mjs';
import { fail, root } from './lib.mjs';
import { setup } from './setup.mjs';

// The programs stop within 5 s.
const stopMsMax = 10_000;
const askEveryMs = 100;

const flags = process.argv.slice(2);
if (flags.length > 0) {
  const [, name = '', inline] = /^--?([^=]+)(?:=(.*))?$/s.exec(flags[0]) ?? [];
  const variable = name === '' ? 'SYSMON_…' : `SYSMON_${name.toUpperCase().replace(/[.-]/g, '_')}`;
  console.error(
    `sysmon: npm start takes no options: set them in the environment, '${variable}=${inline ?? flags[1] ?? '…'} npm start'`,
  );
  process.exit(2);
}
setup();
await bundle();

const agentsAddress = process.env.SYSMON_LISTEN ?? '127.0.0.1:9732';
const webAddress = process.env.SYSMON_WEB_LISTEN_ADDRESS ?? '127.0.0.1:9733';
// Beside another one, also their state is their own.
const state = agentsAddress === '127.0.0.1:9732' ? 'var' : `var/${agentsAddress.replace(/^.*:/, '')}`;
await refuseTakenPorts();
for (const folder of [`${state}/server`, `${state}/agent`]) mkdirSync(join(root, folder), { recursive: true });

const serverEnv = {
  SYSMON_CONFIG_FILE: '/dev/null', // not the installed server's
  SYSMON_LISTEN: agentsAddress,
  SYSMON_WEB_LISTEN_ADDRESS: webAddress,
  SYSMON_STATE_DIR: `${state}/server`,
  SYSMON_CONTROL_SOCKET: `${state}/server/control.sock`, // from the root folder: a socket's path is at most 107 bytes
  SYSMON_STATUS_SOCKET: '',
  ...process.env,
};
const agentEnv = {
  SYSMON_CONFIG_FILE: '/dev/null',
  SYSMON_SERVER: agentsAddress,
  SYSMON_SPOOL_DIR: `${state}/agent`,
  SYSMON_CONTROL_SOCKET: `${state}/agent/control.sock`,
  SYSMON_STATUS_SOCKET: '',
  ...process.env,
};

let stopping = false;
let exitCode = 0;
const server = start('server', serverEnv);
let agent;
// A terminal sends Ctrl-C to npm and to this process, and npm sends it on: several mean the same as one.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => stop());

if (await answers(`http://${webAddress}/-/healthy`)) {
  agent = start('agent', agentEnv);
  console.error(whereToLook());
}

/** Whoever answers on our ports would be taken for our own server. */
async function refuseTakenPorts() {
  const named = [
    ['--listen', agentsAddress],
    ['--web.listen-address', webAddress],
  ];
  const taken = [];
  for (const [option, address] of named) if (!(await isFree(address))) taken.push(`${address} (${option})`);
  if (taken.length === 0) return;
  const who = (await isSysmon(`http://${webAddress}/api/v1/agents`))
    ? `sysmon runs already at http://${webAddress}/`
    : `another program uses ${taken.join(' and ')}`;
  fail(
    `${who}: stop it, or start this one beside it: 'SYSMON_LISTEN=127.0.0.1:9742 SYSMON_WEB_LISTEN_ADDRESS=127.0.0.1:9743 npm start'`,
  );
}

/** Also where it cannot be known: the server itself says then what is wrong with an address. */
function isFree(address) {
  const [, host, port] = /^\[?(.*?)\]?:(\d+)$/.exec(address) ?? [];
  if (port === undefined) return true;
  return new Promise((resolve) => {
    const server = createServer();
    server.on('error', (error) => resolve(error.code !== 'EADDRINUSE'));
    server.listen({ port: Number(port), host: host === '' ? undefined : host }, () =>
      server.close(() => resolve(true)),
    );
  });
}

async function isSysmon(url) {
  try {
    const answer = await fetch(url, { signal: AbortSignal.timeout(2000), headers: { connection: 'close' } });
    const { agents } = await answer.json();
    return Array.isArray(agents);
  } catch {
    return false; // nobody, or another program
  }
}

function start(name, env) {
  // detached: a process group of its own, so that Ctrl-C reaches it through stop() alone.
  const child = spawn(process.execPath, [join(root, `dist/sysmon-${name}.cjs`), 'run'], {
    cwd: root,
    env,
    stdio: ['ignore', 'inherit', 'inherit'],
    detached: true,
  });
  child.ended = new Promise((resolve) => {
    child.on('exit', (code, signal) => {
      if (code !== 0) exitCode ||= code ?? 1;
      if (!stopping) {
        console.error(`sysmon-${name} exited with ${signal ?? code}; stopping the other program`);
        exitCode ||= 1;
        stop();
      } else if (code !== 0) console.error(`sysmon-${name} exited with ${signal ?? code}`);
      resolve();
    });
  });
  return child;
}

/** The agent first, so that it can still send; then the server. */
async function stop() {
  if (stopping) return;
  stopping = true;
  for (const child of [agent, server]) {
    if (!child || child.exitCode !== null || child.signalCode !== null) continue;
    child.kill('SIGTERM');
    const overdue = setTimeout(() => child.kill('SIGKILL'), stopMsMax);
    await child.ended;
    clearTimeout(overdue);
  }
  process.exit(exitCode);
}

/** Asks until there is an answer, or until this process stops, also because the server exited. */
async function answers(url) {
  while (!stopping) {
    const status = await new Promise((resolve) => {
      const request = get(url, { agent: false, timeout: 5000 }, (response) => {
        response.resume();
        resolve(response.statusCode);
      });
      request.on('timeout', () => request.destroy());
      request.on('error', () => resolve(undefined));
    });
    if (stopping) break;
    if (status === 200) return true;
    await new Promise((resolve) => setTimeout(resolve, askEveryMs));
  }
  return false;
}

function whereToLook() {
  return `
  A sysmon server and an agent, '${hostname()}', are running. Ctrl-C stops both programs.

    page            http://${webAddress}/
    metrics         http://${webAddress}/metrics
    JSON            http://${webAddress}/api/v1/agents

  To connect a Prometheus, start one with the configuration, rules and alerts of this folder:

    prometheus --config.file=prometheus/prometheus.yml --storage.tsdb.path=var/prometheus

  or copy the job of that file into yours; its target is ${webAddress}.
`;
}
