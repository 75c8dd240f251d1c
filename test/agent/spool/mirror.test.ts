import assert from 'node:assert/strict';
import { test } from 'node:test';
import { crc32 } from 'node:zlib';
import { newAgentCounters } from '../../../src/agent/own-metrics.ts';
import { SpoolFiles } from '../../../src/agent/spool/mirror.ts';
import { Spool } from '../../../src/agent/spool/spool.ts';
import { MemoryDisk } from '../../support/memory-disk.ts';
import { MemoryLog } from '../../support/memory-log.ts';
import { drain, type ReadReport, Receiver, RecordingMaker, valuesOf } from '../../support/recordings.ts';
import { VirtualClock } from '../../support/virtual-clock.ts';

const firstFile = '000000000001.spool';

class Agent {
  readonly clock: VirtualClock;
  readonly log = new MemoryLog();
  readonly counters = newAgentCounters();
  readonly spool: Spool;
  readonly maker = new RecordingMaker();

  constructor(disk: MemoryDisk, clock = new VirtualClock(), bytesMax = 64 * 1024 * 1024) {
    this.clock = clock;
    const { log, counters } = this;
    const files = new SpoolFiles({ disk, clock, log, counters });
    this.spool = new Spool({ clock, log, counters, files, bounds: { bytesMax, ageMsMax: 24 * 3600 * 1000 } });
  }

  begin(epoch: number): this {
    this.spool.begin({ epoch, baseMs: 0 });
    this.spool.settle(this.spool.epoch!, epoch);
    return this;
  }

  append(count: number): ReadReport[] {
    const made: ReadReport[] = [];
    for (let index = 0; index < count; index++) {
      const recording = this.maker.make([this.spool.epoch!.lastSeq, index, 7]);
      this.spool.append(recording, this.clock.nowMs());
      const { id, lastSeq, lastTimeMs, offsetMs } = this.spool.epoch!;
      made.push({ epoch: id, seq: lastSeq, timeMs: lastTimeMs + (offsetMs ?? 0), values: valuesOf(recording) });
    }
    return made;
  }

  delivered(): readonly ReadReport[] {
    const receiver = new Receiver();
    receiver.push(drain(this.spool.replay([])));
    return receiver.received;
  }
}

test('a process that is killed loses nothing; the next one delivers it first, and its own numbers go on', () => {
  const disk = new MemoryDisk();
  const killed = new Agent(disk).begin(1);
  const reports = killed.append(150);
  killed.maker.grow(3);
  reports.push(...killed.append(10));

  const next = new Agent(disk, killed.clock).begin(2);
  assert.equal(next.counters.spoolReports, 160);
  reports.push(...next.append(5));
  assert.deepEqual(next.delivered(), reports);
  assert.deepEqual(next.log.lines, []);
});

test('a power cut costs what was made since the last sync, at most 10 s; a torn end is cut, logged and counted', async () => {
  for (const keptBytes of [0, 1, 7, 8, 20, 1000]) {
    const disk = new MemoryDisk();
    const killed = new Agent(disk).begin(1);
    const reports = killed.append(10);
    await killed.clock.advance(10_000);
    killed.append(3);
    disk.cutPower((unsynced) => Math.min(unsynced, keptBytes));
    const next = new Agent(disk, killed.clock);
    const left = next.delivered();
    assert.ok(left.length >= 10 && left.length <= 13);
    assert.deepEqual(left.slice(0, 10), reports);
    assert.equal(next.counters.spoolDiskErrors, keptBytes === 0 || keptBytes === 1000 ? 0 : 1);
    assert.equal(next.log.lines.length, next.counters.spoolDiskErrors);
  }
});

test('what a killed process had not synced, the next one does', async () => {
  const disk = new MemoryDisk();
  const killed = new Agent(disk).begin(1);
  const reports = killed.append(10);
  const next = new Agent(disk, killed.clock).begin(2);
  reports.push(...next.append(2));
  await next.clock.advance(10_000);
  disk.cutPower();
  assert.deepEqual(new Agent(disk, next.clock).delivered(), reports);
});

test('reports are synced within 10 s at any interval, and at 5 s every 10 s, with a report and by no timer', async () => {
  for (const intervalMs of [100, 1000, 3000, 5000, 7000, 9999, 10_000, 11_000, 60_000]) {
    const disk = new MemoryDisk();
    const agent = new Agent(disk).begin(1);
    const unsynced: number[] = [];
    let synced = disk.syncCount;
    const look = () => {
      if (disk.syncCount > synced) unsynced.length = 0;
      synced = disk.syncCount;
      const waitsMs = agent.clock.monotonicMs() - (unsynced[0] ?? agent.clock.monotonicMs());
      assert.ok(waitsMs <= 10_000, `at ${intervalMs} ms a report waits for ${waitsMs} ms`);
    };
    for (let report = 0; report < 40; report++) {
      unsynced.push(agent.clock.monotonicMs());
      agent.append(1);
      look();
      for (let leftMs = intervalMs; leftMs > 0; leftMs -= 100) {
        await agent.clock.advance(Math.min(100, leftMs));
        look();
      }
    }
    if (intervalMs !== 5000) continue;
    const { firedCount } = agent.clock;
    const before = disk.syncCount;
    for (let report = 0; report < 100; report++) {
      // A tick is never quite on time.
      await agent.clock.advance(4990 + ((report * 7) % 20));
      agent.append(1);
    }
    assert.equal(disk.syncCount - before, 50);
    assert.equal(agent.clock.firedCount - firedCount, 0);
  }
});

test('the offset of an epoch is on disk before it is used', () => {
  const disk = new MemoryDisk();
  const killed = new Agent(disk);
  killed.spool.begin({ epoch: 1, baseMs: 0 });
  killed.append(3);
  killed.spool.settle(killed.spool.epoch!, 60_000);
  disk.cutPower();
  const receiver = new Receiver();
  receiver.push(drain(new Agent(disk, killed.clock).spool.replay([])));
  assert.deepEqual(receiver.begins, [{ epoch: 1, offsetMs: 60_000 }]);
  assert.equal(receiver.received.length, 3);
});

test('what is acknowledged is not there after a restart, and files that are freed go', async () => {
  const disk = new MemoryDisk();
  const first = new Agent(disk).begin(1);
  first.append(10);
  first.begin(2);
  const reports = first.append(10);
  assert.equal(disk.list().length, 2);
  first.spool.acknowledge(2, 4);
  assert.deepEqual(disk.list(), ['000000000002.spool']);
  await first.clock.advance(10_000);
  const second = new Agent(disk, first.clock);
  assert.equal(second.counters.spoolReports, 6);
  assert.deepEqual(second.delivered().slice(-6), reports.slice(4));
  second.spool.acknowledge(2, 10);
  assert.deepEqual(disk.list(), []);
});

test('a file cut at every byte, and with a bit turned at every byte: what stands before is delivered, nothing is wrong', () => {
  const disk = new MemoryDisk();
  const first = new Agent(disk).begin(1);
  const reports = first.append(4);
  first.maker.grow(1);
  reports.push(...first.append(2));
  first.begin(2);
  const later = first.append(3);
  const whole = Buffer.from(disk.read(firstFile));
  const boundaries = recordEnds(whole);

  const keptOf = (bytes: Buffer, { lines, what }: { lines: number; what: string }) => {
    disk.put(firstFile, bytes);
    const next = new Agent(disk, first.clock);
    const delivered = next.delivered();
    const kept = delivered.length - later.length;
    assert.deepEqual(delivered, [...reports.slice(0, kept), ...later], what);
    assert.equal(next.log.lines.length, lines, what);
    // What was cut off is gone: the next start finds nothing to say, unless the file is not ours.
    if (disk.list().includes(firstFile)) {
      const again = new Agent(disk, first.clock);
      assert.equal(again.delivered().length, delivered.length, what);
      if (next.counters.spoolDiskErrors > 0) assert.deepEqual(again.log.lines, [], what);
    }
    return kept;
  };
  let most = 0;
  for (let length = 0; length < whole.length; length++) {
    const what = `cut at ${length}`;
    // Between two records nothing is missing that could be told.
    const kept = keptOf(whole.subarray(0, length), { lines: boundaries.has(length) ? 0 : 1, what });
    assert.ok(kept >= most, what);
    most = kept;
  }
  assert.equal(most, reports.length - 1);
  for (let at = 0; at < whole.length; at++) {
    const damaged = Buffer.from(whole);
    damaged[at]! ^= 1 << (at % 8);
    const kept = keptOf(damaged, { lines: 1, what: `damaged at ${at}` });
    assert.ok(kept < reports.length, `damaged at ${at}`);
  }
  const zeros = Buffer.concat([whole, Buffer.alloc(4096)]);
  assert.equal(keptOf(zeros, { lines: 1, what: 'zeros behind it' }), reports.length);
});

test('a damaged segment in the middle: its end is lost and counted, those before and behind are kept', () => {
  const disk = new MemoryDisk();
  const agent = new Agent(disk, new VirtualClock(), 1024 * 1024);
  agent.maker.grow(500);
  agent.begin(1);
  const reports: ReadReport[] = [];
  while (disk.list().length < 2) reports.push(...agent.append(1));
  const name = disk.list()[1]!;
  while (disk.read(name).length < 30_000) reports.push(...agent.append(1));
  // What is lost is not reports alone: those of the next file are of these series too.
  agent.maker.grow(5);
  while (disk.list().length < 3) reports.push(...agent.append(1));
  const damaged = Buffer.from(disk.read(name));
  damaged[25_000]! ^= 1;
  disk.put(name, damaged);

  const next = new Agent(disk, agent.clock);
  const lost = next.counters.reportsDropped.disk;
  const delivered = next.delivered();
  assert.ok(lost > 0 && delivered.length > lost);
  assert.equal(delivered.length, reports.length - lost);
  const bySeq = new Map(reports.map((report) => [report.seq, report]));
  assert.deepEqual(
    delivered,
    delivered.map(({ seq }) => bySeq.get(seq)),
  );
  assert.equal(delivered.at(-1)?.seq, reports.length);
});

test('files of others and of later versions are left alone and named; their numbers are not used', () => {
  const disk = new MemoryDisk();
  const first = new Agent(disk).begin(1);
  const reports = first.append(3);
  const newer = Buffer.from(
    disk.read(firstFile).subarray(
      0,
      recordEnds(Buffer.from(disk.read(firstFile)))
        .values()
        .next().value,
    ),
  );
  const text = Buffer.from(newer.toString('latin1').replace('"version":1', '"version":2'), 'latin1');
  text.writeUInt32BE(crc32(text.subarray(8)), 4);
  disk.put('000000000008.spool', text);
  disk.put('000000000009.spool', Buffer.from('somebody wrote this by hand'));
  disk.put('notes.txt', Buffer.from('x'));
  for (const own of ['lock.1', 'host-id', 'lost+found']) disk.put(own, Buffer.from('x'));

  const next = new Agent(disk, first.clock).begin(2);
  reports.push(...next.append(2));
  assert.deepEqual(next.delivered(), reports);
  assert.equal(next.log.lines.length, 1);
  for (const name of ['000000000008.spool', '000000000009.spool', 'notes.txt']) {
    assert.match(next.log.lines[0]!, new RegExp(`'${name}'`));
  }
  assert.doesNotMatch(next.log.lines[0]!, /lock|host-id|lost/);
  next.spool.acknowledge(2, 2);
  assert.deepEqual([...disk.list()].sort().slice(0, 3), [
    '000000000008.spool',
    '000000000009.spool',
    '000000000010.spool',
  ]);
});

test('a full disk: memory keeps all, one warning, it goes on by itself when there is room', async () => {
  const disk = new MemoryDisk();
  const agent = new Agent(disk).begin(1);
  const reports = agent.append(20);
  disk.bytesMax = disk.bytes + 100;
  for (let minute = 0; minute < 5; minute++) {
    reports.push(...agent.append(12));
    await agent.clock.advance(60_000);
  }
  assert.deepEqual(agent.log.lines.length, 1);
  assert.match(agent.log.lines[0]!, /^warn: spool in '\/spool': ENOSPC.*in memory alone/);
  assert.ok(agent.counters.spoolDiskErrors >= 25);
  assert.equal(agent.spool.unmirroredCount, 1);
  assert.deepEqual(agent.delivered(), reports, 'nothing is lost');
  const onDisk = new Agent(copyOf(disk), agent.clock).delivered();
  assert.ok(onDisk.length >= 20 && onDisk.length < 30);
  assert.deepEqual(onDisk, reports.slice(0, onDisk.length), 'the disk holds what it took');

  disk.bytesMax = Number.POSITIVE_INFINITY;
  await agent.clock.advance(10_000);
  assert.equal(agent.spool.unmirroredCount, 0);
  assert.equal(agent.log.lines.length, 2);
  assert.match(agent.log.lines[1]!, /^info: .*written again/);
  reports.push(...agent.append(3));
  assert.deepEqual(new Agent(disk, agent.clock).delivered(), reports);
});

test('a disk that fails at syncing, removing or reading: told, tried again, and nothing is wrong afterwards', async () => {
  const disk = new MemoryDisk();
  const agent = new Agent(disk).begin(1);
  const reports = agent.append(5);
  disk.broken.add('sync');
  await agent.clock.advance(30_000);
  assert.equal(agent.log.lines.length, 1);
  disk.broken.clear();
  reports.push(...agent.append(5));
  await agent.clock.advance(20_000);
  disk.cutPower();
  assert.deepEqual(new Agent(disk, agent.clock).delivered(), reports, 'all was written and synced once more');

  const second = new Agent(disk, agent.clock).begin(2);
  second.append(1);
  disk.broken.add('remove');
  second.spool.acknowledge(2, 1);
  assert.equal(second.log.lines.length, 1);
  assert.equal(disk.list().length, 2);
  disk.broken.clear();
  await second.clock.advance(20_000);
  assert.equal(disk.list().length, 1, 'the file went when it could');

  disk.broken.add('read');
  const third = new Agent(disk, agent.clock).begin(3);
  assert.equal(third.log.lines.length, 1);
  assert.equal(third.append(1).length, 1);
  assert.equal(disk.list().length, 2, 'the file that could not be read is left alone');
});

test('what is dropped because the spool is full goes from the disk too', () => {
  const disk = new MemoryDisk();
  const agent = new Agent(disk, new VirtualClock(), 1024 * 1024);
  agent.maker.grow(500);
  agent.begin(1);
  for (let round = 0; round < 300; round++) {
    agent.maker.beginAnew(500);
    agent.append(1);
  }
  assert.ok(agent.counters.reportsDropped.full > 0);
  assert.ok(disk.bytes <= 1024 * 1024 * 1.05, `${disk.bytes}`);
  const next = new Agent(disk, agent.clock, 512 * 1024);
  assert.ok(next.spool.bytes <= 512 * 1024, 'a smaller bound holds from the start');
  assert.ok(disk.bytes <= 512 * 1024 * 1.05);
});

function recordEnds(file: Buffer): Set<number> {
  const ends = new Set<number>();
  let position = 0;
  while (position < file.length) {
    position += 8 + file.readUInt32BE(position);
    ends.add(position);
  }
  ends.add(0);
  return ends;
}

function copyOf(disk: MemoryDisk): MemoryDisk {
  const copy = new MemoryDisk();
  for (const name of disk.list()) copy.put(name, disk.read(name));
  return copy;
}
