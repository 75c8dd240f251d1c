import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { EpochSeq } from '../../../src/protocol/messages.ts';
import { AgentRecord, type StreamRecord } from '../../../src/server/delivery/agent-record.ts';
import { SchemasInUse } from '../../../src/server/delivery/schemas.ts';
import { Store } from '../../../src/server/delivery/store.ts';
import { idOf } from '../../support/batches.ts';
import { beginOf } from '../../support/groups.ts';
import { VirtualClock } from '../../support/virtual-clock.ts';
import { ReportMaker } from './report-maker.ts';

function makeStore(clock = new VirtualClock()) {
  const evicted: string[] = [];
  const store = new Store({
    ...{ clock, windowMs: 3_600_000, memoryBytesMax: 2 ** 30, forgetAfterMs: 86_400_000 },
    unscrapedAfterMs: () => 0,
    scrapersWithout: () => [],
    onReport() {},
    onEvict: (reason, unscraped) => evicted.push(unscraped ? `${reason}, unscraped` : reason),
    onReceived() {},
  });
  return { clock, store, evicted, agent: store.agent(idOf('a')) };
}

/** Sources of an agent and one row of numbers for all their reports, as a connection would have them. */
class Sources {
  readonly world = makeStore();
  readonly agent = this.world.agent;
  readonly made: { readonly stream: StreamRecord; readonly epoch: number; readonly seq: number; timeMs: number }[] = [];
  epoch = 1;
  #seq = 0;
  readonly #makers = new Map<string, ReportMaker>();

  begin(name: string, epoch = this.epoch): StreamRecord {
    if (epoch !== this.epoch) this.#seq = 0;
    this.epoch = epoch;
    return this.world.store.begin(this.agent, beginOf({ epoch, source: name === 'host' ? 0 : 1, name })).stream;
  }

  report(name: string, timeMs: number): void {
    const stream = this.begin(name);
    const maker = this.#makers.get(name) ?? new ReportMaker();
    this.#makers.set(name, maker);
    const seq = ++this.#seq;
    const report = { ...maker.make(timeMs, [seq], { key: true }), epoch: this.epoch, seq };
    assert.equal(this.world.store.receive(stream, report), 'stored');
    this.made.push({ stream, epoch: this.epoch, seq, timeMs });
  }
}

test('each source has its window, labels and newest report; numbers count for all of them', () => {
  const { store, agent, clock } = makeStore();
  const nowMs = clock.nowMs();
  const host = store.begin(agent, beginOf({ labels: [['rack', 'a']] })).stream;
  const redis = store.begin(agent, beginOf({ source: 1, name: 'redis', intervalMs: 15_000, offsetMs: 7 })).stream;
  assert.equal(host, agent.host);
  assert.deepEqual([host.id, redis.id], ['a', 'a/redis']);
  assert.deepEqual([redis.intervalMs, redis.offsetMs, redis.labels], [15_000, 7, []]);
  const [one, other] = [new ReportMaker(), new ReportMaker()];
  assert.equal(store.receive(host, one.make(nowMs, [1])), 'stored');
  // Older than the newest of the host, and the first of this source.
  assert.equal(store.receive(redis, { ...other.make(nowMs - 5000, [2]), seq: 2 }), 'stored');
  assert.equal(store.receive(redis, { ...other.make(nowMs - 5000, [2]), seq: 3 }), 'not_newer');
  assert.equal(store.receive(host, { ...one.make(nowMs + 1, [2]), seq: 3 }), 'duplicate');
  assert.deepEqual([host.newestMs, redis.newestMs], [nowMs, nowMs - 5000]);
  assert.deepEqual([...agent.epochs], [[1, 3]]);
  assert.deepEqual(
    [host.up(clock.monotonicMs()), redis.up(clock.monotonicMs())],
    [true, false],
    'the newest was refused',
  );
  assert.equal(store.windowBytes, host.window.bytes + redis.window.bytes + store.schemas.bytes);
  assert.deepEqual(store.forget(agent.id), ['a', 'a/redis']);
  assert.equal(store.windowBytes, 0);
});

test('property: an ack covers all before the first report of any source that is not delivered', () => {
  const step = fc.record({
    name: fc.constantFrom('host', 'redis', 'nginx'),
    epochs: fc.constantFrom(0, 0, 0, 1),
    forMs: fc.integer({ min: 1, max: 50 }),
  });
  fc.assert(
    fc.property(
      fc.array(step, { maxLength: 40 }),
      fc.array(fc.nat(40), { minLength: 3, maxLength: 3 }),
      (steps, had) => {
        const sources = new Sources();
        let timeMs = sources.world.clock.nowMs() - 3000;
        for (const { name, epochs, forMs } of steps) {
          if (epochs > 0) sources.begin(name, sources.epoch + epochs);
          timeMs += forMs;
          sources.report(name, timeMs);
        }
        // Of each source the scrapers have the first few.
        const untilMs = new Map(
          ['host', 'redis', 'nginx'].map((name, at) => {
            const times = sources.made.filter(({ stream }) => stream.sourceName === name).map((made) => made.timeMs);
            return [name, times[had[at]! - 1] ?? (had[at] === 0 ? -Infinity : Infinity)];
          }),
        );
        const untilOf = (stream: StreamRecord) => untilMs.get(stream.sourceName)!;
        const first = sources.made.findIndex(({ stream, timeMs: ms }) => ms > untilOf(stream));
        const last = sources.made[(first < 0 ? sources.made.length : first) - 1];
        const { ack } = sources.agent.acknowledgeable(untilOf);
        assert.deepEqual(ack && plain(ack), last && plain(last));
      },
    ),
    { numRuns: 500 },
  );
});

test('what has left the windows is acknowledged, as far as nothing before it is still there', () => {
  const sources = new Sources();
  const { clock, store } = sources.world;
  const nowMs = clock.nowMs();
  sources.report('host', nowMs - 3_500_000);
  sources.report('redis', nowMs - 1000);
  sources.report('host', nowMs - 3_400_000);
  clock.step(150_000);
  store.evictByAge(sources.agent);
  assert.deepEqual(sources.world.evicted, ['age, unscraped']);
  const ack = () => sources.agent.acknowledgeable(() => -Infinity).ack;
  assert.deepEqual(plain(ack()!), { epoch: 1, seq: 1 });
  clock.step(100_000);
  store.evictByAge(sources.agent);
  assert.deepEqual(plain(ack() ?? { epoch: 0, seq: 0 }), { epoch: 0, seq: 0 }, '3 is gone, and 2 is not delivered');
  assert.deepEqual(plain(sources.agent.acknowledgeable(() => Infinity).ack!), { epoch: 1, seq: 3 });
});

test('an agent that begins ever other sources loses the oldest of them, counted', () => {
  const { store, agent, clock, evicted } = makeStore();
  const maker = new ReportMaker();
  for (let source = 1; source <= 100; source++) {
    const stream = store.begin(agent, beginOf({ source, name: `s${source}` })).stream;
    store.receive(stream, { ...maker.make(clock.nowMs(), [1], { key: true }), seq: source });
  }
  assert.equal(agent.streamCount, 65);
  assert.equal([...agent.streams][0], agent.host);
  assert.equal(evicted.length, 36);
  assert.deepEqual(new Set(evicted), new Set(['memory, unscraped']));
  assert.equal(agent.drops.all[0]?.count, 36);
});

test('a source that is forwarded no longer is forgotten after a day, the host stays', async () => {
  const { store, agent, clock } = makeStore();
  const redis = store.begin(agent, beginOf({ source: 1, name: 'redis' })).stream;
  agent.peer = 'connected';
  store.receive(redis, new ReportMaker().make(clock.nowMs(), [1]));
  await clock.advance(86_400_000);
  assert.deepEqual(store.tidy(), []);
  await clock.advance(1);
  assert.deepEqual(store.tidy(), ['a/redis']);
  assert.deepEqual([...agent.streams], [agent.host]);
});

test('other labels in a begin mean another schema object for what comes', () => {
  const agent = new AgentRecord(idOf('a'), 0, new SchemasInUse());
  agent.begin(beginOf());
  agent.host.schema = new ReportMaker().schema;
  agent.begin(beginOf());
  assert.notEqual(agent.host.schema, undefined);
  agent.begin(beginOf({ labels: [['rack', 'b']] }));
  assert.equal(agent.host.schema, undefined);
});

const plain = ({ epoch, seq }: EpochSeq): EpochSeq => ({ epoch, seq });
