import { type AgentId, agentId } from '../../model/agent-id.ts';
import { ProtocolError } from '../../protocol/errors.ts';
import type { Hello } from '../../protocol/messages.ts';
import type { Clock } from '../../runtime/clock.ts';
import type { Connection } from '../../runtime/connection.ts';
import type { Log } from '../../runtime/log.ts';
import { parseIdentity } from './keys.ts';

/** Which agents may connect: under the name that TLS has proved, with a key that is valid, from one host at a time. */
export class Admission {
  readonly #options: AdmissionOptions;
  readonly #live = new Map<AgentId, LiveAgent>();

  constructor(options: AdmissionOptions) {
    this.#options = options;
  }

  /** Admits an agent, in place of an older connection of the same host, or throws the ProtocolError to send. */
  admit(hello: Hello, admitted: Admitted, connection: Connection): { readonly id: AgentId; undo(): void } {
    const id = agentId(hello.agentName);
    if (id === undefined) throw new ProtocolError('bad-message', `hello: '${hello.agentName}' is no agent's name`);
    this.#checkIdentity(id, connection.identity);
    const before = this.#live.get(id);
    if (before !== undefined && before.hostId !== hello.hostId) {
      throw new ProtocolError(
        'name-taken',
        `an agent named '${id}' is connected from another host, ${before.admitted.peer}; ` +
          (connection.identity === undefined
            ? 'give one of them another --name'
            : "enrol one of them under another name: 'sysmon-server enroll NAME'"),
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

  #takeover(id: AgentId, before: LiveAgent, peer: string): number[] {
    const nowMs = this.#options.clock.monotonicMs();
    const takeoversMs = [...before.takeoversMs.filter((ms) => nowMs - ms < takeoverSpanMs), nowMs];
    if (takeoversMs.length >= takeoversMax) {
      this.#options.onClones(id);
      this.#options.log.warn(
        `agent '${id}' has replaced its own connection ${takeoversMs.length} times in a minute, last from ${peer} after ` +
          `${before.admitted.peer}: two hosts have one identity, as cloned machines do; enrol one of them again`,
      );
      return [];
    }
    return takeoversMs;
  }
}

export interface AdmissionOptions {
  readonly clock: Clock;
  readonly log: Log;
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

interface LiveAgent {
  readonly admitted: Admitted;
  readonly hostId: string;
  readonly identity: string | undefined;
  readonly takeoversMs: readonly number[];
}

const takeoversMax = 3;
const takeoverSpanMs = 60_000;
