import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decodeAgentMessage, decodeServerMessage, encodeMessage } from '../../src/protocol/codec.ts';
import { ProtocolError, permanent, protocolErrorCodes } from '../../src/protocol/errors.ts';
import { limits } from '../../src/protocol/limits.ts';
import { type AgentMessage, agentKinds, type Handlers, handle, serverKinds } from '../../src/protocol/messages.ts';
import { pingOf } from '../support/groups.ts';
import { type Packable, pack } from '../support/messagepack.ts';

const hello = [1, 1, 'web-1', 'host', 'sysmon-agent 0.1.0'];
const begin = [2, 7, 0, 'host', 5000, ['rack', 'a'], 0];
const group = ['', ['x'], 1, ['1']];
const family = ['a', 'gauge', 'Help.', 1, group];
const report = [4, 0, 1, 1000, 0, 5];
const ping = [6, 1, 0, 0];

/** The array with one field replaced; without a value it ends before that field. */
function with_(fields: readonly Packable[], at: number, ...value: Packable[]): Packable[] {
  return value.length === 0 ? fields.slice(0, at) : fields.map((field, i) => (i === at ? value[0]! : field));
}

function labels(count: number): string[] {
  return Array.from({ length: count }, (_, i) => [`l${i}`, 'v']).flat();
}

function source(id: number, name: string): Packable[] {
  return with_(with_(begin, 2, id), 3, name);
}

/** A schema of one family with this group alone. */
function grouped(only: readonly Packable[], type = 'gauge'): Packable[] {
  return [3, 0, ['a', type, 'Help.', 1, only]];
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
  ['a software of 1', with_(hello, 4, 'x')],
  [`a software of ${limits.softwareBytesMax} bytes`, with_(hello, 4, 'ü'.repeat(32))],
  ['a software of 63 bytes', with_(hello, 4, 'x'.repeat(63))],
  ['a begin', begin],
  ['a begin of epoch 0', with_(begin, 1, 0)],
  ['a begin of the greatest epoch', with_(begin, 1, 2 ** 53 - 1)],
  ['a begin of another source', source(1, 'redis-1')],
  [`a source name of ${limits.sourceNameCharactersMax}`, source(2 ** 53 - 1, 'A._-9'.repeat(30).slice(0, 64))],
  ['a source name of 63', source(2, 'a'.repeat(63))],
  ['a source name of 1', source(2, '-')],
  ['no labels', with_(begin, 5, [])],
  [`${limits.labelsMax} labels`, with_(begin, 5, labels(32))],
  ['31 labels', with_(begin, 5, labels(31))],
  [`labels of ${limits.labelsBytesMax} bytes`, with_(begin, 5, ['a', 'x'.repeat(511), 'b', `${'ü'.repeat(255)}x`])],
  ['labels of 1023 bytes', with_(begin, 5, ['a', 'x'.repeat(511), 'b', 'x'.repeat(510)])],
  ['a label without value', with_(begin, 5, ['_x', ''])],
  [`an intervalMs of ${limits.intervalMsMin}`, with_(begin, 4, 100)],
  ['an intervalMs of 101', with_(begin, 4, 101)],
  ['an offset into the past', with_(begin, 6, -(2 ** 53) + 1)],
  ['a schema', [3, 0, family]],
  ['an empty schema', [3, 0]],
  ['a divisor of 2^31', [3, 0, with_(family, 3, 2 ** 31)]],
  ['a divisor of 2^31 - 1', [3, 0, with_(family, 3, 2 ** 31 - 1)]],
  ['series without labels', [3, 0, ['a', 'counter', '', 100, ['', [], 1, []]]]],
  ['a family of several groups', [3, 0, [...family, ['', ['x', 'y'], 1, ['1', '2']]]]],
  [
    'a histogram',
    [3, 1, ['a', 'histogram', '', 1, ...['_bucket', '_sum', '_count'].map((suffix) => [suffix, [], 1, []])]],
  ],
  ['a summary', [3, 1, ['a', 'summary', '', 1, ...['', '_sum', '_count'].map((suffix) => [suffix, [], 1, []])]]],
  ['a report', report],
  ['a report without pairs', [5, 0, 1, 0]],
  ['a report of another source', with_(report, 1, 2 ** 53 - 1)],
  ['a ping', ping],
  ['a ping of -5', with_(ping, 1, -5)],
  ['a kind 7', [7]],
  ['a kind 7 of anything', [7, 'text', [[[]]], null, true, 0.5]],
];
for (const [what, fields] of accepted) {
  test(`an agent may send ${what}`, () => {
    decodeAgentMessage(pack(fields));
  });
}

const refused: [field: string, code: string, fields: Packable[], says: RegExp][] = [
  ['message kind', 'bad-message', [0], /message kind: was 0, expected an integer of 1 or more/],
  ['message kind', 'bad-message', [-1], /message kind: was -1, expected an integer of 1 or more/],

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
  ['software', 'bad-message', with_(hello, 4), /hello software: was missing/],
  ['software', 'bad-message', with_(hello, 4, 1), /hello software: was 1, expected a string/],
  ['software', 'bad-message', with_(hello, 4, ''), /hello software: was "" of 0 bytes, expected 1 to 64 bytes/],
  ['software', 'bad-message', with_(hello, 4, 'x'.repeat(65)), /65 bytes, expected 1 to 64/],

  ['epoch', 'bad-message', [2], /begin epoch: was missing/],
  ['epoch', 'bad-message', with_(begin, 1, -1), /begin epoch: was -1, expected an integer of 0 or more/],
  ['epoch', 'bad-message', with_(begin, 1, 2 ** 53), /begin epoch: was 9007199254740992/],
  ['source', 'bad-message', with_(begin, 2), /begin source: was missing/],
  ['source', 'bad-message', with_(begin, 2, -1), /begin source: was -1, expected an integer of 0 or more/],
  ['source', 'bad-message', with_(begin, 2, 0.5), /begin source: was 0.5/],
  ['name', 'bad-message', with_(begin, 3), /begin name: was missing/],
  ['name', 'bad-message', with_(begin, 3, 5), /begin name: was 5, expected a string/],
  ['name', 'bad-message', source(0, 'web'), /begin name: was "web", expected 'host' for source 0/],
  ['name', 'bad-message', source(1, 'host'), /begin name: was "host", expected 1 to 64 characters/],
  ['name', 'bad-message', source(1, ''), /begin name: was ""/],
  ['name', 'bad-message', source(1, 'a/b'), /begin name: was "a\/b"/],
  ['name', 'bad-message', source(1, 'a'.repeat(65)), /begin name: was "a+…"/],
  ['intervalMs', 'bad-message', with_(begin, 4), /begin intervalMs: was missing, expected an integer of 100 or more/],
  ['intervalMs', 'bad-message', with_(begin, 4, 99), /begin intervalMs: was 99/],
  ['intervalMs', 'bad-message', with_(begin, 4, 100.5), /begin intervalMs: was 100.5/],
  ['intervalMs', 'bad-message', with_(begin, 4, Infinity), /begin intervalMs: was Infinity/],
  ['labels', 'bad-message', with_(begin, 5), /begin labels: was missing, expected an array/],
  ['labels', 'bad-message', with_(begin, 5, 'a'), /begin labels: was "a", expected an array/],
  ['labels', 'bad-message', with_(begin, 5, ['a']), /begin labels: was 1 strings/],
  ['labels', 'bad-message', with_(begin, 5, ['a', 5]), /begin label "a": was 5, expected a string/],
  ['labels', 'bad-message', with_(begin, 5, [5, 'a']), /begin label name: was 5/],
  ['labels', 'limit', with_(begin, 5, labels(33)), /33 pairs, at most 32/],
  ['labels', 'limit', with_(begin, 5, ['a', 'ü'.repeat(511), 'b', 'x']), /1025 bytes, at most 1024/],
  ['labels', 'bad-label', with_(begin, 5, ['agent', 'x']), /begin label name: was "agent"/],
  ['labels', 'bad-label', with_(begin, 5, ['job', 'x']), /begin label name: was "job"/],
  ['labels', 'bad-label', with_(begin, 5, ['instance', 'x']), /begin label name: was "instance"/],
  ['labels', 'bad-label', with_(begin, 5, ['source', 'x']), /begin label name: was "source"/],
  ['labels', 'bad-label', with_(begin, 5, ['__name__', 'x']), /"__name__"/],
  ['labels', 'bad-label', with_(begin, 5, ['__x', 'x']), /"__x"/],
  ['labels', 'bad-label', with_(begin, 5, ['', 'x']), /was ""/],
  ['labels', 'bad-label', with_(begin, 5, ['9', 'x']), /was "9"/],
  ['labels', 'bad-label', with_(begin, 5, ['a-b', 'x']), /was "a-b"/],
  ['labels', 'bad-label', with_(begin, 5, ['ä', 'x']), /was "ä"/],
  ['labels', 'bad-label', with_(begin, 5, ['a', '1', 'a', '2']), /begin label "a": given twice/],
  ['offsetMs', 'bad-message', with_(begin, 6), /begin offsetMs: was missing/],
  ['offsetMs', 'bad-message', with_(begin, 6, 0.5), /begin offsetMs: was 0.5/],

  ['source', 'bad-message', [3], /schema source: was missing/],
  ['source', 'bad-message', [3, -1], /schema source: was -1/],
  ['family', 'bad-message', [3, 0, 'a'], /schema family 1: was "a", expected an array/],
  ['family', 'bad-message', [3, 0, []], /schema family name: was missing/],
  ['type', 'bad-message', [3, 0, with_(family, 1)], /schema family "a", type: was missing/],
  ['type', 'bad-message', [3, 0, with_(family, 1, 1)], /schema family "a", type: was 1, expected a string/],
  ['type', 'schema', [3, 0, with_(family, 1, 'info')], /was "info", expected counter or gauge or untyped or histogram/],
  ['type', 'schema', [3, 0, with_(family, 1, '')], /type: was ""/],
  ['help', 'bad-message', [3, 0, with_(family, 2, null)], /help: was null/],
  ['divisor', 'bad-message', [3, 0, with_(family, 3, 1.5)], /divisor: was 1.5/],
  ['divisor', 'schema', [3, 0, with_(family, 3, 0)], /divisor: was 0, expected 1 to 2147483648/],
  ['divisor', 'schema', [3, 0, with_(family, 3, -1)], /divisor: was -1/],
  ['divisor', 'schema', [3, 0, with_(family, 3, 2 ** 31 + 1)], /divisor: was 2147483649/],
  ['groups', 'schema', [3, 0, with_(family, 4)], /schema family "a", groups: was missing, expected 1 or more/],
  ['group', 'bad-message', [3, 0, with_(family, 4, 7)], /schema family "a", group 1: was 7, expected an array/],
  ['group', 'bad-message', [3, 0, [...family, []]], /schema family "a", group 2: was 0 fields, expected 4/],
  ['group', 'bad-message', grouped(group.slice(0, 3)), /group 1: was 3 fields, expected 4/],
  ['group', 'bad-message', grouped([...group, 1]), /group 1: was 5 fields/],
  ['suffix', 'bad-message', grouped(with_(group, 0, null)), /suffix: was null/],
  ['suffix', 'schema', grouped(with_(group, 0, '_sum')), /suffix: was "_sum", expected "" for a gauge/],
  ['suffix', 'schema', grouped(group, 'histogram'), /was "", expected "_bucket" or "_sum" or "_count" for a histogram/],
  [
    'suffix',
    'schema',
    grouped(with_(group, 0, '_bucket'), 'summary'),
    /was "_bucket", expected "" or "_sum" or "_count"/,
  ],
  ['labelNames', 'bad-message', grouped(with_(group, 1, 'x')), /labelNames: was "x", expected an array/],
  ['labelNames', 'bad-message', grouped(with_(group, 1, [1])), /labelNames: was 1, expected a string/],
  ['seriesCount', 'bad-message', grouped(with_(group, 2, null)), /seriesCount: was null/],
  ['seriesCount', 'schema', grouped(with_(group, 2, -1)), /seriesCount: was -1/],
  ['seriesCount', 'schema', grouped(['', ['x'], 0, []]), /seriesCount: was 0, expected 1 or more/],
  [
    'labelValues',
    'schema',
    grouped(with_(group, 2, 2)),
    /labelValues: was 1 strings, expected 2: 2 series of 1 labels/,
  ],
  ['labelValues', 'schema', grouped(with_(group, 3, ['a', 'b'])), /labelValues: was 2 strings, expected 1/],
  ['labelValues', 'bad-message', grouped(with_(group, 3, [5])), /labelValues: was 5, expected a string/],

  ['source', 'bad-message', [4], /report source: was missing/],
  ['source', 'bad-message', with_(report, 1, -1), /report source: was -1/],
  ['seq', 'bad-message', with_(report, 2), /report seq: was missing/],
  ['seq', 'bad-message', with_(report, 2, 0), /report seq: was 0, expected an integer of 1 or more/],
  ['seq', 'bad-message', with_(report, 2, 2 ** 53), /report seq/],
  ['timeMs', 'bad-message', with_(report, 3), /report timeMs: was missing/],
  ['timeMs', 'bad-message', with_(report, 3, -1), /report timeMs: was -1/],
  ['timeMs', 'bad-message', with_(report, 3, 0.5), /report timeMs: was 0.5/],
  ['pairs', 'bad-message', with_(report, 4, true), /report pair 0: was true/],
  ['pairs', 'bad-message', with_(report, 5, []), /report pair 0: was an array of 0/],

  ['nonce', 'bad-message', [6], /ping nonce: was missing/],
  ['nonce', 'bad-message', [6, 'x'], /ping nonce: was "x"/],
  ['spoolReports', 'bad-message', with_(ping, 2), /ping spoolReports: was missing/],
  ['spoolReports', 'bad-message', with_(ping, 2, -1), /ping spoolReports: was -1/],
  ['droppedReports', 'bad-message', with_(ping, 3), /ping droppedReports: was missing/],
  ['droppedReports', 'bad-message', with_(ping, 3, 0.5), /ping droppedReports: was 0.5/],
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
  [[5, 5], /refused reason: was 5/],
  [[5, 'too_old', 0, 1, 2], /refused count: was 0, expected an integer of 1 or more/],
  [[5, 'too_old', 1, null, 2], /refused firstMs: was null/],
  [[5, 'too_old', 1, 1], /refused lastMs: was missing/],
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
  for (const value of [undefined, {}, 'x', new Map(), [undefined], [{}], [Symbol('x')]]) {
    for (const [name, { numbers, read }] of Object.entries({ ...agentKinds, ...serverKinds })) {
      // A report is read by its number, and may end before its pairs; a schema before its families.
      const fields = [numbers[0], 0, 1, 1].slice(0, name === 'report' ? 4 : name === 'schema' ? 2 : 1);
      assert.throws(() => read([...fields, value]), ProtocolError, name);
    }
  }
});

test('a kind that one end does not handle does not compile', () => {
  const seen: string[] = [];
  const all = {
    hello: () => seen.push('hello'),
    begin: () => seen.push('begin'),
    schema: () => seen.push('schema'),
    report: () => seen.push('report'),
    ping: ({ nonce }: { nonce: number }) => seen.push(`ping ${nonce}`),
    unknown: () => seen.push('unknown'),
  };
  handle<AgentMessage, []>(all, pingOf(7));
  assert.deepEqual(seen, ['ping 7']);
  const { ping: _, ...others } = all;
  // @ts-expect-error: there is no handler for a ping.
  const withoutPing: Handlers<AgentMessage> = others;
  assert.ok(!('ping' in withoutPing));
  // @ts-expect-error: the handler of a ping takes a report.
  const ofAnother: Handlers<AgentMessage> = { ...all, ping: ({ pairs }: { pairs: unknown }) => void pairs };
  assert.ok(ofAnother);
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
