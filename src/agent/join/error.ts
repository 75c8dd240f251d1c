import { CodedError } from '../../runtime/coded-error.ts';

/**
 * Joining did not work, and a person can correct it; the message says how. `server`: it cannot be reached or refuses the
 * key. `files`: they cannot be written. `unit`: it does not start. `not-connected`: the agent runs and has no connection.
 */
export class JoinError extends CodedError<'server' | 'files' | 'unit' | 'not-connected' | 'interrupted'> {
  override readonly name = 'JoinError';
}
