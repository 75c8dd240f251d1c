import { limits } from '../../protocol/limits.ts';
import type { Connection } from '../../runtime/connection.ts';
import type { Listener, ListenOptions, RefusedReason } from '../../runtime/listen.ts';
import type { SeldomLog } from '../../runtime/log.ts';
import { countedAddress } from '../../runtime/places.ts';
import { AgentConnection, type AgentConnectionOptions } from './connection.ts';

export interface IngestOptions extends Omit<AgentConnectionOptions, 'warn' | 'info' | 'onEnd' | 'onUnknown' | 'onBug'> {
  /** Opens the port: a real one, or one of the simulation. */
  readonly listen: (options: ListenOptions) => Promise<Listener>;
  readonly port: Pick<ListenOptions, 'address' | 'port' | 'psk' | 'connectionsMax' | 'connectionsPerAddressMax'>;
  readonly metrics: IngestMetrics;
  readonly seldom: SeldomLog;
}

export interface IngestMetrics {
  connection(): void;
  refused(reason: RefusedReason): void;
  ended(reason: string): void;
  unknownFrame(): void;
  bug(): void;
}

/** The agents' port, and the connections that it has accepted. Closing it waits for them to end. */
export async function openIngest(options: IngestOptions): Promise<Listener> {
  const { listen, port, metrics, seldom } = options;
  const running = new Set<Promise<void>>();
  let isClosing = false;
  const listener = await listen({
    ...port,
    handshakeTimeoutMs: limits.tlsHandshakeTimeoutMs,
    onConnection(connection: Connection) {
      metrics.connection();
      const agent = new AgentConnection(connection, {
        ...options,
        warn: seldom.warn,
        // When the server stops there is one line for all connections.
        info: (key, line) => (isClosing ? options.log.debug(line) : seldom.info(key, line)),
        onEnd: (reason) => metrics.ended(reason),
        onUnknown: () => metrics.unknownFrame(),
        onBug(who, error) {
          metrics.bug();
          seldom.error('bug', `a bug ended the connection of ${who}; please report it: ${stackOf(error)}`);
        },
      });
      const ended = agent.run().finally(() => running.delete(ended));
      running.add(ended);
      return agent.welcomed;
    },
    onRefused(reason, peer, error, identity) {
      metrics.refused(reason);
      // A peer may claim what it likes, kilobytes of it.
      const claim = identity === undefined ? '' : ` (says it is '${shortened(identity)}')`;
      const address = peer.replace(/:\d+$/, '').replace(/^\[(.*)\]$/, '$1');
      seldom.warn(
        `${reason} ${countedAddress(address)}`,
        `peer ${peer}${claim} is refused: ${error?.message ?? refusals[reason]}`,
      );
    },
  });
  return {
    port: listener.port,
    get connections() {
      return listener.connections;
    },
    async close() {
      isClosing = true;
      await listener.close();
      await Promise.all(running);
    },
  };
}

const identityShownMax = 80;
const shortened = (text: string): string =>
  text.length > identityShownMax ? `${text.slice(0, identityShownMax)}…` : text;

function stackOf(error: unknown): string {
  return error instanceof Error && error.stack !== undefined ? error.stack : String(error);
}

const refusals = {
  full: 'as many connections as --connections-max allows',
  'full-address': 'as many connections from its address as --connections-per-address-max allows',
  'crowded-out': 'it had not said hello when another needed its place',
  tls: 'no key was proved',
  'handshake-timeout': 'its handshake took too long',
} as const;
