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

/** What stands between the last tick and the server's port, unless it is said otherwise. */
export const defaultPort = 9732;

/** `rack=7`: a label that every series of this agent gets. */
const label: Parser<readonly [name: string, value: string]> = (given) => {
  const equals = given.indexOf('=');
  const name = given.slice(0, Math.max(0, equals));
  if (!isLabelName(name)) {
    throw new Error(
      "expected NAME=VALUE, with a name of Prometheus's that is not 'agent' and does not begin with '__'",
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
  return (
    collectorRows
      .filter(({ enabled }) => enabled === state)
      .map(({ name }) => name)
      .join(', ') || 'none'
  );
}

const rows = {
  server: option({
    name: 'server',
    placeholder: 'HOST:PORT',
    parse: hostPort(defaultPort),
    default: `127.0.0.1:${defaultPort}`,
    help: 'The server that reports go to. Always dialled from here.',
    commands: running,
  }),
  name: optional({
    name: 'name',
    placeholder: 'NAME',
    parse: agentName,
    defaultHelp: 'the name in the key file, else the name of this host',
    help: "The agent's name: the label 'agent' of its series. With a key it is the name that the key was made for.",
    commands: running,
  }),
  keyFile: optional({
    name: 'key-file',
    placeholder: 'FILE',
    parse: path,
    help:
      'The key that the server has made for this agent. With it the server is dialled by TLS, and each proves to the ' +
      'other that it has the key; without it by plain TCP.',
    commands: running,
  }),
  schedule: option({
    name: 'schedule',
    placeholder: 'DURATION|CRON',
    parse: text(),
    default: '5s',
    help:
      "When to collect: a duration, for the wall clock's multiples of it, or a cron expression with seconds in UTC " +
      "('*/10 * * * * *'), which takes 8 to 13 MiB more. At most as long as Prometheus's scrape interval is best.",
    commands: running,
  }),
  label: listOption({
    name: 'label',
    placeholder: 'NAME=VALUE',
    parse: label,
    help: `A label for every series of this agent, ${limits.labelsMax} at most. A label of the series itself wins.`,
    commands: running,
  }),
  spoolDir: optional({
    name: 'spool-dir',
    placeholder: 'FOLDER',
    parse: path,
    help:
      'Where reports that Prometheus does not have yet are kept across a restart of the agent or the host. Without it ' +
      'they are kept in memory alone.',
    commands: running,
  }),
  spoolBytesMax: option({
    name: 'spool.max-bytes',
    placeholder: 'BYTES',
    parse: bytes({ min: 1024 ** 2, max: 16 * 1024 ** 3 }),
    default: '64MiB',
    help:
      'What reports that wait may take, in memory as on disk; then the oldest go and are counted. A day of 800 series ' +
      'at 5s takes 13 MiB.',
    commands: running,
  }),
  spoolAgeMax: option({
    name: 'spool.max-age',
    placeholder: 'DURATION',
    parse: duration({ minMs: 60_000, maxMs: 366 * 86_400_000 }),
    default: '24h',
    help: 'How long a report waits before it is given up. Of no use beyond what the server takes: see its --window.',
    commands: running,
  }),
  procfs: folder('procfs', hostRoots.procfs, "The host's /proc."),
  sysfs: folder('sysfs', hostRoots.sysfs, "The host's /sys."),
  rootfs: folder('rootfs', hostRoots.rootfs, "The host's root, where this is a container."),
  udev: folder('udev', hostRoots.udev, "The host's udev data."),
  enable: listOption({
    name: 'enable',
    placeholder: 'COLLECTOR',
    parse: collectorName,
    help: `A collector to add. Off unless added: ${onOff('on request')}.`,
    commands: collecting,
  }),
  disable: listOption({
    name: 'disable',
    placeholder: 'COLLECTOR',
    parse: collectorName,
    help: `A collector to leave out. On unless left out: ${onOff('by default')}.`,
    commands: collecting,
  }),
  ...ofCollecting(collectorOptions),
  controlSocket: option({
    name: 'control-socket',
    placeholder: 'PATH',
    parse: path,
    default: '/run/sysmon-agent/control.sock',
    help: 'Where the running agent answers status. Not made where its folder does not exist.',
    commands: ['run', 'check', 'status'],
  }),
  json: flagOption({
    name: 'json',
    help: 'Print JSON instead of text for people.',
    commands: ['status'],
  }),
  logLevel: option({
    name: 'log.level',
    placeholder: 'LEVEL',
    parse: choice(logLevels),
    default: 'info',
    help: `Lines up to this level: ${logLevels.join(', ')}.`,
    commands: ['run', 'collect', 'check'],
  }),
  configFile: configFileOption('/etc/sysmon/agent.env'),
};

export const program = {
  name: 'sysmon-agent',
  summary:
    'Reads what the kernel of this host says about itself and sends it to a sysmon-server, which shows it to Prometheus. ' +
    'What cannot be sent waits here, and arrives later with its own times.',
  commands: [
    { name: 'run', help: 'Collect and send until SIGTERM. SIGHUP reads the key file again and opens all files anew.' },
    { name: 'collect', help: 'Collect once and print it as Prometheus reads it.' },
    { name: 'check', help: 'Check options, files and access without any effect.' },
    { name: 'status', help: 'Say how the running agent is: its connection, and what waits.' },
  ],
  options: rows,
} as const satisfies Program<typeof rows>;

export type AgentOptions = Options<typeof rows>;
