import { execFile } from 'node:child_process';
import { isIP } from 'node:net';
import { decodeServerMessage, encodeMessage } from '../../protocol/codec.ts';
import { FrameError, ProtocolError } from '../../protocol/errors.ts';
import { encodeFrame, FrameDecoder } from '../../protocol/frame.ts';
import { limits } from '../../protocol/limits.ts';
import { type Hello, protocolVersion, type ServerMessage } from '../../protocol/messages.ts';
import { type Connection, ConnectionError } from '../../runtime/connection.ts';
import { dial, errorOfAll } from '../../runtime/dial.ts';
import { addressText, type HostPort, isLoopback } from '../../runtime/options.ts';
import { printable } from '../../runtime/words.ts';
import type { AgentKey } from '../key-file.ts';
import { JoinError } from './error.ts';
import type { JoinLine } from './line.ts';

export interface ProbeOptions {
  /** The name of this host, which needs no name server. */
  readonly hostName: string;
  /** Undefined: this host has no identity yet, and says no hello. */
  readonly hostId: string | undefined;
  readonly software: string;
}

/**
 * Finds the address of the server that answers and takes the key: within seconds, or a JoinError that says what to do.
 * It connects as the agent will, so an agent of this host that is connected under the same name is replaced, and connects
 * again.
 */
export async function probe({ servers, key }: JoinLine, options: ProbeOptions): Promise<HostPort> {
  const errors: ConnectionError[] = [];
  for (const server of withLoopback(servers, options.hostName)) {
    try {
      await probeOne(server, key, options);
      return server;
    } catch (error) {
      if (!(error instanceof ConnectionError)) throw error;
      errors.push(error);
    }
  }
  const error = errorOfAll(errors);
  throw new JoinError('server', `${error.message}; ${remedyOf(error, key)}`, { cause: error });
}

/** Whether the server of an agent answers and knows its key; nothing is said there under its name. Undefined, or why not. */
export async function tryServer({
  server,
  address,
  key,
  agentName,
}: {
  readonly server: HostPort;
  readonly address: string;
  readonly key: AgentKey | undefined;
  readonly agentName: string;
}): Promise<string | undefined> {
  try {
    const connection = await dial({
      ...{ ...server, psk: key, timeoutMs: dialMsMax, addressTimeoutMs: addressMsMax },
      resolve: (name) => addressesOf(name, address),
      signal: new AbortController().signal,
    });
    await connection.end();
    return undefined;
  } catch (error) {
    if (!(error instanceof ConnectionError)) throw error;
    return `${error.message}; ${remedyOf(error, { agentName })}`;
  }
}

/** What a person can do about a server that cannot be reached. */
export function remedyOf({ code }: Pick<ConnectionError, 'code'>, { agentName }: Pick<AgentKey, 'agentName'>): string {
  const again = `run 'sudo sysmon-server enroll ${agentName}' there again`;
  switch (code) {
    case 'name':
      return `make the name known to this host (DNS or /etc/hosts), or set SYSMON_ADVERTISE=ADDRESS:9732 in /etc/sysmon/server.env on the server and ${again}`;
    case 'refused':
      return "is the server running, and does it listen on that address? 'sudo sysmon-server check' there says where agents connect";
    case 'not-tls':
      return "'sudo sysmon-server check' there says where agents connect";
    case 'tls':
      return `it is another server's, or was made from a fleet key that has been retired: ${again}`;
    case 'timeout':
    case 'unreachable':
    case 'network':
      return "check the network, and that the server's port for agents (9732/tcp) is open to this host";
    case 'closed':
    case 'reset':
      return "something between this host and the server may end the connection, or the server has too many: see its log, 'journalctl -u sysmon-server'";
  }
}

/** The server's own host reaches it without asking anybody for its name. */
function withLoopback(servers: readonly HostPort[], hostName: string): readonly HostPort[] {
  const own = servers.find(({ host }) => host.toLowerCase() === hostName.toLowerCase());
  if (own === undefined || servers.some(({ host }) => isLoopback(host))) return servers;
  return [{ host: '127.0.0.1', port: own.port }, ...servers];
}

async function probeOne({ host, port }: HostPort, key: AgentKey, { hostId, software }: ProbeOptions): Promise<void> {
  const connection = await dial({
    ...{ host, port, psk: key, timeoutMs: dialMsMax, addressTimeoutMs: addressMsMax },
    resolve: (name) => addressesOf(name, addressText(host, port)),
    signal: new AbortController().signal,
  });
  try {
    if (hostId !== undefined) await sayHello(connection, { agentName: key.agentName, hostId, software });
  } finally {
    await connection.end();
  }
}

/** A key that has been revoked, or a name that another host has, is refused only now. */
async function sayHello(connection: Connection, hello: Omit<Hello, 'kind' | 'version'>): Promise<void> {
  const overdue = setTimeout(
    () => connection.destroy(new ConnectionError('timeout', `${connection.peer} did not answer the hello`)),
    helloMsMax,
  );
  try {
    await connection.write(encodeFrame(encodeMessage({ kind: 'hello', version: protocolVersion, ...hello })));
    const answer = await firstMessage(connection);
    if (answer.kind === 'welcome') return;
    const why = answer.kind === 'error' ? `(${printable(answer.code)}): ${printable(answer.text)}` : 'without a reason';
    throw new JoinError('server', `${connection.peer} refused this agent ${why}`);
  } finally {
    clearTimeout(overdue);
  }
}

async function firstMessage(connection: Connection): Promise<ServerMessage> {
  const decoder = new FrameDecoder({ payloadBytesMax: limits.agentBoundFrameBytesMax });
  try {
    for await (const chunk of connection) {
      for (const payload of decoder.push(chunk)) return decodeServerMessage(payload);
    }
  } catch (error) {
    if (!(error instanceof FrameError || error instanceof ProtocolError)) throw error;
    throw new JoinError('server', `${connection.peer} does not speak this protocol: ${error.message}`, {
      cause: error,
    });
  }
  throw new ConnectionError('closed', `${connection.peer} closed the connection`);
}

/**
 * As the system resolves names, in a process that can be ended: a program waits at its end for a query that is under way,
 * and without a name server that takes 10 s and longer.
 */
function addressesOf(name: string, peer: string): Promise<readonly string[]> {
  if (isIP(name) !== 0) return Promise.resolve([name]);
  const limit = { timeout: nameMsMax, killSignal: 'SIGKILL', encoding: 'utf8' } as const;
  return new Promise((resolve, reject) => {
    execFile(process.execPath, ['-e', lookupScript, name], limit, (error, stdout) => {
      const addresses = stdout.split('\n').filter((line) => isIP(line) !== 0);
      if (addresses.length > 0) return resolve(addresses);
      const why = error?.killed === true ? `no answer within ${nameMsMax / 1000} s` : stdout.trim();
      reject(new ConnectionError('name', `the name of ${peer} cannot be resolved: ${why || 'it has no address'}`));
    });
  });
}

const lookupScript = `require('node:dns').lookup(process.argv[1], { all: true, verbatim: true }, (error, found) => {
  console.log(error ? error.message : found.map(({ address }) => address).join('\\n'));
});`;

const nameMsMax = 2000;
const addressMsMax = 3000;
// For the name and all of its addresses.
const dialMsMax = 8000;
const helloMsMax = 3000;
