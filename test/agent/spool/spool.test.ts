import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { newAgentCounters } from '../../../src/agent/own-metrics.ts';
import { SpoolFiles } from '../../../src/agent/spool/mirror.ts';
import { Spool, type SpoolBounds } from '../../../src/agent/spool/spool.ts';
import { limits } from '../../../src/protocol/limits.ts';
import { MemoryDisk } from '../../support/memory-disk.ts';
import { MemoryLog } from '../../support/memory-log.ts';
import { drain, type ReadReport, Receiver, RecordingMaker, valuesOf } from '../../support/recordings.ts';
import { VirtualClock } from '../../support/virtual-clock.ts';

const roomy: SpoolBounds = { bytesMax: 64 * 1024 * 1024, ageMsMax: 24 * 3600 * 1000 };

function newSpool(options: { bounds?: SpoolBounds; disk?: MemoryDisk; clock?: VirtualClock } = {}) {
  const clock = options.clock ?? new VirtualClock();
  const log = new MemoryLog();
  const counters = newAgentCounters();
  const { disk } = options;
  const files = disk && new SpoolFiles({ disk, clock, log, counters });
  const spool = new Spool({ clock, log, counters, bounds: options.bounds ?? roomy, ...(files && { files }) });
  return { spool, clock, log, counters };
}

/** Appends `count` reports, 5 s apart, each with other values. Returns what a reader has to see. */
async function fill(
  { spool, clock }: { spool: Spool; clock: VirtualClock },
  maker: RecordingMaker,
  count: number,
): Promise<ReadReport[]> {
  const made: ReadReport[] = [];
  for (let index = 0; index < count; index++) {
    const step = spool.epoch!.lastSeq * 1000;
    const recording = maker.make(Array.from({ length: maker.seriesCount }, (_, series) => step + series));
    spool.append(recording, clock.nowMs());
    const { epoch } = spool;
    made.push({
      epoch: epoch!.id,
      seq: epoch!.lastSeq,
      timeMs: epoch!.lastTimeMs,
      values: valuesOf(recording),
    });
    await clock.advance(5000);
  }
  return made;
}

test('a replay after a cut starts at the last key at or before the first report that the server lacks', async () => {
  const made = newSpool();
  const maker = new RecordingMaker();
  made.spool.begin({ epoch: 7, baseMs: 0 });
  made.spool.settle(made.spool.epoch!, 0);
  const reports = await fill(made, maker, 100);
  maker.grow(2);
  reports.push(...(await fill(made, maker, 100)));

  for (const received of [0, 1, 59, 60, 61, 99, 100, 101, 160, 161, 199]) {
    const receiver = new Receiver();
    receiver.last.set(7, received);
    const messages = receiver.push(drain(made.spool.replay(receiver.known)));
    assert.deepEqual(receiver.received, reports.slice(received), `received ${received}`);
    const first = messages.find((message) => message.kind === 'report');
    assert.ok(first?.kind === 'report' && first.key);
    assert.ok(first.seq <= received + 1 && received - first.seq < limits.reportsPerKeyMax, `first was ${first.seq}`);
    assert.equal(messages.filter(({ kind }) => kind === 'begin').length, 1);
  }
  const receiver = new Receiver();
  assert.equal(receiver.push(drain(made.spool.replay([{ epoch: 7, seq: 200 }]))).length, 0);
});

test('an epoch of which nothing lacks is passed over, and the rest comes in the order in which it was made', async () => {
  const made = newSpool();
  const reports: ReadReport[] = [];
  for (const epoch of [30, 10, 20]) {
    made.spool.begin({ epoch, baseMs: 0 });
    made.spool.settle(made.spool.epoch!, epoch);
    reports.push(...(await fill(made, new RecordingMaker(), 5)));
  }
  const receiver = new Receiver();
  receiver.last.set(10, 5);
  receiver.push(drain(made.spool.replay(receiver.known)));
  assert.deepEqual(receiver.begins, [
    { epoch: 30, offsetMs: 30 },
    { epoch: 20, offsetMs: 20 },
  ]);
  assert.deepEqual(
    receiver.received,
    reports.filter(({ epoch }) => epoch !== 10).map((report) => ({ ...report, timeMs: report.timeMs + report.epoch })),
  );
});

test('an epoch is begun only when its offset is settled; that of an earlier run counts as 0', async () => {
  const disk = new MemoryDisk();
  const earlier = newSpool({ disk });
  earlier.spool.begin({ epoch: 1, baseMs: 0 });
  await fill(earlier, new RecordingMaker(), 2);
  earlier.spool.close();

  const made = newSpool({ disk, clock: earlier.clock });
  made.spool.begin({ epoch: 2, baseMs: 0 });
  await fill(made, new RecordingMaker(), 2);
  const receiver = new Receiver();
  const asked: number[] = [];
  receiver.push(
    drain(made.spool.replay([]), (epoch) => {
      asked.push(epoch);
      made.spool.settle(made.spool.epoch!, 4321);
    }),
  );
  assert.deepEqual(asked, [2]);
  assert.deepEqual(receiver.begins, [
    { epoch: 1, offsetMs: 0 },
    { epoch: 2, offsetMs: 4321 },
  ]);
});

test('what is appended comes in the same stream; a full segment goes on without a second begin or schema', async () => {
  const made = newSpool({ bounds: { ...roomy, bytesMax: 1024 * 1024 } });
  const maker = new RecordingMaker(500);
  made.spool.begin({ epoch: 7, baseMs: 0 });
  made.spool.settle(made.spool.epoch!, 0);
  const receiver = new Receiver();
  const cursor = made.spool.replay([]);
  const reports: ReadReport[] = [];
  for (let round = 0; round < 50; round++) {
    reports.push(...(await fill(made, maker, 3)));
    assert.equal(cursor.unsentCount, 3);
    receiver.push(drain(cursor));
    assert.equal(cursor.unsentCount, 0);
  }
  assert.ok(made.spool.segments.length > 2, 'several segments were filled');
  assert.deepEqual(receiver.received, reports);
  assert.equal(receiver.begins.length, 1);
  assert.equal(receiver.duplicates, 0);

  const later = new Receiver();
  later.push(drain(made.spool.replay([])));
  assert.equal(later.begins.length, 1);
  assert.equal(later.schemaBytes, receiver.schemaBytes);
});

test('an ack frees the epoch up to it and those before; what is freed is not sent again', async () => {
  const made = newSpool({ bounds: { ...roomy, bytesMax: 1024 * 1024 } });
  const maker = new RecordingMaker(500);
  for (const epoch of [1, 2, 3]) {
    made.spool.begin({ epoch, baseMs: 0 });
    made.spool.settle(made.spool.epoch!, 0);
    await fill(made, maker, 60);
  }
  assert.equal(made.counters.spoolReports, 180);
  made.spool.acknowledge(99, 60);
  assert.equal(made.counters.spoolReports, 180, 'an epoch that is not known frees nothing');

  made.spool.acknowledge(2, 50);
  assert.equal(made.counters.spoolReports, 70);
  assert.deepEqual(
    made.spool.epochs.map(({ id }) => id),
    [2, 3],
  );
  made.spool.acknowledge(2, 20);
  assert.equal(made.counters.spoolReports, 70, 'an older ack takes nothing back');
  const receiver = new Receiver();
  receiver.push(drain(made.spool.replay([])));
  // Those before the 51st come for the sake of its key.
  assert.deepEqual(receiver.received.filter(({ epoch }) => epoch === 2).at(-1)?.seq, 60);
  assert.ok(receiver.received[0]!.seq > 1);

  made.spool.acknowledge(3, 1e9);
  assert.equal(made.counters.spoolReports, 0, 'an ack for more than was made frees what was made');
  assert.ok(made.spool.bytes < 128 * 1024, 'only the open segment is left');
  assert.equal(made.spool.replay([]).unsentCount, 0);
  await fill(made, maker, 1);
  assert.equal(made.counters.spoolReports, 1, 'and not what is made later');
});

test('when it is full the oldest goes and is counted; the bound holds throughout', async () => {
  const bounds = { ...roomy, bytesMax: 1024 * 1024 };
  const made = newSpool({ bounds });
  const maker = new RecordingMaker(500);
  made.spool.begin({ epoch: 7, baseMs: 0 });
  made.spool.settle(made.spool.epoch!, 0);
  const reports = await fill(made, maker, 3);
  const cursor = made.spool.replay([]);
  for (const kind of ['begin', 'schema', 'key']) assert.equal(cursor.next(1).kind, 'send', kind);
  for (let index = 3; index < 2000; index++) {
    reports.push(...(await fill(made, maker, 1)));
    assert.ok(made.spool.bytes <= bounds.bytesMax);
  }
  const dropped = made.counters.reportsDropped.full;
  assert.ok(dropped > 100, 'it was full');
  assert.equal(made.counters.spoolReports, 2000 - dropped);
  assert.ok(made.spool.bytes > bounds.bytesMax * 0.9, 'a drop costs a small part');
  const receiver = new Receiver();
  receiver.push(drain(made.spool.replay([])));
  assert.deepEqual(receiver.received, reports.slice(dropped));
  const late = new Receiver();
  late.push(drain(cursor));
  assert.deepEqual(late.received, reports.slice(dropped), 'a cursor whose place is gone begins at the next');
});

test('a cursor whose segment goes when only its begin is sent takes the next from its beginning', async () => {
  const made = newSpool({ bounds: { ...roomy, bytesMax: 1024 * 1024 } });
  const maker = new RecordingMaker(500);
  made.spool.begin({ epoch: 7, baseMs: 0 });
  made.spool.settle(made.spool.epoch!, 0);
  const reports = await fill(made, maker, 1);
  const receiver = new Receiver();
  const cursor = made.spool.replay([]);
  const begin = cursor.next(1);
  receiver.push(begin.kind === 'send' ? begin.bytes : new Uint8Array());
  while (made.counters.reportsDropped.full === 0) reports.push(...(await fill(made, maker, 1)));
  receiver.push(drain(cursor));
  assert.deepEqual(receiver.received, reports.slice(made.counters.reportsDropped.full));
  assert.equal(receiver.begins.length, 2);
});

test('a schema that leaves no room: reports are dropped, counted, and it is said which option helps', async () => {
  const made = newSpool({ bounds: { ...roomy, bytesMax: 128 * 1024 } });
  made.spool.begin({ epoch: 7, baseMs: 0 });
  await fill(made, new RecordingMaker(30_000), 3);
  assert.equal(made.counters.reportsDropped.full, 3);
  assert.equal(made.spool.bytes, 0);
  assert.equal(made.log.lines.length, 1, 'not at each report');
  assert.match(made.log.lines[0]!, /--spool\.max-bytes/);
  await fill(made, new RecordingMaker(3), 3);
  assert.equal(made.counters.spoolReports, 3, 'and it goes on when there is');
});

test('a big schema is the smaller part of its segments', async () => {
  const made = newSpool({ bounds: { ...roomy, bytesMax: 8 * 1024 * 1024 } });
  made.spool.begin({ epoch: 7, baseMs: 0 });
  const maker = new RecordingMaker(60_000);
  await fill(made, maker, 20);
  for (const segment of made.spool.segments.slice(0, -1)) {
    assert.ok(segment.heldBytes >= 2 * segment.headBytes, `${segment.headBytes} of ${segment.heldBytes}`);
  }
});

test('what has become too old goes, by the time since it was made, also when nothing is appended', async () => {
  const hour = 3600 * 1000;
  const made = newSpool({ bounds: { ...roomy, ageMsMax: hour } });
  made.spool.begin({ epoch: 7, baseMs: 0 });
  const maker = new RecordingMaker(3);
  await fill(made, maker, 720);
  assert.equal(made.counters.reportsDropped.age, 0);
  made.clock.step(400 * 24 * hour);
  await fill(made, maker, 720);
  assert.ok(made.counters.reportsDropped.age >= 660, `${made.counters.reportsDropped.age}`);
  assert.ok(made.counters.reportsDropped.age <= 720);
  await made.clock.advance(hour + 20_000);
  assert.equal(made.counters.reportsDropped.age, 1440);
  assert.equal(made.spool.bytes, 0);
});

test('times rise within an epoch, whatever the caller says', async () => {
  const made = newSpool();
  const maker = new RecordingMaker();
  made.spool.begin({ epoch: 7, baseMs: 0 });
  made.spool.settle(made.spool.epoch!, 0);
  for (const timeMs of [1000, 1000, 900, 2000]) made.spool.append(maker.make([]), timeMs);
  const receiver = new Receiver();
  receiver.push(drain(made.spool.replay([])));
  assert.deepEqual(
    receiver.received.map(({ timeMs }) => timeMs),
    [1000, 1001, 1002, 2000],
  );
});

test('an offset is settled once', () => {
  const { spool } = newSpool();
  spool.begin({ epoch: 7, baseMs: 0 });
  spool.settle(spool.epoch!, 5000);
  assert.throws(() => spool.settle(spool.epoch!, 6000), /epoch 7 is settled already/);
});

type Step =
  | { kind: 'append'; values: (number | undefined)[] }
  | { kind: 'grow' | 'anew'; series: number }
  | { kind: 'epoch' }
  | { kind: 'send'; steps: number; bytesMax: number; lostBytes: number }
  | { kind: 'acknowledge'; behind: number }
  | { kind: 'cut' }
  | { kind: 'restart'; power: boolean };

// The sign of zero does not travel.
const sum = fc.double().map((value) => value + 0);

const steps: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 12,
    arbitrary: fc.record({
      kind: fc.constant('append' as const),
      values: fc.array(fc.option(fc.oneof(fc.integer(), sum, fc.constant(2 ** 64)), { nil: undefined }), {
        maxLength: 8,
      }),
    }),
  },
  fc.record({ kind: fc.constantFrom('grow' as const, 'anew' as const), series: fc.integer({ min: 1, max: 300 }) }),
  fc.record({ kind: fc.constant('epoch' as const) }),
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('send' as const),
      steps: fc.integer({ min: 1, max: 20 }),
      bytesMax: fc.constantFrom(1, 500, 65_536),
      lostBytes: fc.oneof(fc.constant(0), fc.nat(2000)),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('acknowledge' as const), behind: fc.nat(5) }) },
  fc.record({ kind: fc.constant('cut' as const) }),
  fc.record({ kind: fc.constant('restart' as const), power: fc.boolean() }),
);

test('property: whatever is appended, cut, freed and restarted, a server gets exactly what was made', () => {
  fc.assert(
    fc.property(fc.array(steps, { maxLength: 120 }), (history) => {
      const disk = new MemoryDisk();
      const clock = new VirtualClock();
      let { spool, counters } = newSpool({ disk, clock, bounds: { ...roomy, bytesMax: 1024 * 1024 } });
      const maker = new RecordingMaker(20);
      const receiver = new Receiver();
      const made: ReadReport[] = [];
      let nextEpoch = 100;
      let nowMs = clock.nowMs();
      const begin = () => spool.begin({ epoch: nextEpoch++, baseMs: 0 });
      const connect = () => {
        receiver.reconnect();
        return spool.replay(receiver.known);
      };
      const settle = () => {
        for (const epoch of spool.epochs)
          if (epoch.baseMs === 0 && epoch.offsetMs === undefined) spool.settle(epoch, 0);
      };
      begin();
      let cursor = connect();

      for (const step of history) {
        switch (step.kind) {
          case 'append': {
            const recording = maker.make(step.values);
            spool.append(recording, ++nowMs);
            const { id, lastSeq } = spool.epoch!;
            made.push({ epoch: id, seq: lastSeq, timeMs: nowMs, values: valuesOf(recording) });
            break;
          }
          case 'grow':
            maker.grow(step.series);
            break;
          case 'anew':
            maker.beginAnew(step.series);
            break;
          case 'epoch':
            begin();
            break;
          case 'send':
            for (let count = 0; count < step.steps; count++) {
              const next = cursor.next(step.bytesMax);
              if (next.kind === 'settle') settle();
              if (next.kind !== 'send') continue;
              const bytes = next.bytes.subarray(0, Math.max(0, next.bytes.length - step.lostBytes));
              receiver.push(bytes);
              // A part that was lost is the end of the connection.
              if (bytes.length < next.bytes.length) cursor = connect();
            }
            break;
          case 'acknowledge': {
            const last = [...receiver.last].at(-1);
            if (last !== undefined) spool.acknowledge(last[0], Math.max(0, last[1] - step.behind));
            break;
          }
          case 'cut':
            cursor = connect();
            break;
          case 'restart':
            spool.close();
            if (step.power) disk.cutPower();
            ({ spool, counters } = newSpool({ disk, clock, bounds: { ...roomy, bytesMax: 1024 * 1024 } }));
            begin();
            cursor = connect();
        }
      }
      receiver.push(drain(cursor, settle));
      assert.deepEqual(receiver.received, made);
      assert.deepEqual(counters.reportsDropped, { full: 0, age: 0, disk: 0 });
      const last = [...receiver.last].at(-1);
      if (last !== undefined) spool.acknowledge(...last);
      assert.equal(counters.spoolReports, 0);
    }),
    { numRuns: 300 },
  );
});
