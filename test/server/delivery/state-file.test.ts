import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseStreamId } from '../../../src/model/source.ts';
import {
  encodeState,
  parseState,
  type SavedState,
  StateFile,
  StateFileError,
} from '../../../src/server/delivery/state-file.ts';
import { settle } from '../../support/virtual-clock.ts';
import { MemoryState } from './delivery-harness.ts';

const stream = (text: string) => parseStreamId(text)!.id;

const state: SavedState = {
  savedAtMs: 1_700_000_000_000,
  clock: { bootId: '7b3f', aheadOfUptimeMs: 1_699_000_000_000 },
  serverId: '0123456789abcdef',
  cursors: [
    {
      ...{ scraper: { space: 'addr', text: '192.0.2.7' }, selection: '', address: '192.0.2.7', isKnown: true },
      seenAtMs: 1_700_000_000_000,
      positions: new Map([
        [stream('web-1'), 1_699_999_999_000],
        [stream('web-1/nginx'), 1_699_999_998_000],
        [stream('__proto__'), 7],
      ]),
      unconfirmed: [
        { until: new Map([[stream('__proto__'), 8]]), receipt: undefined },
        {
          until: new Map([[stream('web-1'), 9]]),
          receipt: {
            ...{ numbers: [1_700_000_000_122], from: new Map([[stream('web-1'), 8]]) },
            ...{ samples: 3, reports: 2, sentAtMs: 1_700_000_000_000, isStored: false },
          },
        },
      ],
    },
    {
      ...{ scraper: { space: 'param', text: 'has nothing unconfirmed' }, selection: 'web-1', address: '::1' },
      ...{ seenAtMs: 1, isKnown: false, positions: new Map(), unconfirmed: [] },
    },
  ],
  agents: [
    {
      name: 'web-1',
      reportAtMs: 1_700_000_000_000,
      committedMs: [
        ['host', 1_699_999_999_000],
        ['__proto__', 7],
      ],
      epochs: [[2 ** 53 - 1, 9]],
      offsetsMs: [[2 ** 53 - 1, -3_600_000]],
    },
    { name: 'new', reportAtMs: 1_700_000_000_000, committedMs: [], epochs: [], offsetsMs: [] },
  ],
};

test('what was written is read', () => {
  assert.deepEqual(parseState(encodeState(state)), state);
  const { clock: _, ...without } = state;
  assert.deepEqual(parseState(encodeState(without)), without);
});

test('every damaged field is named', () => {
  // Each path, what is put there, and how the error begins.
  const damages: readonly [path: string, value: unknown, error: string][] = [
    ['version', 1, "'version' is 1, expected 4"],
    ['version', undefined, "'version' is undefined, expected 4"],
    ['savedAtMs', '1', 'savedAtMs is no number'],
    ['savedAtMs', null, 'savedAtMs is no number'],
    ['clock', null, 'clock is no object'],
    ['clock.bootId', 7, 'clock.bootId is no string'],
    ['clock.aheadOfUptimeMs', '7', 'clock.aheadOfUptimeMs is no number'],
    ['cursors', {}, 'cursors is no list'],
    ['cursors', undefined, 'cursors is no list'],
    ['cursors.0', [], 'cursors[0] is no object'],
    ['cursors.0.scraper', 1, 'cursors[0].scraper is no string'],
    ['cursors.0.selection', null, 'cursors[0].selection is no string'],
    ['cursors.0.seenAtMs', 'now', 'cursors[0].seenAtMs is no number'],
    ['cursors.0.space', 'name', 'cursors[0].space is none of param, user, addr'],
    ['cursors.0.address', 1, 'cursors[0].address is no string'],
    ['cursors.0.isKnown', 1, 'cursors[0].isKnown is neither true nor false'],
    ['cursors.0.positions', [], 'cursors[0].positions is no object'],
    ['cursors.0.positions.web-1', '1', 'cursors[0].positions.web-1 is no number'],
    ['cursors.0.positions.web 1', 1, "cursors[0].positions: 'web 1' is no stream's name"],
    ['cursors.0.positions.web-1/host', 1, "cursors[0].positions: 'web-1/host' is no stream's name"],
    ['cursors.0.unconfirmed', null, 'cursors[0].unconfirmed is no list'],
    ['cursors.0.unconfirmed.0', null, 'cursors[0].unconfirmed[0] is no object'],
    ['cursors.0.unconfirmed.1.until', null, 'cursors[0].unconfirmed[1].until is no object'],
    ['cursors.0.unconfirmed.1.until.web-1', true, 'cursors[0].unconfirmed[1].until.web-1 is no number'],
    ['cursors.0.unconfirmed.1.until.web 1', 1, "cursors[0].unconfirmed[1].until: 'web 1' is no stream's name"],
    ['cursors.0.unconfirmed.1.receipt', 7, 'cursors[0].unconfirmed[1].receipt is no object'],
    ['cursors.0.unconfirmed.1.receipt.numbers', 7, 'cursors[0].unconfirmed[1].receipt.numbers is no list'],
    [
      'cursors.0.unconfirmed.1.receipt.numbers.0',
      -7,
      'cursors[0].unconfirmed[1].receipt.numbers[0] is no whole number',
    ],
    ['cursors.0.unconfirmed.1.receipt.from.web-1', '', 'cursors[0].unconfirmed[1].receipt.from.web-1 is no number'],
    ['cursors.0.unconfirmed.1.receipt.samples', 1.5, 'cursors[0].unconfirmed[1].receipt.samples is no whole number'],
    ['cursors.0.unconfirmed.1.receipt.reports', -1, 'cursors[0].unconfirmed[1].receipt.reports is no whole number'],
    ['cursors.0.unconfirmed.1.receipt.sentAtMs', null, 'cursors[0].unconfirmed[1].receipt.sentAtMs is no number'],
    [
      'cursors.0.unconfirmed.1.receipt.isStored',
      1,
      'cursors[0].unconfirmed[1].receipt.isStored is neither true nor false',
    ],
    ['serverId', undefined, 'serverId is no string'],
    ['serverId', 'a"b', `serverId: 'a"b' is no server's id`],
    ['agents', 'web-1', 'agents is no list'],
    ['agents.1', null, 'agents[1] is no object'],
    ['agents.1.name', '', "agents[1].name: '' is no agent's name"],
    ['agents.1.name', 7, 'agents[1].name is no string'],
    ['agents.0.reportAtMs', true, 'agents[0].reportAtMs is no number'],
    ['agents.0.committedMs', null, 'agents[0].committedMs is no list'],
    ['agents.0.committedMs.0', 5, 'agents[0].committedMs[0] is no list'],
    ['agents.0.committedMs.0.0', 'a/b', "agents[0].committedMs[0][0]: 'a/b' is no source's name"],
    ['agents.0.committedMs.0.1', '5', 'agents[0].committedMs[0][1] is no number'],
    ['agents.0.epochs', {}, 'agents[0].epochs is no list'],
    ['agents.0.epochs.0', 5, 'agents[0].epochs[0] is no list'],
    ['agents.0.epochs.0.0', -1, 'agents[0].epochs[0][0] is no whole number'],
    ['agents.0.epochs.0.0', 2 ** 53, 'agents[0].epochs[0][0] is no whole number'],
    ['agents.0.epochs.0.1', 1.5, 'agents[0].epochs[0][1] is no whole number'],
    ['agents.0.epochs.0', [1], 'agents[0].epochs[0][1] is no whole number'],
    ['agents.0.offsetsMs', undefined, 'agents[0].offsetsMs is no list'],
    ['agents.0.offsetsMs.0.0', -1, 'agents[0].offsetsMs[0][0] is no whole number'],
    ['agents.0.offsetsMs.0.1', '0', 'agents[0].offsetsMs[0][1] is no number'],
  ];
  for (const [path, value, error] of damages) {
    const root = JSON.parse(encodeState(state));
    const fields = path.split('.');
    const last = fields.pop()!;
    fields.reduce((parent, field) => parent[field], root)[last] = value;
    assert.throws(() => parseState(JSON.stringify(root)), new StateFileError(error), path);
  }
  assert.throws(() => parseState('[]'), new StateFileError('the file is no object'));
  assert.throws(() => parseState('null'), new StateFileError('the file is no object'));
});

test('a file cut or changed anywhere gives a state or a StateFileError, never anything else', () => {
  const text = encodeState(state);
  for (let length = 0; length < text.length - 1; length++) {
    assert.throws(() => parseState(text.slice(0, length)), new StateFileError('not JSON'));
  }
  fc.assert(
    fc.property(fc.nat(text.length - 1), fc.string({ maxLength: 3 }), (at, put) => {
      try {
        parseState(text.slice(0, at) + put + text.slice(at + 1));
      } catch (error) {
        assert.ok(error instanceof StateFileError, String(error));
      }
    }),
    { numRuns: 500 },
  );
});

test('any JSON at all gives a state or a StateFileError', () => {
  fc.assert(
    fc.property(fc.jsonValue({ maxDepth: 4 }), (value) => {
      const root = { version: 2, savedAtMs: 1, cursors: [], agents: [], ...(typeof value === 'object' ? value : {}) };
      for (const json of [value, root, { ...root, cursors: [value] }, { ...root, agents: [value] }]) {
        try {
          parseState(JSON.stringify(json));
        } catch (error) {
          assert.ok(error instanceof StateFileError, String(error));
        }
      }
    }),
    { numRuns: 200 },
  );
});

function makeFile() {
  const disk = new MemoryState();
  const seen = { composed: 0, saved: [] as number[], errors: [] as unknown[] };
  const file = new StateFile({
    disk,
    compose: () => {
      const savedAtMs = ++seen.composed;
      return { state: { ...state, savedAtMs }, onSaved: () => seen.saved.push(savedAtMs) };
    },
    onError: (error) => seen.errors.push(error),
  });
  return { disk, seen, file };
}

test('changes in one turn share a write; those that come while it is under way share the next', async () => {
  const { disk, seen, file } = makeFile();
  file.changed();
  file.changed();
  await file.flush();
  assert.deepEqual(seen.saved, [1]);
  disk.isHeld = true;
  for (let change = 0; change < 3; change++) {
    file.changed();
    await settle();
  }
  assert.equal(seen.composed, 2);
  disk.release();
  await file.flush();
  assert.deepEqual(seen.saved, [1, 2, 3]);
  assert.equal(disk.writes, 3);
  assert.equal(parseState(disk.text!).savedAtMs, 3);
});

test('a failed write is reported and not tried again until the next change', async () => {
  const { disk, seen, file } = makeFile();
  disk.isFailing = true;
  file.changed();
  await file.flush();
  assert.deepEqual(seen.errors, [new Error('ENOSPC')]);
  assert.deepEqual(seen.saved, []);
  disk.isFailing = false;
  await settle();
  assert.equal(disk.writes, 0);
  file.changed();
  await file.flush();
  assert.deepEqual(seen.saved, [2]);
});

test('a change that comes while a write fails is written with the next', async () => {
  const { disk, seen, file } = makeFile();
  disk.isHeld = true;
  disk.isFailing = true;
  file.changed();
  await settle();
  file.changed();
  disk.release();
  await file.flush();
  assert.equal(seen.errors.length, 1);
  disk.isFailing = false;
  file.changed();
  await file.flush();
  assert.deepEqual(seen.saved, [2]);
});
