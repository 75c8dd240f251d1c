import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decodeAgentMessage, decodeServerMessage, encodeMessage } from '../../src/protocol/codec.ts';
import { ProtocolError, permanent, protocolErrorCodes } from '../../src/protocol/errors.ts';
import { limits } from '../../src/protocol/limits.ts';
import { parseAgentMessage, parseServerMessage } from '../../src/protocol/parse.ts';
import { type Packable, pack } from '../support/messagepack.ts';

const hello = [1, 1, 'web-1', 'host', ['rack', 'a'], 5000];
const family = ['a', 'gauge', 'Help.', '', 1, ['x'], 1, ['1']];
const begin = [2, 7, 0];
const report = [4, 1, 1000, 0, 5];

/** The array with one field replaced; without a value it ends before that field. */
function with_(fields: readonly Packable[], at: number, ...value: Packable[]): Packable[] {
  return value.length === 0 ? fields.slice(0, at) : fields.map((field, i) => (i === at ? value[0]! : field));
}

function labels(count: number): string[] {
  return Array.from({ length: count }, (_, i) => [`l${i}`, 'v']).flat();
}

const accepted: [what: string, fields: Packable[]][] = [
  ['a hello', hello],
  ['a hello of a later version', with_(hello, 1, 2)],
  ['an agentName of 1', with_(hello, 2, '-')],
  [`an agentName of ${limits.agentNameCharactersMax}`, with_(hello, 2, 'A._-9'.repeat(30).slice(0, 128))],
  ['an agentName of 127', with_(hello, 2, 'a'.repeat(127))],
  ['a hostId of 1', with_(hello, 3, ' ')],
  [`a hostId of ${limits.hostIdBytesMax} bytes`, with_(hello, 3, 'ü'.repeat(32))],
  ['a hostId of 63 bytes', with_(hello, 3, 'x'.repeat(63))],
  ['no labels', with_(hello, 4, [])],
  [`${limits.labelsMax} labels`, with_(hello, 4, labels(32))],
  ['31 labels', with_(hello, 4, labels(31))],
  ['a label without value', with_(hello, 4, ['_x', ''])],
  [`an intervalMs of ${limits.intervalMsMin}`, with_(hello, 5, 100)],
  ['an intervalMs of 101', with_(hello, 5, 101)],
  ['a begin', begin],
  ['a begin of epoch 0, an offset into the past', [2, 0, -(2 ** 53) + 1]],
  ['a begin of the greatest epoch', with_(begin, 1, 2 ** 53 - 1)],
  ['a schema', [3, family]],
  ['an empty schema', [3]],
  ['a divisor of 2^31', [3, with_(family, 4, 2 ** 31)]],
  ['a divisor of 2^31 - 1', [3, with_(family, 4, 2 ** 31 - 1)]],
  ['series without labels', [3, ['a', 'counter', '', 'bytes', 100, [], 1, []]]],
  ['a report', report],
  ['a report without pairs', [5, 1, 0]],
  ['a ping', [6, -5]],
  ['a kind 7', [7]],
  ['a kind 7 of anything', [7, 'text', [[[]]], null, true, 0.5]],
];
for (const [what, fields] of accepted) {
  test(`an agent may send ${what}`, () => {
    decodeAgentMessage(pack(fields));
  });
}

const refused: [field: string, code: string, fields: Packable[], says: RegExp][] = [
  ['message kind', 'bad-message', [0], /message kind: was 0, expected 1 or more/],
  ['message kind', 'bad-message', [-1], /message kind: was -1, expected 1 or more/],

  ['version', 'bad-message', [1], /hello version: was missing, expected an integer/],
  ['version', 'bad-message', with_(hello, 1, '1'), /hello version: was "1", expected an integer/],
  ['version', 'bad-message', with_(hello, 1, 1.5), /hello version: was 1.5/],
  ['version', 'version', with_(hello, 1, 0), /hello version: was 0, expected 1 or more/],
  ['version', 'version', [1, -1], /hello version: was -1/],
  ['agentName', 'bad-message', with_(hello, 2), /hello agentName: was missing/],
  ['agentName', 'bad-message', with_(hello, 2, 5), /hello agentName: was 5, expected a string/],
  ['agentName', 'bad-message', with_(hello, 2, ''), /hello agentName: was "", expected 1 to 128/],
  ['agentName', 'bad-message', with_(hello, 2, 'a'.repeat(129)), /hello agentName: was "a+…", expected 1 to 128/],
  ['agentName', 'bad-message', with_(hello, 2, 'a b\n'), /hello agentName: was "a b\\n", expected/],
  ['hostId', 'bad-message', with_(hello, 3), /hello hostId: was missing/],
  ['hostId', 'bad-message', with_(hello, 3, null), /hello hostId: was null/],
  ['hostId', 'bad-message', with_(hello, 3, ''), /hello hostId/],
  ['hostId', 'bad-message', with_(hello, 3, 'ü'.repeat(32).concat('x')), /65 bytes, expected 1 to 64/],
  ['labels', 'bad-message', with_(hello, 4), /hello labels: was missing, expected an array/],
  ['labels', 'bad-message', with_(hello, 4, 'a'), /hello labels: was "a", expected an array/],
  ['labels', 'bad-message', with_(hello, 4, ['a']), /hello labels: was 1 strings/],
  ['labels', 'bad-message', with_(hello, 4, ['a', 5]), /hello label "a": was 5, expected a string/],
  ['labels', 'bad-message', with_(hello, 4, [5, 'a']), /hello label name: was 5/],
  ['labels', 'limit', with_(hello, 4, labels(33)), /33 pairs, at most 32/],
  ['labels', 'bad-label', with_(hello, 4, ['agent', 'x']), /hello label name: was "agent"/],
  ['labels', 'bad-label', with_(hello, 4, ['__name__', 'x']), /"__name__"/],
  ['labels', 'bad-label', with_(hello, 4, ['__x', 'x']), /"__x"/],
  ['labels', 'bad-label', with_(hello, 4, ['', 'x']), /was ""/],
  ['labels', 'bad-label', with_(hello, 4, ['0a', 'x']), /was "0a"/],
  ['labels', 'bad-label', with_(hello, 4, ['a-b', 'x']), /was "a-b"/],
  ['labels', 'bad-label', with_(hello, 4, ['ä', 'x']), /was "ä"/],
  ['labels', 'bad-label', with_(hello, 4, ['a\n', 'x']), /was "a\\n"/],
  ['labels', 'bad-label', with_(hello, 4, ['a', '1', 'a', '2']), /hello label "a": given twice/],
  ['intervalMs', 'bad-message', with_(hello, 5), /hello intervalMs: was missing, expected an integer of 100 or more/],
  ['intervalMs', 'bad-message', with_(hello, 5, 99), /hello intervalMs: was 99/],
  ['intervalMs', 'bad-message', with_(hello, 5, 100.5), /hello intervalMs: was 100.5/],
  ['intervalMs', 'bad-message', with_(hello, 5, Infinity), /hello intervalMs: was Infinity/],

  ['epoch', 'bad-message', [2], /begin epoch: was missing/],
  ['epoch', 'bad-message', with_(begin, 1, -1), /begin epoch: was -1, expected an integer of 0 or more/],
  ['epoch', 'bad-message', with_(begin, 1, 2 ** 53), /begin epoch: was 9007199254740992/],
  ['offsetMs', 'bad-message', with_(begin, 2), /begin offsetMs: was missing/],
  ['offsetMs', 'bad-message', with_(begin, 2, 0.5), /begin offsetMs: was 0.5/],

  ['family', 'bad-message', [3, 'a'], /schema family 1: was "a", expected an array/],
  ['family', 'bad-message', [3, []], /schema family name: was missing/],
  ['family', 'bad-message', [3, family.slice(0, 7)], /schema family "a": was 7 fields, expected 8/],
  ['family', 'bad-message', [3, [...family, 1]], /schema family "a": was 9 fields/],
  ['type', 'bad-message', [3, with_(family, 1, 1)], /schema family "a", type: was 1, expected a string/],
  ['type', 'schema', [3, with_(family, 1, 'histogram')], /type: was "histogram", expected counter or gauge or untyped/],
  ['type', 'schema', [3, with_(family, 1, '')], /type: was ""/],
  ['help', 'bad-message', [3, with_(family, 2, null)], /help: was null/],
  ['unit', 'bad-message', [3, with_(family, 3, true)], /unit: was true/],
  ['divisor', 'bad-message', [3, with_(family, 4, 1.5)], /divisor: was 1.5/],
  ['divisor', 'schema', [3, with_(family, 4, 0)], /divisor: was 0, expected 1 to 2147483648/],
  ['divisor', 'schema', [3, with_(family, 4, -1)], /divisor: was -1/],
  ['divisor', 'schema', [3, with_(family, 4, 2 ** 31 + 1)], /divisor: was 2147483649/],
  ['labelNames', 'bad-message', [3, with_(family, 5, 'x')], /labelNames: was "x", expected an array/],
  ['labelNames', 'bad-message', [3, with_(family, 5, [1])], /labelNames: was 1, expected a string/],
  ['seriesCount', 'bad-message', [3, with_(family, 6, null)], /seriesCount: was null/],
  ['seriesCount', 'schema', [3, with_(family, 6, -1)], /seriesCount: was -1/],
  ['seriesCount', 'schema', [3, ['a', 'gauge', '', '', 1, ['x'], 0, []]], /seriesCount: was 0, expected 1 or more/],
  ['labelValues', 'schema', [3, with_(family, 6, 2)], /labelValues: was 1 strings, expected 2: 2 series of 1 labels/],
  ['labelValues', 'schema', [3, with_(family, 7, ['a', 'b'])], /labelValues: was 2 strings, expected 1/],
  ['labelValues', 'bad-message', [3, with_(family, 7, [5])], /labelValues: was 5, expected a string/],

  ['seq', 'bad-message', [4], /report seq: was missing/],
  ['seq', 'bad-message', with_(report, 1, 0), /report seq: was 0, expected an integer of 1 or more/],
  ['seq', 'bad-message', with_(report, 1, 2 ** 53), /report seq/],
  ['timeMs', 'bad-message', with_(report, 2), /report timeMs: was missing/],
  ['timeMs', 'bad-message', with_(report, 2, -1), /report timeMs: was -1/],
  ['timeMs', 'bad-message', with_(report, 2, 0.5), /report timeMs: was 0.5/],
  ['pairs', 'bad-message', with_(report, 3, true), /report pair 0: was true/],
  ['pairs', 'bad-message', with_(report, 4, []), /report pair 0: was an array of 0/],

  ['nonce', 'bad-message', [6], /ping nonce: was missing/],
  ['nonce', 'bad-message', [6, 'x'], /ping nonce: was "x"/],
];
for (const [field, code, fields, says] of refused) {
  test(`an agent may not send ${field}: ${says.source}`, () => {
    assert.throws(
      () => decodeAgentMessage(pack(fields)),
      (error) => error instanceof ProtocolError && error.code === code && says.test(error.message),
    );
  });
}

const refusedFromServer: [fields: Packable[], says: RegExp][] = [
  [[0], /message kind: was 0/],
  [[1], /welcome version: was missing/],
  [[1, 0, [], 5], /welcome version: was 0/],
  [[1, 1, 5, 5], /welcome epochs: was 5, expected an array/],
  [[1, 1, [5], 5], /welcome epochs: was 1 elements, expected epochs and seqs in turn/],
  [[1, 1, [5, null], 5], /welcome seq: was null/],
  [[1, 1, [0.5, 1], 5], /welcome epoch: was 0.5/],
  [[1, 1, [], -5], /welcome nowMs: was -5/],
  [[1, 1, []], /welcome nowMs: was missing/],
  [[2, -1, 5], /ack epoch: was -1/],
  [[2, 1], /ack seq: was missing/],
  [[3, 5, 'x'], /error code: was 5/],
  [[3, 'x'], /error text: was missing/],
  [[4, 'x', 5], /pong nonce: was "x"/],
  [[4, 5], /pong nowMs: was missing/],
];
for (const [fields, says] of refusedFromServer) {
  test(`a server may not send: ${says.source}`, () => {
    assert.throws(
      () => decodeServerMessage(pack(fields)),
      (error) => error instanceof ProtocolError && error.code === 'bad-message' && says.test(error.message),
    );
  });
}

test('what no guard has seen is refused all the same', () => {
  for (const value of [undefined, null, {}, 'x', 1, new Map(), [undefined], [{}], [Symbol('x')]]) {
    assert.throws(() => parseAgentMessage(value), ProtocolError);
    assert.throws(() => parseServerMessage(value), ProtocolError);
  }
});

test('each error of the wire travels; three of them are permanent', () => {
  for (const code of protocolErrorCodes) {
    const sent = decodeServerMessage(encodeMessage({ kind: 'error', code, text: 'why' }));
    assert.deepEqual(sent, { kind: 'error', code, text: 'why' });
  }
  assert.deepEqual(protocolErrorCodes.filter(permanent), ['version', 'name-taken', 'revoked']);
  assert.equal(permanent('a code of a later version'), false);
});

test('an error message quotes a peer briefly and without control characters', () => {
  const name = `\u001b[31m${'x'.repeat(1000)}`;
  assert.throws(
    () => decodeAgentMessage(pack(with_(hello, 2, name))),
    (error: Error) => error.message.length < 200 && !error.message.includes('\u001b'),
  );
});
