// npm start: the server and an agent of this host in the foreground, on loopback, with their state in var/.
// Options are passed as SYSMON_*, and set by the environment: SYSMON_LISTEN=127.0.0.1:19732 npm start
import { spawn } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { get } from 'node:http';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { bundle } from './compile.mjs';
import { root } from './lib.mjs';
import { setup } from './setup.mjs';

// The programs stop within 5 s.
const stopMsMax = 10_000;
const askEveryMs = 100;

setup();
await bundle();
for (const folder of ['var/server', 'var/agent']) mkdirSync(join(root, folder), { recursive: true });

const serverEnv = {
  SYSMON_CONFIG_FILE: '/dev/null', // not the installed server's
  SYSMON_LISTEN: '127.0.0.1:9732',
  SYSMON_WEB_LISTEN_ADDRESS: '127.0.0.1:9733',
  SYSMON_STATE_DIR: 'var/server',
  SYSMON_CONTROL_SOCKET: 'var/server/control.sock', // from the root folder: a socket's path is at most 107 bytes
  ...process.env,
};
const agentEnv = {
  SYSMON_CONFIG_FILE: '/dev/null',
  SYSMON_SERVER: serverEnv.SYSMON_LISTEN,
  SYSMON_SPOOL_DIR: 'var/agent',
  SYSMON_CONTROL_SOCKET: 'var/agent/control.sock',
  ...process.env,
};
const webAddress = serverEnv.SYSMON_WEB_LISTEN_ADDRESS;

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
