import { agentId, agentIdRule } from '../model/agent-id.ts';
import { limits } from '../protocol/limits.ts';
import { isLabelName } from '../protocol/names.ts';
import { logLevels } from '../runtime/log.ts';
import {
  bytes,
  choice,
  configFileOption,
  duration,
  flagOption,
  hostPort,
  listOption,
  type OptionRows,
  type Options,
  option,
  optional,
  type Parser,
  type Program,
  path,
  text,
} from '../runtime/options.ts';
import { collectorName, collectorOptions, collectorRows } from './collect/collectors/index.ts';
import { hostRoots } from './collect/proc/host.ts';

/** The server's port for agents. */
export const defaultPort = 9732;

/** `rack=7`: a label that every series of this agent gets. */
const label: Parser<readonly [name: string, value: string]> = (given) => {
  const equals = given.indexOf('=');
  const name = given.slice(0, Math.max(0, equals));
  if (!isLabelName(name) || name === 'source') {
    throw new Error(
      "expected NAME=VALUE, with a name of Prometheus's that is not 'agent', 'source', 'job' or 'instance' and does not begin with '__'",
    );
  }
  return [name, given.slice(equals + 1)];
};

const agentName: Parser<string> = (given) => {
  if (agentId(given) === undefined) throw new Error(`expected ${agentIdRule}`);
  return given;
};

const collecting = ['run', 'collect', 'check'] as const;
const running = ['run', 'check'] as const;

function folder(name: string, fallback: string, help: string) {
  return option({ name, placeholder: 'FOLDER', parse: path, default: fallback, help, commands: collecting });
}

/** The same options, for the commands that collect. */
function ofCollecting<R extends OptionRows>(options: R): R {
  const rows = Object.entries(options).map(([key, row]) => [key, { ...row, commands: collecting }]);
  return Object.fromEntries(rows) as R; // the same keys
}

function onOff(state: 'by default' | 'on request'): string {
  const chosen = collectorRows.filter(({ enabled }) => enabled === state);
  return chosen.map(({ name }) => name).join(', ');
}

const rows = {
  server: option({
    name: 'server',
    placeholder: 'HOST:PORT',
    parse: hostPort(defaultPort),
    default: `127.0.0.1:${defaultPort}`,
    help: 'Address of the sysmon-server. The agent opens the connection.',
    commands: running,
  }),
  name: optional({
    name: 'name',
    placeholder: 'NAME',
    parse: agentName,
    defaultHelp: 'the name in the key file, else the name of this host',
    help: "Name of this agent: the label 'agent' of its series. With a key it must be the name that the key was made for.",
    commands: running,
  }),
  keyFile: optional({
    name: 'key-file',
    placeholder: 'FILE',
    parse: path,
    help:
      'Key that the server made for this agent. With a key the connection is TLS, and both sides prove that they have ' +
      'it; without a key it is plain TCP.',
    commands: [...running, 'join'],
  }),
  schedule: option({
    name: 'schedule',
    placeholder: 'DURATION|CRON',
    parse: text(),
    default: '5s',
    help:
      "When to collect: a duration, which means at the wall clock's multiples of it, or a cron expression with seconds, " +
      "in UTC ('*/10 * * * * *'), which takes 8 to 13 MiB more memory. Prometheus should scrape at least as often.",
    commands: running,
  }),
  label: listOption({
    name: 'label',
    placeholder: 'NAME=VALUE',
    parse: label,
    help:
      `Label to add to every series of this agent: at most ${limits.labelsMax}, with values of at most ${limits.labelValueBytesMax} bytes. ` +
      'A label that a series already has takes precedence.',
    commands: running,
  }),
  spoolDir: optional({
    name: 'spool-dir',
    placeholder: 'FOLDER',
    parse: path,
    help:
      'Folder in which unacknowledged reports survive a restart of the agent or the host. Without it they are kept in ' +
      'memory only.',
    commands: running,
  }),
  spoolBytesMax: option({
    name: 'spool.max-bytes',
    placeholder: 'BYTES',
    parse: bytes({ min: 1024 ** 2, max: 16 * 1024 ** 3 }),
    default: '64MiB',
    help:
      'Maximum size of the spool (unacknowledged reports), in memory and on disk. When it is full, the oldest reports ' +
      'are dropped and counted. A day of 800 series at 5s takes 13 MiB.',
    commands: running,
  }),
  spoolAgeMax: option({
    name: 'spool.max-age',
    placeholder: 'DURATION',
    parse: duration({ minMs: 60_000, maxMs: 366 * 86_400_000 }),
    default: '24h',
    help: "Maximum age of a report in the spool. No use beyond the server's --window: it drops what is older.",
    commands: running,
  }),
  procfs: folder('procfs', hostRoots.procfs, "Where the host's /proc is mounted."),
  sysfs: folder('sysfs', hostRoots.sysfs, "Where the host's /sys is mounted."),
  rootfs: folder(
    'rootfs',
    hostRoots.rootfs,
    "Where the host's root file system is mounted, for an agent in a container.",
  ),
  udev: folder('udev', hostRoots.udev, "Where the host's udev data is mounted."),
  enable: listOption({
    name: 'enable',
    placeholder: 'COLLECTOR',
    parse: collectorName,
    help: `Enable a collector that is off by default: ${onOff('on request') || 'there is none yet'}.`,
    commands: collecting,
  }),
  disable: listOption({
    name: 'disable',
    placeholder: 'COLLECTOR',
    parse: collectorName,
    help: `Disable a collector that is on by default: ${onOff('by default')}.`,
    commands: collecting,
  }),
  ...ofCollecting(collectorOptions),
  controlSocket: option({
    name: 'control-socket',
    placeholder: 'PATH',
    parse: path,
    default: '/run/sysmon-agent/control.sock',
    help: "Unix socket on which the running agent answers 'status' and 'reload'. Not created where its folder does not exist.",
    commands: ['run', 'check', 'status', 'reload', 'join'],
  }),
  statusSocket: optional({
    name: 'status-socket',
    placeholder: 'PATH',
    parse: path,
    default: '/run/sysmon/agent/status.sock',
    help:
      "Unix socket that answers 'status' alone, for the members of a group that cannot read the key: that of its folder. Not " +
      'created where its folder does not exist.',
    commands: ['run', 'check', 'status'],
  }),
  joinFile: optional({
    name: 'join-file',
    placeholder: 'FILE',
    parse: path,
    help:
      "File with the join line that 'sysmon-server enroll' printed; - is standard input. Without it the line is asked for " +
      'at the terminal, or read from standard input where that is none.',
    commands: ['join'],
    isOfCommandLine: true,
  }),
  checkOnly: flagOption({
    name: 'check-only',
    help:
      'Change nothing: check the line and the server, and print the line with the one address of the server that answers. ' +
      'It holds the key. On a host that has joined, and on that of the server, no line within 10 s is no error.',
    commands: ['join'],
  }),
  noRestart: flagOption({
    name: 'no-restart',
    help: 'Write the files only. The agent has the key after its next start.',
    commands: ['join'],
  }),
  offline: flagOption({
    name: 'offline',
    help: 'Do not connect to the server, for a host or an image that cannot reach it yet.',
    commands: ['join', 'check'],
  }),
  list: flagOption({
    name: 'list',
    help: 'Print the collectors with their options instead of collecting.',
    commands: ['collect'],
  }),
  json: flagOption({
    name: 'json',
    help: 'Print JSON instead of text.',
    commands: ['status'],
  }),
  wait: flagOption({
    name: 'wait',
    help: 'Wait until the agent is connected, at most 15 s, and print only to which server, or why it is not.',
    commands: ['status'],
  }),
  logLevel: option({
    name: 'log.level',
    placeholder: 'LEVEL',
    parse: choice(logLevels),
    default: 'info',
    help: `Least severe level to log: ${logLevels.join(', ')}.`,
    commands: ['run', 'collect', 'check'],
  }),
  configFile: configFileOption('/etc/sysmon/agent.env'),
};

export const program = {
  name: 'sysmon-agent',
  summary:
    'Reads /proc and /sys of this host and sends the samples to a sysmon-server, which exposes them to Prometheus. What ' +
    'cannot be sent is kept here, and sent later with its original timestamps.',
  commands: [
    {
      name: 'run',
      help: "Collect and send until SIGTERM. SIGHUP does what 'reload' does.",
    },
    {
      name: 'reload',
      help:
        'Have the running agent read the key file again, and reopen the files of /proc and /sys. Fails, and changes nothing, ' +
        'where the key or an option is wrong.',
    },
    { name: 'collect', help: "Collect once and print the samples in Prometheus's text format." },
    {
      name: 'join',
      help: "Make this host an agent, or one of another server: with the line that 'sysmon-server enroll' prints.",
    },
    {
      name: 'check',
      help:
        "Check options, files and whether the server answers, without starting anything; as root with the rights of the unit's " +
        'user.',
    },
    { name: 'status', help: "Show the running agent's connection, spool and failing collectors." },
  ],
  options: rows,
} as const satisfies Program<typeof rows>;

export type AgentOptions = Options<typeof rows>;
