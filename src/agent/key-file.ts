import { agentId } from '../model/agent-id.ts';
import { readSecretFile, SecretFileError } from '../runtime/secret-file.ts';

/** What makes an agent that agent: who it is, and the key that proves it. */
export interface AgentKey {
  /** As the server gave it: `web-1:1:5c9e0b3a`. Not secret. */
  readonly identity: string;
  /** The agent's name: the identity up to its first colon. */
  readonly agentName: string;
  readonly key: Buffer;
}

/** The first word of a key file; the number changes when the meaning of the rest does. */
const keyFileVersion = 'sysmon-key-v1';

/** The key in the file of one line, `sysmon-key-v1 IDENTITY HEX`. Throws a SecretFileError that names the file. */
export function readKeyFile(path: string): AgentKey {
  const key = parseKeyFile(readSecretFile(path));
  if (key !== undefined) return key;
  // What the file holds is not shown: it may be a key.
  throw new SecretFileError(
    'format',
    `key file '${path}': expected one line '${keyFileVersion} IDENTITY KEY', where the key is 64 hex digits`,
  );
}

/** The text of a key file. `hex` are the 64 digits of the key. */
export function encodeKeyFile(identity: string, hex: string): string {
  return `${keyFileVersion} ${identity} ${hex}\n`;
}

/** Undefined if the text is no key file. */
export function parseKeyFile(text: string): AgentKey | undefined {
  const match = /^sysmon-key-v1 ([^: ]+)(:[A-Za-z0-9:._-]{1,64}) ([0-9a-fA-F]{64})\s*$/.exec(text);
  const [, agentName = '', rest = '', hex = ''] = match ?? [];
  return agentId(agentName) && { identity: agentName + rest, agentName, key: Buffer.from(hex, 'hex') };
}
