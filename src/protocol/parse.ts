import { agentId } from '../model/agent-id.ts';
import { metricTypes } from '../model/family.ts';
import { ProtocolError, type ProtocolErrorCode, shown } from './errors.ts';
import { limits } from './limits.ts';
import type {
  AgentMessage,
  EpochSeq,
  FamilyDeclaration,
  Hello,
  Pairs,
  ReportMessage,
  SchemaMessage,
  ServerMessage,
} from './message.ts';
import { isLabelName } from './names.ts';

/** The kinds of version 1, as they stand first in a payload. */
export const agentKinds = { hello: 1, begin: 2, schema: 3, report: 4, key: 5, ping: 6 } as const;
export const serverKinds = { welcome: 1, ack: 2, error: 3, pong: 4 } as const;

/** What an agent sent, decoded, as a message: each field is what its type says and within its bounds. */
export function parseAgentMessage(value: unknown): AgentMessage {
  const fields = array(value, 'message');
  const kind = integer(fields[0], 'message kind', anyInteger);
  switch (kind) {
    case agentKinds.hello:
      return hello(fields);
    case agentKinds.begin:
      return {
        kind: 'begin',
        epoch: integer(fields[1], 'begin epoch', anyCount),
        offsetMs: integer(fields[2], 'begin offsetMs', anyInteger),
      };
    case agentKinds.schema:
      return schema(fields);
    case agentKinds.report:
    case agentKinds.key:
      return report(fields, kind === agentKinds.key);
    case agentKinds.ping:
      return { kind: 'ping', nonce: integer(fields[1], 'ping nonce', anyInteger) };
    default:
      return unknownKind(kind);
  }
}

/** What a server sent. */
export function parseServerMessage(value: unknown): ServerMessage {
  const fields = array(value, 'message');
  const kind = integer(fields[0], 'message kind', anyInteger);
  switch (kind) {
    case serverKinds.welcome:
      return {
        kind: 'welcome',
        version: integer(fields[1], 'welcome version', positive),
        epochs: epochSeqs(array(fields[2], 'welcome epochs')),
        nowMs: integer(fields[3], 'welcome nowMs', anyCount),
      };
    case serverKinds.ack:
      return {
        kind: 'ack',
        epoch: integer(fields[1], 'ack epoch', anyCount),
        seq: integer(fields[2], 'ack seq', anyCount),
      };
    case serverKinds.error:
      return { kind: 'error', code: string(fields[1], 'error code'), text: string(fields[2], 'error text') };
    case serverKinds.pong:
      return {
        kind: 'pong',
        nonce: integer(fields[1], 'pong nonce', anyInteger),
        nowMs: integer(fields[2], 'pong nowMs', anyCount),
      };
    default:
      return unknownKind(kind);
  }
}

function hello(fields: readonly unknown[]): Hello {
  // Before all else: what the other fields of another version mean is not ours to judge.
  const version = integer(fields[1], 'hello version', anyInteger);
  if (version < 1) throw new ProtocolError('version', `hello version: was ${version}, expected 1 or more`);
  const agentName = string(fields[2], 'hello agentName');
  if (agentId(agentName) === undefined) {
    throw bad('hello agentName', agentName, `1 to ${limits.agentNameCharactersMax} of A-Z a-z 0-9 . _ -`);
  }
  const hostId = string(fields[3], 'hello hostId');
  const hostIdBytes = Buffer.byteLength(hostId);
  if (hostIdBytes < 1 || hostIdBytes > limits.hostIdBytesMax) {
    throw refusal(
      'bad-message',
      'hello hostId',
      `${shown(hostId)} of ${hostIdBytes} bytes`,
      `1 to ${limits.hostIdBytesMax} bytes`,
    );
  }
  return {
    kind: 'hello',
    version,
    agentName,
    hostId,
    labels: labels(array(fields[4], 'hello labels')),
    intervalMs: integer(fields[5], 'hello intervalMs', intervals),
  };
}

function labels(flat: readonly unknown[]): Hello['labels'] {
  if (flat.length % 2 !== 0)
    throw refusal('bad-message', 'hello labels', `${flat.length} strings`, 'names and values in turn');
  const count = flat.length / 2;
  if (count > limits.labelsMax) {
    throw new ProtocolError('limit', `hello labels: ${count} pairs, at most ${limits.labelsMax} are allowed`);
  }
  const pairs: [string, string][] = [];
  const names = new Set<string>();
  for (let at = 0; at < flat.length; at += 2) {
    const name = string(flat[at], 'hello label name');
    const value = string(flat[at + 1], `hello label ${shown(name)}`);
    if (!isLabelName(name)) {
      const expected = "a label name of Prometheus's without '__' in front, and not 'agent'";
      throw refusal('bad-label', 'hello label name', shown(name), expected);
    }
    if (names.has(name)) throw new ProtocolError('bad-label', `hello label ${shown(name)}: given twice`);
    names.add(name);
    pairs.push([name, value]);
  }
  return pairs;
}

function schema(fields: readonly unknown[]): SchemaMessage {
  const families: FamilyDeclaration[] = [];
  for (let at = 1; at < fields.length; at++) families.push(family(array(fields[at], `schema family ${at}`)));
  return { kind: 'schema', families };
}

function family(fields: readonly unknown[]): FamilyDeclaration {
  const name = string(fields[0], 'schema family name');
  const what = `schema family ${shown(name)}`;
  if (fields.length !== familyFieldCount)
    throw refusal('bad-message', what, `${fields.length} fields`, `${familyFieldCount}`);
  const type = string(fields[1], `${what}, type`);
  const help = string(fields[2], `${what}, help`);
  const unit = string(fields[3], `${what}, unit`);
  const divisor = integer(fields[4], `${what}, divisor`, anyInteger);
  const labelNames = strings(fields[5], `${what}, labelNames`);
  const seriesCount = integer(fields[6], `${what}, seriesCount`, anyInteger);
  const labelValues = strings(fields[7], `${what}, labelValues`);

  const metricType = metricTypes.find((known) => known === type);
  if (metricType === undefined) throw refusal('schema', `${what}, type`, shown(type), metricTypes.join(' or '));
  if (divisor < 1 || divisor > limits.divisorMax) {
    throw refusal('schema', `${what}, divisor`, divisor, `1 to ${limits.divisorMax}`);
  }
  // A family without a series says nothing, and each would cost memory that no count of series bounds.
  if (seriesCount < 1) throw refusal('schema', `${what}, seriesCount`, seriesCount, '1 or more');
  const expectedValues = seriesCount * labelNames.length;
  if (labelValues.length !== expectedValues) {
    const expected = `${expectedValues}: ${seriesCount} series of ${labelNames.length} labels`;
    throw refusal('schema', `${what}, labelValues`, `${labelValues.length} strings`, expected);
  }
  return { family: { name, type: metricType, help, unit, divisor, labelNames }, seriesCount, labelValues };
}

function report(fields: readonly unknown[], key: boolean): ReportMessage {
  const seq = integer(fields[1], 'report seq', positive);
  const timeMs = integer(fields[2], 'report timeMs', anyCount);
  const pairs = fields.slice(reportHeaderFieldCount);
  for (let at = 0; at < pairs.length; at++) {
    const element = pairs[at];
    if (typeof element !== 'number' && element !== null) {
      throw bad(`report pair ${at >> 1}`, element, 'a skip and a delta, each an integer, a number or nil');
    }
  }
  // Each element has just been seen to be a number or null.
  return { kind: 'report', key, seq, timeMs, pairs: pairs as unknown as Pairs };
}

function epochSeqs(flat: readonly unknown[]): EpochSeq[] {
  if (flat.length % 2 !== 0)
    throw refusal('bad-message', 'welcome epochs', `${flat.length} elements`, 'epochs and seqs in turn');
  const epochs: EpochSeq[] = [];
  for (let at = 0; at < flat.length; at += 2) {
    epochs.push({
      epoch: integer(flat[at], 'welcome epoch', anyCount),
      seq: integer(flat[at + 1], 'welcome seq', anyCount),
    });
  }
  return epochs;
}

function unknownKind(kind: number): { kind: 'unknown'; number: number } {
  if (kind < 1) throw bad('message kind', kind, '1 or more');
  return { kind: 'unknown', number: kind };
}

const familyFieldCount = 8;
const reportHeaderFieldCount = 3;

const anyInteger = { min: Number.MIN_SAFE_INTEGER, max: Number.MAX_SAFE_INTEGER };
const anyCount = { min: 0, max: Number.MAX_SAFE_INTEGER };
const positive = { min: 1, max: Number.MAX_SAFE_INTEGER };
const intervals = { min: limits.intervalMsMin, max: Number.MAX_SAFE_INTEGER };

function integer(value: unknown, what: string, range: { min: number; max: number }): number {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= range.min && value <= range.max) {
    return value + 0; // -0 becomes 0
  }
  const from = range.min === anyInteger.min ? '' : ` of ${range.min} or more`;
  throw bad(what, value, `an integer${from}`);
}

function string(value: unknown, what: string): string {
  if (typeof value === 'string') return value;
  throw bad(what, value, 'a string');
}

function array(value: unknown, what: string): readonly unknown[] {
  if (Array.isArray(value)) return value;
  throw bad(what, value, 'an array');
}

function strings(value: unknown, what: string): readonly string[] {
  const elements = array(value, what);
  for (const element of elements) string(element, what);
  // Each element has just been seen to be a string.
  return elements as readonly string[];
}

function bad(what: string, value: unknown, expected: string): ProtocolError {
  return refusal('bad-message', what, value === undefined ? 'missing' : shown(value), expected);
}

function refusal(code: ProtocolErrorCode, what: string, was: string | number, expected: string): ProtocolError {
  return new ProtocolError(code, `${what}: was ${was}, expected ${expected}`);
}
