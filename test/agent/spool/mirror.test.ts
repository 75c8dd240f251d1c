import assert from 'node:assert/strict';
import { test } from 'node:test';
import { crc32 } from 'node:zlib';
import { newAgentCounters } from '../../../src/agent/own-metrics.ts';
import type { DiskState } from '../../../src/agent/spool/disk-health.ts';
import { Mirror, type MirrorClosed } from '../../../src/agent/spool/mirror.ts';
import type { Receiver as SpoolReceiver } from '../../../src/agent/spool/receiver.ts';
import type { SpoolEpoch } from '../../../src/agent/spool/segment.ts';
import { type Drop, Spool } from '../../../src/agent/spool/spool.ts';
import { type Call, MemoryDisk } from '../../support/memory-disk.ts';
import { MemoryLog } from '../../support/memory-log.ts';
import { drain, hostSource, type ReadReport, Receiver, RecordingMaker, valuesOf } from '../../support/recordings.ts';
import { settle, VirtualClock } from '../../support/virtual-clock.ts';

const firstFile = '000000000001.spool';
const secondFile = '000000000002.spool';
const server = 'server:9732';
const second = 1000;
const minute = 60 * second;

interface Setting {
  readonly clock?: VirtualClock;
  readonly bytesMax?: number;
}

class Agent {
  readonly clock: VirtualClock;
  readonly disk: MemoryDisk;
  readonly log = new MemoryLog();
  readonly counters = newAgentCounters();
  readonly mirror: Mirror;
  readonly spool: Spool;
  readonly maker = new RecordingMaker();
  drops: readonly Drop[] = [];

  constructor(disk: MemoryDisk, { clock = new VirtualClock(), bytesMax = 64 * 1024 * 1024 }: Setting = {}) {
    this.clock = clock;
    this.disk = disk;
    const { log, counters } = this;
    this.mirror = new Mirror({ disk, clock, log, counters });
    const bounds = { bytesMax, ageMsMax: 24 * 3600 * 1000 };
    this.spool = new Spool({ clock, counters, mirror: this.mirror, bounds, servers: [server], source: hostSource });
  }

  /** One that has read what is there, and has written what it had to. */
  static async start(disk: MemoryDisk, setting: Setting = {}): Promise<Agent> {
    const agent = new Agent(disk, setting);
    agent.drops = await agent.spool.load();
    await settle();
    return agent;
  }

  get receiver(): SpoolReceiver {
    return this.spool.receiver(server);
  }

  get state(): DiskState['kind'] {
    assert.equal(this.counters.spoolDiskState, this.mirror.state.kind);
    return this.mirror.state.kind;
  }

  /** The next process, on the same disk. The timers of this one fire no more. */
  next(setting: Setting = {}): Promise<Agent> {
    return Agent.start(this.disk, { clock: new VirtualClock(this.clock.nowMs()), ...setting });
  }

  async begin(epoch: number): Promise<this> {
    this.spool.begin({ epoch, baseMs: 0 });
    void this.spool.fixOffset(this.receiver, this.spool.epoch!, epoch);
    await settle();
    return this;
  }

  /** Made in one moment, and written where the disk takes it. */
  async append(count: number): Promise<ReadReport[]> {
    const made: ReadReport[] = [];
    for (let index = 0; index < count; index++) {
      const recording = this.maker.make([this.spool.epoch!.lastSeq, index, 7]);
      this.spool.append(recording, this.clock.nowMs());
      const { id, lastSeq, lastTimeMs } = this.spool.epoch!;
      const offsetMs = this.receiver.offsetsMs.get(id) ?? 0;
      made.push({ epoch: id, seq: lastSeq, timeMs: lastTimeMs + offsetMs, values: valuesOf(recording) });
    }
    await settle();
    return made;
  }

  /** A report each 5 s. */
  async live(ms: number): Promise<ReadReport[]> {
    const made: ReadReport[] = [];
    for (let passed = 0; passed < ms; passed += 5 * second) {
      made.push(...(await this.append(1)));
      await this.clock.advance(5 * second);
    }
    return made;
  }

  async acknowledge(epoch: number, seq: number): Promise<void> {
    this.spool.acknowledge(this.receiver, { epoch, seq });
    await settle();
  }

  /** As SIGTERM ends it. */
  async close(): Promise<MirrorClosed> {
    const closing = this.spool.close(2000);
    await this.clock.advance(5 * second);
    return closing;
  }

  delivered(): readonly ReadReport[] {
    const receiver = new Receiver();
    const fixOffset = (epoch: SpoolEpoch) => void this.spool.fixOffset(this.receiver, epoch, 0);
    receiver.push(drain(this.spool.replay(this.receiver, []), fixOffset));
    return receiver.received;
  }
}

const segmentFiles = (disk: MemoryDisk) => disk.names.filter((name) => name.endsWith('.spool'));

test('a process that is killed loses nothing; the next one delivers it first, and its own numbers go on', async () => {
  const disk = new MemoryDisk();
  const killed = await (await Agent.start(disk)).begin(1);
  const reports = await killed.append(150);
  killed.maker.grow(3);
  reports.push(...(await killed.append(10)));

  const next = await (await killed.next()).begin(2);
  assert.equal(next.counters.spoolReports, 160);
  reports.push(...(await next.append(5)));
  assert.deepEqual(next.delivered(), reports);
  assert.deepEqual(next.log.lines, []);
});

test('a power cut costs what was made since the last sync, at most 10 s; a torn end is cut, logged and counted', async () => {
  for (const keptBytes of [0, 1, 7, 8, 20, 1000]) {
    const disk = new MemoryDisk();
    const killed = await (await Agent.start(disk)).begin(1);
    const reports = await killed.append(10);
    await killed.clock.advance(10_000);
    // This one is synced at once.
    reports.push(...(await killed.append(1)));
    await killed.append(3);
    disk.cutPower((unsynced) => Math.min(unsynced, keptBytes));
    const next = await killed.next();
    const left = next.delivered();
    assert.ok(left.length >= 11 && left.length <= 14);
    assert.deepEqual(left.slice(0, 11), reports);
    assert.equal(next.counters.spoolDiskErrors, keptBytes === 0 || keptBytes === 1000 ? 0 : 1);
    assert.equal(next.log.lines.length, next.counters.spoolDiskErrors);
  }
});

test('what a killed process had not synced, the next one does', async () => {
  const disk = new MemoryDisk();
  const killed = await (await Agent.start(disk)).begin(1);
  const reports = await killed.append(10);
  const next = await (await killed.next()).begin(2);
  reports.push(...(await next.append(2)));
  await next.clock.advance(10_000);
  disk.cutPower();
  assert.deepEqual((await next.next()).delivered(), reports);
});

test('reports are synced within 10 s at any interval, and at 5 s every 10 s, with a report and by no timer', async () => {
  for (const intervalMs of [100, 1000, 3000, 5000, 7000, 9999, 10_000, 11_000, 60_000]) {
    const disk = new MemoryDisk();
    const agent = await (await Agent.start(disk)).begin(1);
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
      await agent.append(1);
      look();
      for (let leftMs = intervalMs; leftMs > 0; leftMs -= 100) {
        await agent.clock.advance(Math.min(100, leftMs));
        look();
      }
    }
    if (intervalMs !== 5000) continue;
    const { firedCount } = agent.clock;
    const before = { ...disk.callCounts };
    for (let report = 0; report < 100; report++) {
      // A tick is never quite on time.
      await agent.clock.advance(4990 + ((report * 7) % 20));
      await agent.append(1);
      // Nor does it change anything that all is acknowledged soon.
      await agent.acknowledge(1, agent.spool.epoch!.lastSeq);
    }
    const calls = Object.entries(disk.callCounts).map(([call, count]) => [call, count - before[call as Call]]);
    // Each is a turn of a thread and a wake-up of the process: one a report, and what is acknowledged every 5 min.
    assert.deepEqual(
      calls.filter(([, count]) => count !== 0),
      [
        ['write', 50],
        ['writeSynced', 50],
        ['replace', 2],
      ],
    );
    assert.equal(agent.clock.firedCount - firedCount, 0);
  }
});

test('the offset of an epoch is on disk before it is used', async () => {
  const disk = new MemoryDisk();
  const killed = await Agent.start(disk);
  killed.spool.begin({ epoch: 1, baseMs: 0 });
  await killed.append(3);
  await killed.clock.advance(10_000);
  await killed.spool.fixOffset(killed.receiver, killed.spool.epoch!, 60_000);
  disk.cutPower();
  const receiver = new Receiver();
  const next = await killed.next();
  receiver.push(drain(next.spool.replay(next.receiver, [])));
  assert.deepEqual(receiver.begins, [{ epoch: 1, offsetMs: 60_000 }]);
  assert.equal(receiver.received.length, 3);
});

test('an offset waits for a disk that is in order, and for no other', async () => {
  const disk = new MemoryDisk();
  const agent = await Agent.start(disk);
  agent.spool.begin({ epoch: 1, baseMs: 0 });
  const waitedMs = async () => {
    const sinceMs = agent.clock.monotonicMs();
    let waited: number | undefined;
    const fixing = agent.spool.fixOffset(agent.receiver, agent.spool.epoch!, 1);
    void fixing.then(() => (waited = agent.clock.monotonicMs() - sinceMs));
    await settle();
    while (waited === undefined) await agent.clock.advance(100);
    return waited;
  };
  assert.equal(await waitedMs(), 0);
  disk.stall('replace');
  // Then it is known to be slow.
  assert.equal(await waitedMs(), 2000);
  assert.equal(await waitedMs(), 0);
  disk.goOn();
  disk.broken.add('replace');
  await agent.live(minute);
  assert.equal(agent.state, 'failing');
  assert.equal(await waitedMs(), 0);
});

test('what is acknowledged is not there after a restart, and files that are freed go', async () => {
  const disk = new MemoryDisk();
  const first = await (await Agent.start(disk)).begin(1);
  await first.append(10);
  await first.begin(2);
  const reports = await first.append(10);
  assert.equal(segmentFiles(disk).length, 2);
  await first.acknowledge(2, 4);
  assert.deepEqual(segmentFiles(disk), [secondFile]);
  const saved = disk.callCounts.replace;
  await first.live(10 * minute);
  assert.equal(disk.callCounts.replace - saved, 1, 'an acknowledgement is written within five minutes, and once');
  const next = await first.next();
  assert.equal(next.counters.spoolReports, 126);
  assert.deepEqual(next.delivered().slice(-126, -120), reports.slice(4));
  await next.acknowledge(2, 130);
  assert.deepEqual(segmentFiles(disk), []);
});

test('acknowledgements that come all the time are written every five minutes, and when the agent stops', async () => {
  const disk = new MemoryDisk();
  const agent = await (await Agent.start(disk)).begin(1);
  const saved = disk.callCounts.replace;
  for (let report = 1; report <= 120; report++) {
    await agent.append(1);
    await agent.acknowledge(1, report - 1);
    await agent.clock.advance(5 * second);
  }
  assert.ok(disk.callCounts.replace - saved <= 2, `${disk.callCounts.replace - saved} in 10 min`);
  assert.deepEqual(await agent.close(), { unwrittenReports: 0, isIdle: true });
  assert.equal(agent.clock.timers, 0);
  assert.equal((await agent.next()).counters.spoolReports, 1);
});

test('a file cut at every byte, and with a bit turned at every byte: what stands before is delivered, nothing is wrong', async () => {
  const disk = new MemoryDisk();
  const first = await (await Agent.start(disk)).begin(1);
  const reports = await first.append(4);
  first.maker.grow(1);
  reports.push(...(await first.append(2)));
  await first.begin(2);
  const later = await first.append(3);
  const whole = disk.bytesOf(firstFile);
  const boundaries = recordEnds(whole);

  const keptOf = async (bytes: Buffer, { lines, what }: { lines: number; what: string }) => {
    disk.put(firstFile, bytes);
    const next = await first.next();
    const delivered = next.delivered();
    const kept = delivered.length - later.length;
    assert.deepEqual(delivered, [...reports.slice(0, kept), ...later], what);
    assert.equal(next.log.lines.length, lines, what);
    // What was cut off is gone: the next start finds nothing to say, unless the file is not ours.
    if (disk.names.includes(firstFile)) {
      const again = await first.next();
      assert.equal(again.delivered().length, delivered.length, what);
      if (next.counters.spoolDiskErrors > 0) assert.deepEqual(again.log.lines, [], what);
    }
    return kept;
  };
  let most = 0;
  for (let length = 0; length < whole.length; length++) {
    const what = `cut at ${length}`;
    // Between two records nothing is missing that could be told.
    const kept = await keptOf(whole.subarray(0, length), { lines: boundaries.has(length) ? 0 : 1, what });
    assert.ok(kept >= most, what);
    most = kept;
  }
  assert.equal(most, reports.length - 1);
  for (let at = 0; at < whole.length; at++) {
    const damaged = Buffer.from(whole);
    damaged[at]! ^= 1 << (at % 8);
    const kept = await keptOf(damaged, { lines: 1, what: `damaged at ${at}` });
    assert.ok(kept < reports.length, `damaged at ${at}`);
  }
  const zeros = Buffer.concat([whole, Buffer.alloc(4096)]);
  assert.equal(await keptOf(zeros, { lines: 1, what: 'zeros behind it' }), reports.length);
});

test('a damaged segment in the middle: its end is lost, counted and returned with its times; the others are kept', async () => {
  const disk = new MemoryDisk();
  const agent = await Agent.start(disk, { bytesMax: 1024 * 1024 });
  agent.maker.grow(500);
  await agent.begin(1);
  const reports: ReadReport[] = [];
  while (segmentFiles(disk).length < 2) reports.push(...(await agent.append(1)));
  while (disk.bytesOf(secondFile).length < 30_000) reports.push(...(await agent.append(1)));
  // What is lost is not reports alone: those of the next file are of these series too.
  agent.maker.grow(5);
  while (segmentFiles(disk).length < 3) reports.push(...(await agent.append(1)));
  const damaged = disk.bytesOf(secondFile);
  damaged[25_000]! ^= 1;
  disk.put(secondFile, damaged);

  const next = await agent.next();
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
  const kept = delivered.findLastIndex(({ seq }, at) => seq === at + 1);
  const [firstMs, lastMs] = [delivered[kept]!.timeMs - 1, delivered[kept + 1]!.timeMs - 1];
  assert.deepEqual(next.drops, [{ reason: 'disk', count: lost, firstMs, lastMs }]);
});

test('files of others and of later versions are left alone and named; their numbers are not used', async () => {
  const disk = new MemoryDisk();
  const first = await (await Agent.start(disk)).begin(1);
  const reports = await first.append(3);
  const whole = disk.bytesOf(firstFile);
  const header = whole.subarray(
    0,
    [...recordEnds(whole)].find((end) => end > 0),
  );
  const later = Buffer.from(header.toString('latin1').replace('"version":1', '"version":2'), 'latin1');
  later.writeUInt32BE(crc32(later.subarray(8)), 4);
  disk.put('000000000008.spool', later);
  disk.put('000000000009.spool', Buffer.from('somebody wrote this by hand'));
  disk.put('notes.txt', Buffer.from('x'));
  for (const own of ['lock.1', 'host-id', 'lost+found', 'receiver-a-00000000.json.new'])
    disk.put(own, Buffer.from('x'));

  const next = await (await first.next()).begin(2);
  reports.push(...(await next.append(2)));
  assert.deepEqual(next.delivered(), reports);
  assert.equal(next.log.lines.length, 1);
  for (const name of ['000000000008.spool', '000000000009.spool', 'notes.txt']) {
    assert.match(next.log.lines[0]!, new RegExp(`'${name}'`));
  }
  assert.doesNotMatch(next.log.lines[0]!, /lock|host-id|lost|receiver/);
  await next.acknowledge(2, 2);
  assert.deepEqual(segmentFiles(disk), ['000000000008.spool', '000000000009.spool', '000000000010.spool']);
});

test("a receiver's file that is damaged or of a later version: all is sent again, and it is said", async () => {
  const disk = new MemoryDisk();
  const first = await (await Agent.start(disk)).begin(1);
  await first.append(10);
  await first.acknowledge(1, 7);
  await first.close();
  const name = disk.names.find((each) => each.startsWith('receiver'))!;
  const whole = disk.bytesOf(name);
  const text = whole.toString();
  assert.equal((await first.next()).counters.spoolReports, 3);
  const bad = [
    ...Array.from({ length: whole.length - 1 }, (_, length) => whole.subarray(0, length)),
    Buffer.from(text.replace('"version":1', '"version":2')),
    Buffer.from(text.replace('[1,7]', '[1]')),
    Buffer.from(text.replace('[1,7]', '"7"')),
    Buffer.from(text.replace('[[1,1]]', '[1]')),
    Buffer.from('null'),
  ];
  for (const bytes of bad) {
    disk.put(name, bytes);
    const next = await first.next();
    assert.equal(next.counters.spoolReports, 10, bytes.toString());
    assert.equal(next.counters.spoolDiskErrors, 1);
    assert.deepEqual(next.log.lines.length, 1);
    assert.match(next.log.lines[0]!, /'receiver-server_9732-.*json' is damaged or of a later version/);
  }
});

test('a full disk: memory keeps all, one warning, it goes on by itself when there is room', async () => {
  const disk = new MemoryDisk();
  const agent = await (await Agent.start(disk)).begin(1);
  const reports = await agent.append(20);
  await agent.clock.advance(11 * second);
  disk.bytesMax = disk.bytes + 100;
  reports.push(...(await agent.live(5 * minute)));
  assert.equal(agent.state, 'failing');
  assert.deepEqual(agent.log.lines.length, 1);
  assert.match(agent.log.lines[0]!, /^warn: spool in '\/spool': ENOSPC.*in memory only, retrying every 10s$/);
  assert.ok(agent.counters.spoolDiskErrors >= 25);
  assert.ok(agent.spool.unwrittenCount >= 55);
  assert.equal(agent.counters.spoolUnwrittenReports, agent.spool.unwrittenCount);
  assert.deepEqual(agent.delivered(), reports, 'nothing is lost');
  const onDisk = (await Agent.start(disk.copy(), { clock: new VirtualClock(agent.clock.nowMs()) })).delivered();
  assert.ok(onDisk.length >= 20 && onDisk.length < 30);
  assert.deepEqual(onDisk, reports.slice(0, onDisk.length), 'the disk holds what it took');

  disk.bytesMax = Number.POSITIVE_INFINITY;
  await agent.clock.advance(10_000);
  assert.equal(agent.state, 'ok');
  assert.equal(agent.spool.unwrittenCount, 0);
  assert.equal(agent.log.lines.length, 2);
  assert.match(
    agent.log.lines[1]!,
    /^info: .*disk ok after \d+\.\d s of failures; up to \d+ reports were in memory only, all/,
  );
  reports.push(...(await agent.append(3)));
  assert.deepEqual((await agent.next()).delivered(), reports);
});

test('a disk that fails at syncing, removing or reading: said, tried again, and nothing is wrong afterwards', async () => {
  const disk = new MemoryDisk();
  const agent = await (await Agent.start(disk)).begin(1);
  const reports = await agent.append(5);
  disk.broken.add('sync').add('writeSynced');
  await agent.clock.advance(30_000);
  assert.equal(agent.state, 'failing');
  assert.equal(agent.log.lines.length, 1);
  disk.broken.clear();
  reports.push(...(await agent.append(5)));
  await agent.clock.advance(20_000);
  assert.equal(agent.state, 'ok');

  const next = await (await agent.next()).begin(2);
  await next.append(1);
  disk.broken.add('remove');
  await next.acknowledge(2, 1);
  assert.equal(next.log.lines.length, 1);
  assert.equal(segmentFiles(disk).length, 2);
  disk.broken.clear();
  await next.clock.advance(20_000);
  assert.equal(next.state, 'ok');
  assert.equal(segmentFiles(disk).length, 1, 'the file went when it could');

  disk.broken.add('read');
  const third = await (await agent.next()).begin(3);
  assert.equal(third.log.lines.filter((line) => line.includes('leaving the file')).length, 2);
  assert.equal((await third.append(1)).length, 1);
  assert.equal(segmentFiles(disk).length, 2, 'the file that could not be read is left alone');
});

test('after a sync that failed all of the file is written again: the kernel calls pages clean that never got there', async () => {
  const disk = new MemoryDisk();
  const agent = await (await Agent.start(disk)).begin(1);
  const reports = await agent.append(5);
  disk.broken.add('sync');
  await agent.clock.advance(10_000);
  assert.equal(agent.state, 'failing');
  disk.broken.clear();
  reports.push(...(await agent.append(5)));
  await agent.clock.advance(20_000);
  assert.equal(agent.state, 'ok');
  disk.cutPower();
  const next = await agent.next();
  assert.deepEqual(next.delivered(), reports);
  assert.deepEqual(next.log.lines, []);
});

test('after a synced write that failed all since the last sync is written again', async () => {
  const disk = new MemoryDisk();
  const agent = await (await Agent.start(disk)).begin(1);
  const reports = await agent.live(30 * second);
  disk.broken.add('writeSynced');
  reports.push(...(await agent.live(20 * second)));
  assert.equal(agent.state, 'failing');
  disk.broken.clear();
  reports.push(...(await agent.live(20 * second)));
  assert.equal(agent.state, 'ok');
  disk.cutPower();
  const next = await agent.next();
  // The last one may not be synced yet.
  assert.deepEqual(next.delivered().slice(0, reports.length - 1), reports.slice(0, -1));
  assert.deepEqual(next.log.lines, []);
});

test('a slow disk that then fails has been in trouble since it was slow, and both are said', async () => {
  const disk = new MemoryDisk();
  const agent = await (await Agent.start(disk)).begin(1);
  disk.stall('write');
  const stalledMs = agent.clock.nowMs();
  await agent.live(30 * second);
  disk.broken.add('write');
  disk.goOn();
  await agent.live(5 * second);
  assert.deepEqual(agent.mirror.state, { kind: 'failing', sinceMs: stalledMs, reason: 'EIO: i/o error, write' });
  disk.broken.clear();
  await agent.live(20 * second);
  assert.equal(agent.state, 'ok');
  assert.equal(agent.log.lines.length, 3);
  assert.match(agent.log.lines[2]!, /disk ok after (3\d|4\d)\.\d s of failures; up to \d+ reports were in memory only/);
});

test('what a disk lacks after a while is written in pieces', async () => {
  const disk = new MemoryDisk();
  const agent = await Agent.start(disk);
  agent.maker.grow(2000);
  await agent.begin(1);
  disk.stall('write');
  for (let report = 0; report < 60; report++) {
    const values = Array.from({ length: 2000 }, (_, series) => Math.sin(report * series));
    agent.spool.append(agent.maker.make(values), agent.clock.nowMs());
  }
  const before = disk.callCounts.write;
  let longest = 0;
  const { write } = disk;
  disk.write = (name, position, bytes) => {
    longest = Math.max(longest, bytes.length);
    return write.call(disk, name, position, bytes);
  };
  disk.goOn();
  await settle();
  assert.equal(agent.spool.unwrittenCount, 0);
  assert.ok(disk.bytes > 1_000_000, `${disk.bytes}`);
  assert.ok(disk.callCounts.write - before >= disk.bytes / (512 * 1024));
  assert.ok(longest < 512 * 1024, `${longest}`);
});

test('what was acknowledged and is torn off is no loss', async () => {
  const disk = new MemoryDisk();
  const agent = await Agent.start(disk, { bytesMax: 1024 * 1024 });
  agent.maker.grow(500);
  await agent.begin(1);
  while (segmentFiles(disk).length < 2) await agent.append(1);
  const { firstSeq } = agent.spool.segments[1]!;
  await agent.acknowledge(1, firstSeq - 2);
  await agent.close();
  const whole = disk.bytesOf(firstFile);
  // The last report but one is acknowledged, the last is not.
  for (const [lost, kept] of [
    [0, 0],
    [1, 1],
    [1, 100],
    [1, 20_000],
  ] as const) {
    disk.put(firstFile, whole.subarray(0, whole.length - kept));
    const next = await agent.next();
    assert.equal(next.counters.reportsDropped.disk, lost, `without the last ${kept} bytes`);
    assert.equal(next.drops.length, lost);
  }
});

test('a file that fails does not keep the others from being written, and a full disk is emptied first', async () => {
  const disk = new MemoryDisk();
  const agent = await (await Agent.start(disk)).begin(1);
  await agent.append(3);
  disk.broken.add('remove');
  await agent.begin(2);
  await agent.append(3);
  await agent.acknowledge(2, 1);
  const before = disk.bytesOf(secondFile).length;
  await agent.append(1);
  assert.ok(disk.bytesOf(secondFile).length > before, 'it was written, although the first could not be removed');
  disk.broken.clear();
  disk.bytesMax = disk.bytes;
  await agent.append(1);
  await agent.clock.advance(20_000);
  assert.deepEqual(segmentFiles(disk), [secondFile]);
  assert.equal(agent.spool.unwrittenCount, 0);
});

const calls = ['write', 'writeSynced', 'sync', 'replace', 'remove'] as const;

for (const call of calls) {
  test(`a disk that stalls for a minute in '${call}' costs nothing but the mirror`, async () => {
    const disk = new MemoryDisk();
    const agent = await (await Agent.start(disk)).begin(1);
    const reports = await agent.live(30 * second);
    const stalledMs = agent.clock.nowMs();
    disk.stall(call);
    for (let at = 0; at < 12; at++) {
      // Each of the calls comes in this time: an acknowledgement removes, a new epoch has an offset.
      await agent.begin(2 + at);
      reports.push(...(await agent.live(5 * second)));
      if (call === 'remove') await agent.acknowledge(1, 6);
    }
    assert.equal(agent.counters.reportsSampled, 18);
    const { state } = agent.mirror;
    assert.ok(state.kind === 'slow');
    assert.ok(state.sinceMs >= stalledMs && state.sinceMs <= stalledMs + 10 * second, 'since the call began');
    assert.equal(agent.log.lines.length, 1);
    assert.match(
      agent.log.lines[0]!,
      /^warn: spool in '\/spool': disk slow since 2026-01-01T00:00:\d\d.\d+Z \(.*'.*'\); /,
    );
    assert.ok(agent.spool.unwrittenCount > 5);
    assert.equal(disk.underWayMax, 1);
    const kept = call === 'remove' ? reports.slice(6) : reports;
    assert.deepEqual(agent.delivered(), kept, 'memory has all of it');

    disk.goOn();
    await agent.live(20 * second);
    assert.equal(agent.state, 'ok');
    assert.equal(agent.spool.unwrittenCount, 0);
    assert.equal(agent.log.lines.length, 2);
    assert.match(
      agent.log.lines[1]!,
      /^info: .*disk ok after \d+\.\d s of slowness; up to \d+ reports were in memory only/,
    );
    assert.equal(disk.underWayMax, 1);
    assert.deepEqual((await agent.next()).delivered().slice(0, kept.length), kept);
  });
}

test('a disk whose syncs always take 25 s is slow all the time: it does not come and go in the log', async () => {
  const disk = new MemoryDisk();
  const agent = await (await Agent.start(disk)).begin(1);
  await agent.live(10 * second);
  for (let round = 0; round < 10; round++) {
    disk.stall('sync', 'writeSynced');
    await agent.live(25 * second);
    assert.equal(agent.state, 'slow', `round ${round}`);
    disk.goOn();
    await settle();
  }
  assert.equal(agent.log.lines.length, 1);
});

test('a spool that is full while the disk stalls: the bound holds, and what was dropped is not written any more', async () => {
  const disk = new MemoryDisk();
  const agent = await Agent.start(disk, { bytesMax: 1024 * 1024 });
  agent.maker.grow(500);
  await agent.begin(1);
  await agent.append(1);
  disk.stall('write');
  while (agent.counters.reportsDropped.full < 500) {
    await agent.append(10);
    assert.ok(agent.spool.bytes <= 1024 * 1024);
    await agent.clock.advance(second);
  }
  disk.goOn();
  await agent.clock.advance(minute);
  assert.ok(disk.bytes <= 1024 * 1024 * 1.05, `${disk.bytes}`);
  assert.equal(segmentFiles(disk).length, agent.spool.segments.length);
  assert.equal(agent.spool.unwrittenCount, 0);
});

test('closing waits for a disk that stalls for some seconds, and says how many reports it lacks', async () => {
  const disk = new MemoryDisk();
  const agent = await (await Agent.start(disk)).begin(1);
  const reports = await agent.append(5);
  disk.stall('write');
  await agent.append(3);
  const closing = agent.spool.close(2000);
  let closedAfterMs: number | undefined;
  const beganMs = agent.clock.monotonicMs();
  void closing.then(() => (closedAfterMs = agent.clock.monotonicMs() - beganMs));
  await agent.clock.advance(5 * second);
  assert.deepEqual(await closing, { unwrittenReports: 3, isIdle: false });
  assert.ok(closedAfterMs !== undefined && closedAfterMs <= 2 * second, `${closedAfterMs}`);
  assert.equal(agent.clock.timers, 0);
  assert.deepEqual(
    (await Agent.start(disk.copy(), { clock: new VirtualClock(agent.clock.nowMs()) })).delivered(),
    reports,
  );
  // The call that hung may end while the process lives: nothing follows it.
  const { write } = disk.callCounts;
  disk.broken.add('write');
  disk.goOn();
  await settle();
  assert.equal(agent.clock.timers, 0);
  assert.equal(disk.callCounts.write, write);
});

for (const call of ['list', 'read'] as const) {
  test(`a disk that hangs at the start in '${call}': the agent starts without it, says so, and spoils nothing`, async () => {
    const disk = new MemoryDisk();
    const first = await (await Agent.start(disk)).begin(1);
    const reports = await first.append(3);
    await first.close();
    disk.put(secondFile, disk.bytesOf(firstFile));
    disk.stall(call);
    const agent = new Agent(disk, { clock: first.clock });
    const loading = agent.spool.load();
    await agent.clock.advance(20 * second);
    assert.deepEqual(await loading, []);
    assert.equal(agent.state, 'slow');
    assert.equal(agent.log.lines.length, 2);
    assert.match(agent.log.lines[0]!, /disk slow since/);
    assert.match(
      agent.log.lines[1]!,
      call === 'list' ? /cannot be read: starting without/ : /not read whole within 20s/,
    );
    await agent.begin(2);
    const later = await agent.live(minute);
    assert.deepEqual(agent.delivered(), later);
    assert.deepEqual(segmentFiles(disk), [firstFile, secondFile], 'no number is taken that another file may have');
    assert.equal(disk.underWayMax, 1);

    disk.goOn();
    await agent.live(20 * second);
    assert.equal(agent.state, 'ok');
    assert.deepEqual(segmentFiles(disk), [firstFile, secondFile, '000000000003.spool']);
    await disk.remove(secondFile);
    // The offset of the first epoch was not read either.
    const delivered = (await agent.next()).delivered();
    assert.deepEqual(
      delivered.slice(0, 3).map(({ values }) => values),
      reports.map(({ values }) => values),
      'the next start has all of it',
    );
    assert.deepEqual(delivered.slice(3, 15), later);
  });
}

test('a folder that cannot be listed: memory alone, until it can', async () => {
  const disk = new MemoryDisk();
  const first = await (await Agent.start(disk)).begin(1);
  await first.append(3);
  await first.close();
  disk.broken.add('list');
  const agent = await (await first.next()).begin(2);
  await agent.live(minute);
  assert.equal(agent.state, 'failing');
  assert.deepEqual(segmentFiles(disk), [firstFile]);
  disk.broken.clear();
  await agent.live(20 * second);
  assert.equal(agent.state, 'ok');
  assert.deepEqual(segmentFiles(disk), [firstFile, secondFile]);
});

test('each file is read once at the start, one at a time, and the bound holds while they are read', async () => {
  const disk = new MemoryDisk();
  const agent = await Agent.start(disk, { bytesMax: 1024 * 1024 });
  agent.maker.grow(500);
  await agent.begin(1);
  while (segmentFiles(disk).length < 8) await agent.append(10);
  await agent.close();
  const files = disk.names.length;
  disk.callCounts.read = 0;
  disk.underWayMax = 0;
  const next = new Agent(disk, { clock: agent.clock, bytesMax: 300 * 1024 });
  let bytesMax = 0;
  const { read } = disk;
  disk.read = (name) => {
    bytesMax = Math.max(bytesMax, next.spool.bytes);
    return read.call(disk, name);
  };
  await next.spool.load();
  await settle();
  assert.equal(disk.callCounts.read, files);
  assert.equal(disk.underWayMax, 1);
  assert.ok(bytesMax > 200 * 1024 && bytesMax <= 300 * 1024, `${bytesMax}`);
  assert.ok(disk.bytes <= 300 * 1024 * 1.05, 'a smaller bound holds on disk from the start too');
});

test('what is dropped because the spool is full goes from the disk too', async () => {
  const disk = new MemoryDisk();
  const agent = await Agent.start(disk, { bytesMax: 1024 * 1024 });
  agent.maker.grow(500);
  await agent.begin(1);
  for (let round = 0; round < 300; round++) {
    agent.maker.beginAnew(500);
    await agent.append(1);
  }
  assert.ok(agent.counters.reportsDropped.full > 0);
  assert.ok(disk.bytes <= 1024 * 1024 * 1.05, `${disk.bytes}`);
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
