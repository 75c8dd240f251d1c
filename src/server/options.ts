import { logLevels } from '../runtime/log.ts';
import {
  boolean,
  bytes,
  choice,
  configFileOption,
  duration,
  flagOption,
  hostPort,
  integer,
  listenAddress,
  listOption,
  type Options,
  option,
  optional,
  type Parser,
  type Program,
  path,
  text,
} from '../runtime/options.ts';
import { socketPathBytesMax } from '../runtime/unix-socket.ts';
import type { WebAddress } from './web/listener.ts';

export const defaultPort = 9732;

/** `127.0.0.1:9733`, `:9733`, `unix:/run/sysmon-server/web.sock`. */
function webAddress(given: string): WebAddress {
  const [, socket] = /^unix:(.*)$/s.exec(given) ?? [];
  if (socket === undefined) return { kind: 'tcp', ...listenAddress(given) };
  if (!socket.startsWith('/') || Buffer.byteLength(socket) > socketPathBytesMax || socket.includes('\0')) {
    throw new Error(`expected unix: and a path that begins with / and has at most ${socketPathBytesMax} bytes`);
  }
  return { kind: 'unix', path: socket };
}

/** `site=north`: a label of agents. */
const labelValue: Parser<readonly [name: string, value: string]> = (given) => {
  const [, name, value] = /^([A-Za-z_][A-Za-z0-9_]*)=(.*)$/s.exec(given) ?? [];
  if (name === undefined || value === undefined) throw new Error('expected the name of a label, = and its value');
  return [name, value];
};

/** `NAME=VALUE`, for an option of one scraper. */
function ofScraper<T>(value: Parser<T>): Parser<{ readonly scraper: string; readonly value: T }> {
  return (given) => {
    const [, scraper, rest] = /^((?:(?:user|addr)\/)?[A-Za-z0-9._:@-]{1,64})=(.*)$/s.exec(given) ?? [];
    if (scraper === undefined || rest === undefined) throw new Error("expected a scraper's name, = and a value");
    return { scraper, value: value(rest) };
  };
}

/** The URL of an API, without a slash at its end. */
function apiUrl(given: string): string {
  const url = URL.canParse(given) ? new URL(given) : undefined;
  if (url === undefined || !/^https?:$/.test(url.protocol) || url.search !== '' || url.hash !== '') {
    throw new Error('expected a URL such as http://127.0.0.1:9090, without ? and #');
  }
  if (url.username !== '' || url.password !== '') {
    throw new Error(
      'expected a URL without user and password: give them with --prometheus-user and --prometheus-password-file',
    );
  }
  return `${url.origin}${url.pathname}`.replace(/\/+$/, '');
}

const rows = {
  listen: optional({
    name: 'listen',
    placeholder: 'ADDRESS:PORT',
    parse: listenAddress,
    defaultHelp: `127.0.0.1:${defaultPort}; with a fleet key :${defaultPort}, which is all addresses`,
    help: 'Address on which agents connect.',
    commands: ['run', 'check', 'enroll'],
  }),
  webListenAddress: listOption({
    name: 'web.listen-address',
    placeholder: 'ADDRESS:PORT',
    parse: webAddress,
    defaultHelp: '127.0.0.1:9733; with a fleet key :9733',
    help:
      'HTTP address for Prometheus, or unix:PATH for a socket that its owner and group can use. Without --web.config.file ' +
      'anyone who can reach it can read everything and consume samples meant for your Prometheus.',
    commands: ['run', 'check', 'enroll'],
  }),
  webConfigFile: optional({
    name: 'web.config.file',
    placeholder: 'FILE',
    parse: path,
    help:
      "File with TLS, users and headers of the HTTP port, in the format of Prometheus's exporters. It and its certificates " +
      'are read again when they change.',
    commands: ['run', 'check', 'enroll'],
  }),
  webHost: listOption({
    name: 'web.host',
    placeholder: 'NAME',
    parse: text(/^[A-Za-z0-9._-]{1,253}$/, "a host's name without a port"),
    help:
      'Name under which Prometheus or a browser reaches the HTTP port, if it is not an address, localhost or the name of ' +
      'this host. Requests for other names are refused.',
    commands: ['run', 'check'],
  }),
  webCompression: option({
    name: 'web.compression',
    placeholder: 'on|off',
    parse: boolean,
    default: 'on',
    help:
      'Whether answers are compressed for those who accept gzip, as Prometheus does. It makes an answer a tenth as long, ' +
      'and costs about as much CPU as the answer itself: off is for a scraper on this host or on a fast network.',
    commands: ['run', 'check'],
  }),
  webInstall: option({
    name: 'web.install',
    placeholder: 'on|off',
    parse: boolean,
    default: 'on',
    help:
      "Whether hosts can fetch this release's archives over HTTP, at /install/: by the command that 'enroll' prints, which " +
      'checks what it has fetched.',
    commands: ['run', 'check', 'enroll'],
  }),
  fleetKeyFile: optional({
    name: 'fleet-key-file',
    placeholder: 'FILE',
    parse: path,
    help:
      'File with the fleet key, a line of 64 hex digits, from which the keys of all agents are derived. A second line is ' +
      'a key that is being retired. With a fleet key, agents connect by TLS with their keys only.',
    commands: ['run', 'check', 'enroll', 'revoke', 'rotate-key'],
  }),
  revocationsFile: optional({
    name: 'revocations-file',
    placeholder: 'FILE',
    parse: path,
    defaultHelp: 'revoked.json beside the fleet key',
    help: "File of the revoked keys, which 'enroll' and 'revoke' write. Back it up together with the fleet key.",
    commands: ['run', 'check', 'enroll', 'revoke'],
  }),
  allowPlaintext: flagOption({
    name: 'allow-plaintext',
    help:
      'Accept agents without keys on addresses other than loopback. Anyone who can reach the port can then report under ' +
      'any name, and anyone on the way can read the reports.',
    commands: ['run', 'check'],
  }),
  stateDir: optional({
    name: 'state-dir',
    placeholder: 'FOLDER',
    parse: path,
    help:
      'Folder for the cursors of scrapers. Without it they are kept in memory only: after a restart some samples are ' +
      'scraped twice, and acknowledgements wait 45 s for the scrapers to return.',
    commands: ['run', 'check'],
  }),
  window: option({
    name: 'window',
    placeholder: 'DURATION',
    parse: duration({ minMs: 60_000, maxMs: 7 * 86_400_000 }),
    default: '30m',
    help:
      'How long reports are kept for Prometheus. More than 30m needs a Prometheus with an out-of-order window: ' +
      'see --prometheus-out-of-order.',
    commands: ['run', 'check'],
  }),
  prometheusOutOfOrder: optional({
    name: 'prometheus-out-of-order',
    placeholder: 'DURATION',
    parse: duration({ minMs: 60_000, maxMs: 7 * 86_400_000 }),
    help:
      'storage.tsdb.out_of_order_time_window of your Prometheus, where it is set. Must be at least --window and 15 minutes: ' +
      'the samples of another target may be that far ahead.',
    commands: ['run', 'check'],
  }),
  prometheus: listOption({
    name: 'prometheus',
    placeholder: 'NAME=URL',
    parse: ofScraper(apiUrl),
    help:
      'Address of the Prometheus (or VictoriaMetrics) that scrapes as NAME. Its query API is asked which answers it has stored, ' +
      'and only that confirms them: through any proxy and limit, and after a restart, nothing is lost or given twice.',
    commands: ['run', 'check'],
  }),
  prometheusTokenFile: listOption({
    name: 'prometheus-token-file',
    placeholder: 'NAME=FILE',
    parse: ofScraper(path),
    help: 'File with the bearer token for the --prometheus of that name. Like the next ones read again on SIGHUP.',
    commands: ['run', 'check'],
  }),
  prometheusUser: listOption({
    name: 'prometheus-user',
    placeholder: 'NAME=USER',
    parse: ofScraper(text(/^[\x20-\x39\x3b-\x7e]{1,256}$/, 'a user of at most 256 ASCII characters without a colon')),
    help: 'User for the --prometheus of that name.',
    commands: ['run', 'check'],
  }),
  prometheusPasswordFile: listOption({
    name: 'prometheus-password-file',
    placeholder: 'NAME=FILE',
    parse: ofScraper(path),
    help: "File with that user's password.",
    commands: ['run', 'check'],
  }),
  prometheusCaFile: listOption({
    name: 'prometheus-ca-file',
    placeholder: 'NAME=FILE',
    parse: ofScraper(path),
    help: 'File with the certificate of the authority that has signed the certificate of that --prometheus.',
    commands: ['run', 'check'],
  }),
  memoryMax: option({
    name: 'memory-max',
    placeholder: 'BYTES',
    parse: bytes({ min: 16 * 1024 * 1024, max: 64 * 1024 ** 3 }),
    default: '512MiB',
    help:
      'Maximum memory for the windows of all agents. Beyond it the oldest reports are evicted and counted: first those of ' +
      'agents that take more than their share of it.',
    commands: ['run', 'check'],
  }),
  labelLimit: optional({
    name: 'label-limit',
    placeholder: 'COUNT',
    parse: integer({ min: 8, max: 1000 }),
    help:
      'label_limit of the scrape jobs, where it is set. At most 64 are accepted in any case. An agent with a series of more ' +
      'labels is refused; Prometheus would refuse the whole scrape. Counts as Prometheus does: with __name__, agent, job, ' +
      'instance and those of the host.',
    commands: ['run', 'check'],
  }),
  labelNameLengthLimit: optional({
    name: 'label-name-length-limit',
    placeholder: 'BYTES',
    parse: integer({ min: 16, max: 1000 }),
    help: 'label_name_length_limit of the scrape jobs, where it is set. At most 128 bytes are accepted in any case.',
    commands: ['run', 'check'],
  }),
  labelValueLengthLimit: optional({
    name: 'label-value-length-limit',
    placeholder: 'BYTES',
    parse: integer({ min: 64, max: 10_000 }),
    help:
      'label_value_length_limit of the scrape jobs, where it is set. At most 512 bytes are accepted in any case. Counts ' +
      'the names of metrics and of agents, too.',
    commands: ['run', 'check'],
  }),
  connectionsMax: option({
    name: 'connections-max',
    placeholder: 'COUNT',
    parse: integer({ min: 1, max: 100_000 }),
    default: '4096',
    help: 'Maximum number of connections of agents.',
    commands: ['run', 'check'],
  }),
  connectionsPerAddressMax: option({
    name: 'connections-per-address-max',
    placeholder: 'COUNT',
    parse: integer({ min: 1, max: 100_000 }),
    default: '1024',
    help: 'Maximum number of connections from one address. Agents behind one NAT share an address.',
    commands: ['run', 'check'],
  }),
  advertise: optional({
    name: 'advertise',
    placeholder: 'HOST:PORT',
    parse: hostPort(defaultPort),
    defaultHelp: "this host's name, with its address where DNS does not know the name, and the port of --listen",
    help: 'Address under which agents reach this server, for the join line.',
    commands: ['run', 'check', 'enroll'],
  }),
  controlSocket: option({
    name: 'control-socket',
    placeholder: 'PATH',
    parse: path,
    default: '/run/sysmon-server/control.sock',
    help:
      "Unix socket on which the running server answers 'status' and 'agents', and does what the other commands ask for. Not " +
      'created where its folder does not exist.',
    commands: ['run', 'check', 'status', 'agents', 'reload', 'forget-scraper', 'enroll', 'revoke', 'rotate-key'],
  }),
  statusSocket: optional({
    name: 'status-socket',
    placeholder: 'PATH',
    parse: path,
    default: '/run/sysmon/server/status.sock',
    help:
      "Unix socket that answers 'status' and 'agents' alone, for the members of a group that cannot read the keys: that of its " +
      'folder. Not created where its folder does not exist.',
    commands: ['run', 'check', 'status', 'agents'],
  }),
  finish: flagOption({
    name: 'finish',
    help: 'Retire the old fleet key: say which agents still have a key of it, and ask.',
    commands: ['rotate-key'],
    isOfCommandLine: true,
  }),
  yes: flagOption({
    name: 'yes',
    help: 'Do not ask.',
    commands: ['rotate-key'],
    isOfCommandLine: true,
  }),
  json: flagOption({
    name: 'json',
    help: 'Print JSON instead of text.',
    commands: ['status', 'agents'],
  }),
  problems: flagOption({
    name: 'problems',
    help: 'Show only agents with which something is wrong.',
    commands: ['agents'],
    isOfCommandLine: true,
  }),
  label: listOption({
    name: 'label',
    placeholder: 'NAME=VALUE',
    parse: labelValue,
    help: 'Show only agents with this label. An empty value also selects those without it.',
    commands: ['agents'],
    isOfCommandLine: true,
  }),
  logLevel: option({
    name: 'log.level',
    placeholder: 'LEVEL',
    parse: choice(logLevels),
    default: 'info',
    help: `Least severe level to log: ${logLevels.join(', ')}.`,
    commands: ['run', 'check'],
  }),
  configFile: configFileOption('/etc/sysmon/server.env'),
};

export const program = {
  name: 'sysmon-server',
  summary:
    'Receives the reports of agents on hosts that Prometheus cannot reach and exposes them to Prometheus: every series ' +
    'with its agent as a label, every sample with its original timestamp.',
  commands: [
    {
      name: 'run',
      help: "Serve until SIGTERM. SIGHUP does what 'reload' does.",
    },
    {
      name: 'reload',
      help:
        'Have the running server read the fleet key file, the revocations, --web.config.file and the files of --prometheus ' +
        'again. Fails, and changes nothing, where one of them or an option is wrong.',
    },
    {
      name: 'enroll',
      arguments: ['NAME'],
      help:
        "Print the join line of an agent, which holds its key, for 'sysmon-agent join'; at a terminal also how a host that " +
        'has nothing installs and joins.',
    },
    {
      name: 'revoke',
      arguments: ['NAME'],
      help: "Refuse an agent's present key from now on. 'enroll' then makes a new one.",
    },
    {
      name: 'rotate-key',
      help: 'Make a new fleet key. Keys of the old one stay valid until all agents have joined again, and --finish retires it.',
    },
    {
      name: 'forget-scraper',
      arguments: ['NAME'],
      help: "Forget a scraper that does not come back, as 'status' names it: nothing is held for it any more.",
    },
    { name: 'agents', help: 'List the agents that the running server knows: first what is wrong with them.' },
    { name: 'status', help: 'Show whether the running server is well: its agents, windows, clock and scrapers.' },
    {
      name: 'check',
      help:
        'Check options, files, ports and each --prometheus without starting anything; as root with the rights of the ' +
        "unit's user.",
    },
  ],
  options: rows,
} as const satisfies Program<typeof rows>;

export type ServerOptions = Options<typeof rows>;
