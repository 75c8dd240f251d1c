import { logLevels } from '../runtime/log.ts';
import {
  bytes,
  choice,
  configFileOption,
  duration,
  flagOption,
  hostPort,
  integer,
  listenAddress,
  type Options,
  option,
  optional,
  type Program,
  path,
} from '../runtime/options.ts';

export const defaultPort = 9732;

const rows = {
  listen: optional({
    name: 'listen',
    placeholder: 'ADDRESS:PORT',
    parse: listenAddress,
    defaultHelp: `127.0.0.1:${defaultPort}; with a fleet key :${defaultPort}, which is all addresses`,
    help: 'Where agents connect.',
    commands: ['run', 'check', 'enroll'],
  }),
  webListenAddress: optional({
    name: 'web.listen-address',
    placeholder: 'ADDRESS:PORT',
    parse: listenAddress,
    defaultHelp: '127.0.0.1:9733; with a fleet key :9733',
    help: 'Where Prometheus scrapes, by plain HTTP. Who reaches it reads all and can move cursors: keep it in the LAN.',
    commands: ['run', 'check'],
  }),
  fleetKeyFile: optional({
    name: 'fleet-key-file',
    placeholder: 'FILE',
    parse: path,
    help:
      'A line of 64 hex digits, from which all keys of agents are derived; a second line is a key that is being ' +
      'retired. With it, agents are taken by TLS with their keys only.',
    commands: ['run', 'check', 'enroll', 'revoke'],
  }),
  allowPlaintext: flagOption({
    name: 'allow-plaintext',
    help:
      'Take agents without keys on addresses that are not loopback: anyone who reaches the port can report under any ' +
      'name, and read what is sent on the way.',
    commands: ['run', 'check'],
  }),
  stateDir: optional({
    name: 'state-dir',
    placeholder: 'FOLDER',
    parse: path,
    help:
      'Where cursors and revocations are kept. Without it they are kept in memory: after a restart some samples are ' +
      'scraped twice, and acknowledging waits 45 s for the scrapers to come.',
    commands: ['run', 'check', 'enroll', 'revoke'],
  }),
  window: option({
    name: 'window',
    placeholder: 'DURATION',
    parse: duration({ minMs: 60_000, maxMs: 7 * 86_400_000 }),
    default: '30m',
    help:
      'How long a report waits for Prometheus. More than 45m needs a Prometheus with an out-of-order window: ' +
      'see --prometheus-out-of-order.',
    commands: ['run', 'check'],
  }),
  prometheusOutOfOrder: optional({
    name: 'prometheus-out-of-order',
    placeholder: 'DURATION',
    parse: duration({ minMs: 60_000, maxMs: 7 * 86_400_000 }),
    help: "Prometheus's storage.tsdb.out_of_order_time_window, where it is set. At least --window.",
    commands: ['run', 'check'],
  }),
  memoryMax: option({
    name: 'memory-max',
    placeholder: 'BYTES',
    parse: bytes({ min: 16 * 1024 * 1024, max: 64 * 1024 ** 3 }),
    default: '512MiB',
    help: 'What the windows of all agents may take; beyond it the oldest reports of the fleet go, and are counted.',
    commands: ['run', 'check'],
  }),
  connectionsMax: option({
    name: 'connections-max',
    placeholder: 'COUNT',
    parse: integer({ min: 1, max: 100_000 }),
    default: '4096',
    help: 'Connections of agents at a time.',
    commands: ['run', 'check'],
  }),
  connectionsPerAddressMax: option({
    name: 'connections-per-address-max',
    placeholder: 'COUNT',
    parse: integer({ min: 1, max: 100_000 }),
    default: '1024',
    help: 'Connections from one address at a time: a fleet behind one NAT shares one.',
    commands: ['run', 'check'],
  }),
  advertise: optional({
    name: 'advertise',
    placeholder: 'HOST:PORT',
    parse: hostPort(defaultPort),
    defaultHelp: "this host's name and the port of --listen",
    help: 'The address of this server as agents reach it: it goes into the join line.',
    commands: ['enroll'],
  }),
  controlSocket: option({
    name: 'control-socket',
    placeholder: 'PATH',
    parse: path,
    default: '/run/sysmon-server/control.sock',
    help: 'Where the running server answers status, agents and revoke. Not made where its folder does not exist.',
    commands: ['run', 'check', 'status', 'agents', 'revoke'],
  }),
  json: flagOption({
    name: 'json',
    help: 'Print JSON instead of text for people.',
    commands: ['status', 'agents'],
  }),
  logLevel: option({
    name: 'log.level',
    placeholder: 'LEVEL',
    parse: choice(logLevels),
    default: 'info',
    help: `Lines up to this level: ${logLevels.join(', ')}.`,
    commands: ['run', 'check'],
  }),
  configFile: configFileOption('/etc/sysmon/server.env'),
};

export const program = {
  name: 'sysmon-server',
  summary:
    'Takes the reports of agents that Prometheus cannot reach and shows them to Prometheus, every series labelled with ' +
    'its agent, every sample with its own time.',
  commands: [
    { name: 'run', help: 'Serve until SIGTERM. SIGHUP reads the key file again.' },
    { name: 'enroll', arguments: ['NAME'], help: 'Print the join line of an agent: give it to `install.sh agent`.' },
    {
      name: 'revoke',
      arguments: ['NAME'],
      help: "Refuse an agent's present key, at once. The next enrolment gives another.",
    },
    { name: 'agents', help: 'List the agents that the running server knows.' },
    { name: 'status', help: 'Say how the running server is: agents, windows, scrapers.' },
    { name: 'check', help: 'Check options, files and ports without any effect.' },
  ],
  options: rows,
} as const satisfies Program<typeof rows>;

export type ServerOptions = Options<typeof rows>;
