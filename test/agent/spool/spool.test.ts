import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { newAgentCounters } from '../../../src/agent/own-metrics.ts';
import { Mirror } from '../../../src/agent/spool/mirror.ts';
import type { Replay } from '../../../src/agent/spool/replay.ts';
import type { SpoolEpoch } from '../../../src/agent/spool/segment.ts';
import { Spool, type SpoolBounds, spoolMemoryWarning } from '../../../src/agent/spool/spool.ts';
import { limits } from '../../../src/protocol/limits.ts';
import type { EpochSeq } from '../../../src/protocol/messages.ts';
import { MemoryDisk } from '../../support/memory-disk.ts';
import { MemoryLog } from '../../support/memory-log.ts';
import { drain, hostSource, type ReadReport, Receiver, RecordingMaker, valuesOf } from '../../support/recordings.ts';
import { settle, VirtualClock } from '../../support/virtual-clock.ts';

const roomy: SpoolBounds = { bytesMax: 64 * 1024 * 1024, ageMsMax: 24 * 3600 * 1000 };

const server = 'server:9732';

interface SpoolSetting {
  readonly bounds?: SpoolBounds;
  readonly disk?: MemoryDisk;
  readonly clock?: VirtualClock;
  readonly servers?: readonly string[];
}

function newSpool({ bounds = roomy, disk, clock = new VirtualClock(), servers = [server] }: SpoolSetting = {}) {
  const log = new MemoryLog();
  const counters = newAgentCounters();
  const mirror = disk && new Mirror({ disk, clock, log, counters });
  const spool = new Spool({ clock, counters, bounds, servers, source: hostSource, ...(mirror && { mirror }) });
  return { spool, clock, log, counters };
}

async function loadedSpool(options: SpoolSetting & { readonly disk: MemoryDisk }) {
  const made = newSpool(options);
  const drops = await made.spool.load();
  return { ...made, drops };
}

/** Begins an epoch whose offset for every receiver is known already. */
function begin(spool: Spool, epoch: number, options: { offsetMs?: number; servers?: readonly string[] } = {}): void {
  const { offsetMs = 0, servers = [server] } = options;
  spool.begin({ epoch, baseMs: 0 });
  for (const each of servers) void spool.fixOffset(spool.receiver(each), spool.epoch!, offsetMs);
}

/** What a server has to be sent that has received this much. */
function replay(spool: Spool, received: readonly EpochSeq[] = [], to = server): Replay {
  return spool.replay(spool.receiver(to), received);
}

function acknowledge(spool: Spool, epoch: number, seq: number, by = server): number {
  return spool.acknowledge(spool.receiver(by), { epoch, seq });
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
  begin(made.spool, 7);
  const reports = await fill(made, maker, 100);
  maker.grow(2);
  reports.push(...(await fill(made, maker, 100)));

  for (const received of [0, 1, 59, 60, 61, 99, 100, 101, 160, 161, 199]) {
    const receiver = new Receiver();
    receiver.last.set(7, received);
    const messages = receiver.push(drain(replay(made.spool, receiver.known)));
    assert.deepEqual(receiver.received, reports.slice(received), `received ${received}`);
    const first = messages.find((message) => message.kind === 'report');
    assert.ok(first?.kind === 'report' && first.key);
    assert.ok(first.seq <= received + 1 && received - first.seq < limits.reportsPerKeyMax, `first was ${first.seq}`);
    assert.equal(messages.filter(({ kind }) => kind === 'begin').length, 1);
  }
  const receiver = new Receiver();
  assert.equal(receiver.push(drain(replay(made.spool, [{ epoch: 7, seq: 200 }]))).length, 0);
});

test('an epoch of which nothing lacks is passed over, and the rest comes in the order in which it was made', async () => {
  const made = newSpool();
  const reports: ReadReport[] = [];
  for (const epoch of [30, 10, 20]) {
    begin(made.spool, epoch, { offsetMs: epoch });
    reports.push(...(await fill(made, new RecordingMaker(), 5)));
  }
  const receiver = new Receiver();
  receiver.last.set(10, 5);
  receiver.push(drain(replay(made.spool, receiver.known)));
  assert.deepEqual(receiver.begins, [
    { epoch: 30, offsetMs: 30 },
    { epoch: 20, offsetMs: 20 },
  ]);
  assert.deepEqual(
    receiver.received,
    reports.filter(({ epoch }) => epoch !== 10).map((report) => ({ ...report, timeMs: report.timeMs + report.epoch })),
  );
});

test('an epoch is begun only when its offset is fixed, also one of an earlier run', async () => {
  const disk = new MemoryDisk();
  const earlier = await loadedSpool({ disk });
  earlier.spool.begin({ epoch: 1, baseMs: 0 });
  await fill(earlier, new RecordingMaker(), 2);
  await earlier.spool.close(2000);

  const made = await loadedSpool({ disk, clock: earlier.clock });
  made.spool.begin({ epoch: 2, baseMs: 0 });
  await fill(made, new RecordingMaker(), 2);
  const receiver = new Receiver();
  const asked: number[] = [];
  receiver.push(
    drain(replay(made.spool), (epoch) => {
      asked.push(epoch.id);
      void made.spool.fixOffset(made.spool.receiver(server), epoch, 4320 + epoch.id);
    }),
  );
  assert.deepEqual(asked, [1, 2]);
  assert.deepEqual(receiver.begins, [
    { epoch: 1, offsetMs: 4321 },
    { epoch: 2, offsetMs: 4322 },
  ]);
});

test('what is appended comes in the same stream; a full segment goes on without a second begin or schema', async () => {
  const made = newSpool({ bounds: { ...roomy, bytesMax: 1024 * 1024 } });
  const maker = new RecordingMaker(500);
  begin(made.spool, 7);
  const receiver = new Receiver();
  const cursor = replay(made.spool);
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
  later.push(drain(replay(made.spool)));
  assert.equal(later.begins.length, 1);
  assert.equal(later.schemaBytes, receiver.schemaBytes);
});

test('an ack frees the epoch up to it and those before; what is freed is not sent again', async () => {
  const made = newSpool({ bounds: { ...roomy, bytesMax: 1024 * 1024 } });
  const maker = new RecordingMaker(500);
  for (const epoch of [1, 2, 3]) {
    begin(made.spool, epoch);
    await fill(made, maker, 60);
  }
  assert.equal(made.counters.spoolReports, 180);
  acknowledge(made.spool, 99, 60);
  assert.equal(made.counters.spoolReports, 180, 'an epoch that is not known frees nothing');

  acknowledge(made.spool, 2, 50);
  assert.equal(made.counters.spoolReports, 70);
  assert.deepEqual(
    made.spool.epochs.map(({ id }) => id),
    [2, 3],
  );
  acknowledge(made.spool, 2, 20);
  assert.equal(made.counters.spoolReports, 70, 'an older ack takes nothing back');
  const receiver = new Receiver();
  receiver.push(drain(replay(made.spool)));
  // Those before the 51st come for the sake of its key.
  assert.deepEqual(receiver.received.filter(({ epoch }) => epoch === 2).at(-1)?.seq, 60);
  assert.ok(receiver.received[0]!.seq > 1);

  acknowledge(made.spool, 3, 1e9);
  assert.equal(made.counters.spoolReports, 0, 'an ack for more than was made frees what was made');
  assert.ok(made.spool.bytes < 128 * 1024, 'only the open segment is left');
  assert.equal(replay(made.spool).unsentCount, 0);
  await fill(made, maker, 1);
  assert.equal(made.counters.spoolReports, 1, 'and not what is made later');
});

test('when it is full the oldest goes and is counted; the bound holds throughout', async () => {
  const bounds = { ...roomy, bytesMax: 1024 * 1024 };
  const made = newSpool({ bounds });
  const maker = new RecordingMaker(500);
  begin(made.spool, 7);
  const reports = await fill(made, maker, 3);
  const cursor = replay(made.spool);
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
  receiver.push(drain(replay(made.spool)));
  assert.deepEqual(receiver.received, reports.slice(dropped));
  const late = new Receiver();
  late.push(drain(cursor));
  assert.deepEqual(late.received, reports.slice(dropped), 'a cursor whose place is gone begins at the next');
});

test('a cursor whose segment goes when only its begin is sent takes the next from its beginning', async () => {
  const made = newSpool({ bounds: { ...roomy, bytesMax: 1024 * 1024 } });
  const maker = new RecordingMaker(500);
  begin(made.spool, 7);
  const reports = await fill(made, maker, 1);
  const receiver = new Receiver();
  const cursor = replay(made.spool);
  const first = cursor.next(1);
  receiver.push(first.kind === 'send' ? first.bytes : new Uint8Array());
  while (made.counters.reportsDropped.full === 0) reports.push(...(await fill(made, maker, 1)));
  receiver.push(drain(cursor));
  assert.deepEqual(receiver.received, reports.slice(made.counters.reportsDropped.full));
  assert.equal(receiver.begins.length, 2);
});

test('a schema that leaves no room: each report is dropped, counted, and returned with its time', async () => {
  const made = newSpool({ bounds: { ...roomy, bytesMax: 128 * 1024 } });
  made.spool.begin({ epoch: 7, baseMs: 0 });
  const maker = new RecordingMaker(30_000);
  for (let count = 0; count < 3; count++) {
    const timeMs = made.clock.nowMs() + count;
    const drops = made.spool.append(maker.make([]), timeMs);
    assert.deepEqual(drops, [{ reason: 'full', count: 1, firstMs: timeMs, lastMs: timeMs }]);
  }
  assert.equal(made.counters.reportsDropped.full, 3);
  assert.equal(made.spool.bytes, 0);
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

test('what has become too old goes, by the time since it was made, with the next report', async () => {
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
  await fill(made, maker, 1);
  assert.equal(made.counters.reportsDropped.age, 1440);
  assert.equal(made.counters.spoolReports, 1);
});

test('a spool that needs more memory than the process may have is warned of', () => {
  const warning = (bytesMax: number, limit?: number) => spoolMemoryWarning({ ...roomy, bytesMax }, limit);
  const mebibytes = 1024 ** 2;
  assert.equal(warning(64 * mebibytes, 320 * mebibytes), undefined);
  assert.equal(warning(64 * mebibytes), undefined);
  assert.equal(warning(200 * mebibytes, 320 * mebibytes), undefined);
  assert.match(
    warning(256 * mebibytes, 320 * mebibytes)!,
    /^--spool\.max-bytes: with a full spool of 256MiB the agent takes 351\.6 MiB of memory, and the limit is 320\.0 MiB: /,
  );
});

test('times rise within an epoch, whatever the caller says', async () => {
  const made = newSpool();
  const maker = new RecordingMaker();
  begin(made.spool, 7);
  for (const timeMs of [1000, 1000, 900, 2000]) made.spool.append(maker.make([]), timeMs);
  const receiver = new Receiver();
  receiver.push(drain(replay(made.spool)));
  assert.deepEqual(
    receiver.received.map(({ timeMs }) => timeMs),
    [1000, 1001, 1002, 2000],
  );
});

test('an offset that is fixed anew goes out with the next begin', async () => {
  const made = newSpool();
  begin(made.spool, 7, { offsetMs: 5000 });
  await fill(made, new RecordingMaker(), 3);
  await made.spool.fixOffset(made.spool.receiver(server), made.spool.epoch!, 9000);
  const receiver = new Receiver();
  receiver.push(drain(replay(made.spool)));
  assert.deepEqual(receiver.begins, [{ epoch: 7, offsetMs: 9000 }]);
});

const both = ['north:9732', 'south:9732'] as const;
const [north, south] = both;

test('two receivers: only what both have acknowledged is freed, in memory and on disk', async () => {
  const disk = new MemoryDisk();
  const made = await loadedSpool({ disk, servers: both, bounds: { ...roomy, bytesMax: 1024 * 1024 } });
  const maker = new RecordingMaker(500);
  for (const epoch of [1, 2]) {
    begin(made.spool, epoch, { servers: both });
    await fill(made, maker, 60);
  }
  await settle();
  const segments = () => disk.names.filter((name) => name.endsWith('.spool')).length;
  const { length } = made.spool.segments;
  assert.equal(segments(), length);

  assert.equal(acknowledge(made.spool, 2, 60, north), 0, 'nothing is freed by one alone');
  assert.equal(made.counters.spoolReports, 120);
  assert.equal(replay(made.spool, [], north).unsentCount, 0);
  assert.equal(replay(made.spool, [], south).unsentCount, 120);
  assert.equal(acknowledge(made.spool, 1, 60, south), 60);
  assert.equal(made.counters.spoolReports, 60);
  assert.ok(made.spool.segments.every(({ epoch }) => epoch.id === 2));
  await settle();
  assert.equal(segments(), made.spool.segments.length);
  assert.ok(segments() < length);
  assert.equal(acknowledge(made.spool, 2, 60, south), 60);
  assert.equal(made.counters.spoolReports, 0);
});

test('two receivers: each has its own offset of an epoch, also after a restart', async () => {
  const disk = new MemoryDisk();
  const first = await loadedSpool({ disk, servers: both });
  first.spool.begin({ epoch: 1, baseMs: 0 });
  const fix = (each: string, offsetMs: number) =>
    first.spool.fixOffset(first.spool.receiver(each), first.spool.epoch!, offsetMs);
  await Promise.all([fix(north, 111), fix(south, -222)]);
  await fill(first, new RecordingMaker(), 3);
  acknowledge(first.spool, 1, 2, south);
  const begins = (spool: Spool, each: string) => {
    const receiver = new Receiver();
    receiver.push(drain(replay(spool, [], each)));
    return [receiver.begins.map(({ offsetMs }) => offsetMs), receiver.received.length];
  };
  await first.spool.close(2000);
  const second = await loadedSpool({ disk, clock: first.clock, servers: both });
  for (const { spool } of [first, second]) {
    assert.deepEqual(begins(spool, north), [[111], 3]);
    // The first two come for the sake of the third's key.
    assert.deepEqual(begins(spool, south), [[-222], 3]);
    assert.equal(replay(spool, [], south).unsentCount, 1);
  }
  assert.equal(second.counters.spoolReports, 3);
});

test('a server that a restart no longer names holds nothing any more, and its file goes', async () => {
  const disk = new MemoryDisk();
  const made = await loadedSpool({ disk, servers: both });
  begin(made.spool, 1, { servers: both });
  await fill(made, new RecordingMaker(), 10);
  acknowledge(made.spool, 1, 7, north);
  assert.equal(made.counters.spoolReports, 10);
  await made.spool.close(2000);
  assert.equal(disk.names.filter((name) => name.startsWith('receiver')).length, 2);
  const again = await loadedSpool({ disk, clock: made.clock, servers: [north] });
  assert.equal(again.counters.spoolReports, 3);
  await again.spool.close(2000);
  assert.equal(disk.names.filter((name) => name.startsWith('receiver')).length, 1);
});

test('a server whose address was changed goes on where it was; two that were replaced by others begin anew', async () => {
  const disk = new MemoryDisk();
  const first = await loadedSpool({ disk, servers: [north] });
  begin(first.spool, 1, { offsetMs: 4321, servers: [north] });
  await fill(first, new RecordingMaker(), 10);
  acknowledge(first.spool, 1, 7, north);
  await first.spool.close(2000);
  const moved = await loadedSpool({ disk, clock: first.clock, servers: [south] });
  assert.equal(moved.counters.spoolReports, 3);
  assert.equal(moved.spool.receiver(south).offsetsMs.get(1), 4321);
  await moved.spool.close(2000);
  assert.equal(disk.names.filter((name) => name.startsWith('receiver')).length, 1);

  const others = await loadedSpool({ disk, clock: first.clock, servers: ['a:1', 'b:2'] });
  assert.equal(others.counters.spoolReports, 10);
  await others.spool.close(2000);
  assert.equal(disk.names.filter((name) => name.startsWith('receiver')).length, 0, 'nothing is known of them yet');
});

test('a report keeps the source that it was sampled under', async () => {
  const disk = new MemoryDisk();
  const first = await loadedSpool({ disk });
  begin(first.spool, 1);
  await fill(first, new RecordingMaker(), 3);
  await first.spool.close(2000);
  const counters = newAgentCounters();
  const { clock } = first;
  const mirror = new Mirror({ disk, clock, log: new MemoryLog(), counters });
  const source = { ...hostSource, intervalMs: 1000, labels: [['rack', '8'] as const] };
  const spool = new Spool({ clock, counters, bounds: roomy, servers: [server], source, mirror });
  await spool.load();
  begin(spool, 2);
  await fill({ spool, clock }, new RecordingMaker(), 1);
  assert.deepEqual(
    spool.segments.map((segment) => segment.source),
    [hostSource, source],
  );
});

type Step =
  | { kind: 'append'; values: (number | undefined)[] }
  | { kind: 'grow' | 'anew'; series: number }
  | { kind: 'epoch' }
  | { kind: 'send'; to: number; steps: number; bytesMax: number; lostBytes: number }
  | { kind: 'acknowledge'; by: number; behind: number }
  | { kind: 'cut'; to: number }
  | { kind: 'restart'; power: boolean };

// The sign of zero does not travel.
const sum = fc.double().map((value) => value + 0);
const which = fc.constantFrom(0, 1);

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
      to: which,
      steps: fc.integer({ min: 1, max: 20 }),
      bytesMax: fc.constantFrom(1, 500, 65_536),
      lostBytes: fc.oneof(fc.constant(0), fc.nat(2000)),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constant('acknowledge' as const), by: which, behind: fc.nat(5) }),
  },
  fc.record({ kind: fc.constant('cut' as const), to: which }),
  fc.record({ kind: fc.constant('restart' as const), power: fc.boolean() }),
);

/** One of the servers, and the present connection to it. */
class Line {
  readonly receiver = new Receiver();
  readonly #server: string;
  #spool: Spool;
  #replay: Replay;

  constructor(server: string, spool: Spool) {
    this.#server = server;
    this.#spool = spool;
    this.#replay = replay(spool, [], server);
  }

  connect(spool = this.#spool): void {
    this.#spool = spool;
    this.receiver.reconnect();
    this.#replay = replay(spool, this.receiver.known, this.#server);
  }

  send({ steps: count, bytesMax, lostBytes }: { steps: number; bytesMax: number; lostBytes: number }): void {
    for (let step = 0; step < count; step++) {
      const next = this.#replay.next(bytesMax);
      if (next.kind === 'fix offset') this.#fixOffset(next.epoch);
      if (next.kind !== 'send') continue;
      const bytes = next.bytes.subarray(0, Math.max(0, next.bytes.length - lostBytes));
      this.receiver.push(bytes);
      // A part that was lost is the end of the connection.
      if (bytes.length < next.bytes.length) this.connect();
    }
  }

  sendAll(): void {
    this.receiver.push(drain(this.#replay, (epoch) => this.#fixOffset(epoch)));
  }

  acknowledge(behind: number): void {
    const last = [...this.receiver.last].at(-1);
    if (last !== undefined) acknowledge(this.#spool, last[0], Math.max(0, last[1] - behind), this.#server);
  }

  #fixOffset(epoch: SpoolEpoch): void {
    void this.#spool.fixOffset(this.#spool.receiver(this.#server), epoch, 0);
  }
}

test('property: whatever is appended, cut, freed and restarted, each server gets exactly what was made', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(steps, { maxLength: 120 }), async (history) => {
      const disk = new MemoryDisk();
      const clock = new VirtualClock();
      const setting = { disk, clock, servers: both, bounds: { ...roomy, bytesMax: 1024 * 1024 } };
      let { spool, counters } = await loadedSpool(setting);
      const maker = new RecordingMaker(20);
      const made: ReadReport[] = [];
      let nextEpoch = 100;
      let nowMs = clock.nowMs();
      const nextEpochBegins = () => spool.begin({ epoch: nextEpoch++, baseMs: 0 });
      nextEpochBegins();
      const lines = both.map((each) => new Line(each, spool));

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
            nextEpochBegins();
            break;
          case 'send':
            lines[step.to]!.send(step);
            break;
          case 'acknowledge':
            lines[step.by]!.acknowledge(step.behind);
            break;
          case 'cut':
            lines[step.to]!.connect();
            break;
          case 'restart':
            await spool.close(2000);
            if (step.power) disk.cutPower();
            ({ spool, counters } = await loadedSpool(setting));
            nextEpochBegins();
            for (const line of lines) line.connect(spool);
        }
      }
      for (const line of lines) {
        line.sendAll();
        assert.deepEqual(line.receiver.received, made);
      }
      assert.deepEqual(counters.reportsDropped, { full: 0, age: 0, disk: 0 });
      for (const line of lines) line.acknowledge(0);
      assert.equal(counters.spoolReports, 0);
      assert.equal(disk.underWayMax, 1);
    }),
    { numRuns: 300 },
  );
});

test('a report that is skipped is never sent, and what builds on it has the same values', async () => {
  const made = newSpool();
  const maker = new RecordingMaker();
  begin(made.spool, 7);
  const reports = await fill(made, maker, 8);
  maker.grow(2);
  reports.push(...(await fill(made, maker, 8)));
  for (let skipped = 1; skipped <= reports.length; skipped++) {
    for (const known of [0, skipped - 1, skipped, Math.min(skipped + 3, reports.length)]) {
      const receiver = new Receiver();
      receiver.last.set(7, known);
      const seen: number[] = [];
      receiver.onReport = ({ seq }) => seen.push(seq);
      const skip = [{ epoch: 7, seq: skipped }];
      const pass = made.spool.replay(made.spool.receiver(server), receiver.known, skip);
      const first = known + 1 === skipped ? skipped + 1 : known + 1;
      assert.equal(pass.first?.seq, first > reports.length ? undefined : first);
      receiver.push(drain(pass));
      const expected = reports.filter(({ seq }) => seq > known && seq !== skipped);
      assert.deepEqual(
        receiver.received,
        known >= skipped - 1 ? expected : reports.slice(known),
        `${skipped}, ${known}`,
      );
      if (known >= skipped - 1) assert.ok(!seen.includes(skipped), `${skipped} was sent, ${known} being known`);
      assert.equal(pass.unsentCount, 0);
    }
  }
});

test('a report that is skipped and is the last one: what comes next is a key', async () => {
  const made = newSpool();
  const maker = new RecordingMaker();
  begin(made.spool, 7);
  await fill(made, maker, 3);
  const receiver = new Receiver();
  receiver.last.set(7, 2);
  const pass = made.spool.replay(made.spool.receiver(server), receiver.known, [{ epoch: 7, seq: 3 }]);
  assert.equal(drain(pass).length, 0);
  const reports = await fill(made, maker, 2);
  receiver.push(drain(pass));
  assert.deepEqual(receiver.received, reports);
});
