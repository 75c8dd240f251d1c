import { type AgentId, agentId } from '../../model/agent-id.ts';
import { ProtocolError } from '../../protocol/errors.ts';
import type { Hello } from '../../protocol/messages.ts';
import type { Clock } from '../../runtime/clock.ts';
import type { Connection } from '../../runtime/connection.ts';
import type { Log } from '../../runtime/log.ts';
import { parseIdentity } from './keys.ts';

/**
 * Who may be whom: the name that TLS has proved must be the name that the hello says, a revoked generation stays out,
 * and one name is one host at a time.
 */
export class Admission {
  readonly #options: AdmissionOptions;
  readonly #live = new Map<AgentId, LiveAgent>();

  constructor(options: AdmissionOptions) {
    this.#options = options;
  }

  /** Lets an agent in, in the place of an older connection of the same host, or throws the ProtocolError to send. */
  admit(hello: Hello, admitted: Admitted, connection: Connection): { readonly id: AgentId; undo(): void } {
    const id = agentId(hello.agentName);
    if (id === undefined) throw new ProtocolError('bad-message', `hello: '${hello.agentName}' is no agent's name`);
    this.#checkIdentity(id, connection.identity);
    const before = this.#live.get(id);
    if (before !== undefined && before.hostId !== hello.hostId) {
      throw new ProtocolError(
        'name-taken',
        `an agent named '${id}' is connected from another host, ${before.admitted.peer}; give one of them another --name`,
      );
    }
    const takeoversMs = before === undefined ? [] : this.#takeover(id, before, connection.peer);
    const live: LiveAgent = { admitted, hostId: hello.hostId, identity: connection.identity, takeoversMs };
    this.#live.set(id, live);
    before?.admitted.refuse(
      new ProtocolError('replaced', `the same agent has connected again, from ${connection.peer}`),
    );
    return {
      id,
      undo: () => {
        if (this.#live.get(id) === live) this.#live.delete(id);
      },
    };
  }

  /** Ends the live connection of every identity that is revoked by now. Returns how many there were. */
  dropRevoked(): number {
    let count = 0;
    for (const { admitted, identity } of this.#live.values()) {
      if (identity === undefined || !this.#options.isRevoked(identity)) continue;
      admitted.refuse(revoked(identity));
      count++;
    }
    return count;
  }

  /** Ends every live connection. Returns how many there were. */
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
    if (this.#options.isRevoked(identity)) throw revoked(identity);
  }

  #takeover(id: AgentId, before: LiveAgent, peer: string): number[] {
    const nowMs = this.#options.clock.monotonicMs();
    const takeoversMs = [...before.takeoversMs.filter((ms) => nowMs - ms < takeoverSpanMs), nowMs];
    if (takeoversMs.length >= takeoversMax) {
      this.#options.onClones(id);
      this.#options.log.warn(
        `agent '${id}' has replaced its own connection ${takeoversMs.length} times in a minute, last from ${peer} after ` +
          `${before.admitted.peer}: two hosts run with one identity, as cloned machines do; enrol one of them anew`,
      );
      return [];
    }
    return takeoversMs;
  }
}

export interface AdmissionOptions {
  readonly clock: Clock;
  readonly log: Log;
  isRevoked(identity: string): boolean;
  /** Two hosts seem to have one identity. */
  onClones(id: AgentId): void;
}

/** A connection, as far as it is known here. */
export interface Admitted {
  readonly peer: string;
  /** Ends it with an error that its peer can read. */
  refuse(error: ProtocolError): void;
}

interface LiveAgent {
  readonly admitted: Admitted;
  readonly hostId: string;
  readonly identity: string | undefined;
  readonly takeoversMs: readonly number[];
}

const takeoversMax = 3;
const takeoverSpanMs = 60_000;

const revoked = (identity: string): ProtocolError =>
  new ProtocolError('revoked', `the key '${identity}' has been revoked; enrol the agent again`);
