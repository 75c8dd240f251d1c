import { type AgentId, agentId } from '../../model/agent-id.ts';
import { ProtocolError } from '../../protocol/errors.ts';
import type { Hello } from '../../protocol/messages.ts';
import type { Clock } from '../../runtime/clock.ts';
import type { Connection } from '../../runtime/connection.ts';
import { parseIdentity } from './keys.ts';
import { Takeovers } from './takeovers.ts';

/** Which agents may connect: under the name that TLS has proved, with a key that is valid, from one host at a time. */
export class Admission {
  readonly #options: AdmissionOptions;
  readonly #live = new Map<AgentId, LiveAgent>();

  constructor(options: AdmissionOptions) {
    this.#options = options;
  }

  /** How many agents are connected. */
  get count(): number {
    return this.#live.size;
  }

  /** Admits an agent, in place of an older connection of the same host, or throws the ProtocolError to send. */
  admit(hello: Hello, admitted: Admitted, connection: Connection): Admittance {
    const id = agentId(hello.agentName);
    if (id === undefined) throw new ProtocolError('bad-message', `hello: '${hello.agentName}' is no agent's name`);
    this.#checkIdentity(id, connection.identity);
    const before = this.#live.get(id);
    if (before !== undefined) this.#checkTakeover(id, hello, before, connection);
    const takeovers = before?.takeovers ?? new Takeovers();
    const live: LiveAgent = { admitted, hostId: hello.hostId, identity: connection.identity, takeovers };
    this.#live.set(id, live);
    before?.admitted.refuse(
      new ProtocolError('replaced', `the same agent has connected again, from ${connection.peer}`),
    );
    return {
      id,
      stored: (epoch) => takeovers.stored(epoch),
      undo: () => {
        if (this.#live.get(id) === live) this.#live.delete(id);
      },
    };
  }

  /** Ends the connections whose identity is refused by now. Returns how many there were. */
  dropRevoked(): number {
    let count = 0;
    for (const { admitted, identity } of this.#live.values()) {
      const refusal = identity === undefined ? undefined : this.#options.refusal(identity);
      if (refusal === undefined) continue;
      admitted.refuse(new ProtocolError('revoked', refusal));
      count++;
    }
    return count;
  }

  /** Ends every connection. Returns how many there were. */
  refuseAll(error: ProtocolError): number {
    const all = [...this.#live.values()];
    for (const { admitted } of all) admitted.refuse(error);
    return all.length;
  }

  #checkIdentity(id: AgentId, identity: string | undefined): void {
    if (identity === undefined) return;
    if (parseIdentity(identity)?.name !== id) {
      throw new ProtocolError('bad-message', `hello: the name '${id}' is not that of the key, '${identity}'`);
    }
    const refusal = this.#options.refusal(identity);
    if (refusal !== undefined) throw new ProtocolError('revoked', refusal);
  }

  /** Only the same host may take the place of its own connection. */
  #checkTakeover(
    id: AgentId,
    { hostId }: Hello,
    { hostId: liveHostId, admitted, takeovers }: LiveAgent,
    newer: Connection,
  ): void {
    const isOther = hostId !== liveHostId;
    if (!isOther && takeovers.isAllowed(this.#options.clock.monotonicMs())) return;
    if (!isOther) this.#options.onClones(id);
    const what = isOther
      ? `an agent named '${id}' is connected from another host, ${admitted.peer}`
      : `two hosts run as '${id}' and have one machine-id, as cloned machines do; the other is connected from ${admitted.peer}`;
    const remedy =
      newer.identity === undefined
        ? 'give one of them another --name'
        : "enrol one of them under another name: 'sysmon-server enroll NAME'";
    throw new ProtocolError('name-taken', `${what}; ${remedy}`);
  }
}

export interface AdmissionOptions {
  readonly clock: Clock;
  /** Why an identity is refused, undefined if it is valid. */
  refusal(identity: string): string | undefined;
  /** Two hosts seem to have one identity. */
  onClones(id: AgentId): void;
}

/** What is known here of a connection. */
export interface Admitted {
  readonly peer: string;
  /** Ends it with an error that its peer can read. */
  refuse(error: ProtocolError): void;
}

/** The right of a connection to an agent's name. */
export interface Admittance {
  readonly id: AgentId;
  /** A report of this epoch was stored. */
  stored(epoch: number): void;
  undo(): void;
}

interface LiveAgent {
  readonly admitted: Admitted;
  readonly hostId: string;
  readonly identity: string | undefined;
  /** One object for all connections that have replaced each other. */
  readonly takeovers: Takeovers;
}
