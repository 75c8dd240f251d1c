import { type HostPort, hostPort, UsageError } from '../../runtime/options.ts';
import { type AgentKey, encodeKeyFile, parseKeyFile } from '../key-file.ts';

/** What `sysmon-server enroll NAME` prints: where the server is, and the agent's key. */
export interface JoinLine {
  /** Addresses of the server, the likeliest first. At least one. */
  readonly servers: readonly HostPort[];
  readonly key: AgentKey;
}

/** The first word of a join line; the number changes when its meaning does. */
const joinVersion = 'sysmon-join-v1';
const serversMax = 8;

/**
 * The join line in a text: `sysmon-join-v1 HOST:PORT[,HOST:PORT] NAME:GENERATION:KEYID KEY`. Blanks, empty lines, carriage
 * returns and a byte order mark around it do not matter, nor do other lines. Throws a UsageError, which shows no key.
 */
export function parseJoinLine(text: string, hostName: string): JoinLine {
  const lines = text
    .split(/[\r\n]+/)
    .map((line) => line.split(/\s+/).filter((word) => word !== ''))
    .filter((words) => words.length > 0);
  const [words = lines[0], ...others] = lines.filter(([first]) => first?.startsWith('sysmon-join-'));
  if (words === undefined) throw noJoinLine(hostName);
  if (others.length > 0) throw new UsageError(`there are ${others.length + 1} join lines: expected one`);
  const [version, servers = '', identity = '', hex = ''] = words;
  if (version !== joinVersion) {
    throw new UsageError(
      `the join line begins with another word than ${joinVersion}: expected a line of 'sysmon-server enroll'`,
    );
  }
  if (words.length !== 4) {
    throw new UsageError(`the join line has ${words.length} words: expected the 4 that 'sysmon-server enroll' prints`);
  }
  if (!/^[0-9a-f]{64}$/.test(hex)) {
    throw new UsageError('the key in the join line is not whole: expected 64 hexadecimal digits');
  }
  const key = parseKeyFile(encodeKeyFile(identity, hex));
  if (key === undefined) {
    throw new UsageError(`the identity in the join line is '${identity}': expected NAME:GENERATION:KEYID`);
  }
  return { servers: serversOf(servers), key };
}

export function noJoinLine(hostName: string): UsageError {
  return new UsageError(
    `no join line was given: run 'sudo sysmon-server enroll ${hostName}' on the server, and give its line to this command ` +
      'by standard input, at the prompt, or with --join-file FILE',
  );
}

/** The line of a server of which one address is known to work. */
export function joinLineText(server: string, { identity, key }: AgentKey): string {
  return `${joinVersion} ${server} ${identity} ${key.toString('hex')}\n`;
}

function serversOf(text: string): HostPort[] {
  const parse = hostPort();
  const each = text.split(',');
  if (each.length > serversMax) {
    throw new UsageError(`the join line has ${each.length} servers: expected at most ${serversMax}`);
  }
  return each.map((server) => {
    try {
      return parse(server);
    } catch {
      throw new UsageError(`the server in the join line is '${server}': expected HOST:PORT`);
    }
  });
}
