import assert from 'node:assert/strict';
import { afterEach, test } from 'node:test';
import { EpochClock } from '../../../src/agent/collect/epoch-clock.ts';
import { newAgentCounters } from '../../../src/agent/own-metrics.ts';
import { Spool } from '../../../src/agent/spool/spool.ts';
import { Link, type LinkOptions } from '../../../src/agent/uplink/uplink.ts';
import type { ServerMessage } from '../../../src/protocol/messages.ts';
import { bootClock } from '../../../src/runtime/clock.ts';
import { ConnectionError } from '../../../src/runtime/connection.ts';
import { MemoryLog } from '../../support/memory-log.ts';
import { hostSource, type ReadReport, RecordingMaker, valuesOf } from '../../support/recordings.ts';
import { ScriptedServer } from '../../support/scripted-server.ts';
import { settle, VirtualClock } from '../../support/virtual-clock.ts';

const lost = new ConnectionError('reset', 'server:9732 reset the connection');

const running: Agent[] = [];
afterEach(async () => {
  for (const agent of running.splice(0)) await agent.stop();
});

const address = 'server:9732';

/** An agent that samples each 5 s, with everything virtual but itself. */
class Agent {
  readonly clock: VirtualClock;
  readonly server: ScriptedServer;
  readonly log = new MemoryLog();
  readonly counters = newAgentCounters();
  readonly spool: Spool;
  readonly link: Link;
  readonly maker = new RecordingMaker();
  /** As the agent made them, with the times that a server has to see. */
  readonly made: ReadReport[] = [];
  readonly times: EpochClock;
  readonly #stopping = new AbortController();
  #running: Promise<void> | undefined;
  suspendedMs = 0;

  constructor(
    options: { random?: () => number; server?: (server: ScriptedServer) => void; dial?: LinkOptions['dial'] } = {},
  ) {
    this.clock = new VirtualClock();
    this.server = new ScriptedServer(this.clock);
    options.server?.(this.server);
    const { clock, log, counters } = this;
    const boot = bootClock(clock, () => clock.monotonicMs() + this.suspendedMs);
    const random = options.random ?? (() => 0.5);
    this.spool = new Spool({
      ...{ clock, counters, source: hostSource, servers: [address] },
      bounds: { bytesMax: 64 * 1024 * 1024, ageMsMax: 24 * 3600 * 1000 },
    });
    const { spool } = this;
    let epoch = 1;
    this.times = new EpochClock({ clock, boot, spool, counters, log, random: () => epoch++ / 2 ** 53 });
    this.link = new Link({
      ...{ clock, boot, spool, counters, log, random, address, dial: options.dial ?? this.server.dial },
      onClockStep: () => this.times.renew(),
      receiver: spool.receiver(address),
      hello: { agentName: 'agent-1', hostId: 'host', software: 'sysmon-agent 1' },
    });
  }

  start(): this {
    running.push(this);
    this.#running = this.link.run(this.#stopping.signal);
    return this;
  }

  sample(): void {
    const timeMs = this.times.stamp();
    const recording = this.maker.make([this.made.length, this.made.length % 7, 5]);
    this.spool.append(recording, timeMs);
    this.link.appended();
    const { id, lastSeq } = this.spool.epoch!;
    this.made.push({ epoch: id, seq: lastSeq, timeMs, values: valuesOf(recording) });
  }

  /** Lives for so long, sampling. */
  async live(ms: number): Promise<void> {
    for (let passed = 0; passed < ms; passed += 5000) {
      this.sample();
      await this.clock.advance(5000);
    }
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await settle();
    for (let waited = 0; waited < 4500; waited += 100) await this.clock.advance(100);
    await this.#running;
    await this.spool.close(2000);
  }

  /** Everything that was made has come, once, in order, with its time. */
  assertDelivered(): void {
    const offsets = this.spool.receiver(address).offsetsMs;
    const expected = this.made.map((report) => ({
      ...report,
      timeMs: report.timeMs + (offsets.get(report.epoch) ?? 0),
    }));
    assert.deepEqual(this.server.receiver.received, expected);
  }

  warnings(): string[] {
    return this.log.lines.filter((line) => line.startsWith('warn'));
  }
}

test('reports go out as they are made, each after the delay of this agent, on one connection', async () => {
  const agent = new Agent().start();
  await agent.clock.advance(1000);
  assert.deepEqual(agent.server.hellos, [
    { kind: 'hello', version: 1, agentName: 'agent-1', hostId: 'host', software: 'sysmon-agent 1' },
  ]);
  agent.sample();
  await settle();
  assert.equal(agent.server.receiver.received.length, 0, 'not at once: a fleet would arrive together');
  await agent.clock.advance(1000);
  assert.equal(agent.server.receiver.received.length, 1, 'a second is the longest');
  await agent.live(600_000);
  agent.assertDelivered();
  assert.equal(agent.server.connections.length, 1);
  assert.equal(agent.server.receiver.begins.length, 1);
  assert.equal(agent.server.receiver.duplicates, 0);
  assert.equal(agent.counters.connects, 1);
  assert.equal(agent.link.state.kind, 'connected');
  assert.deepEqual(agent.warnings(), []);

  assert.equal(agent.counters.spoolReports, 121);
  agent.server.acknowledgeAll();
  await settle();
  assert.equal(agent.counters.spoolReports, 0);
  assert.ok(agent.counters.acksReceived > 0);
});

test('a backlog goes out at once when the server is there, oldest first', async () => {
  const agent = new Agent({ server: (server) => (server.isAway = true) }).start();
  await agent.live(600_000);
  assert.equal(agent.link.state.kind, 'waiting');
  agent.server.isAway = false;
  await agent.clock.advance(30_000);
  agent.assertDelivered();
  assert.equal(agent.server.connections.length, 1);
  assert.ok(agent.server.refusals > 20, `${agent.server.refusals} dials in 10 min`);
  assert.ok(agent.server.refusals < 60, `${agent.server.refusals} dials in 10 min`);
  assert.equal(agent.counters.connectFailures, agent.server.refusals);
  assert.equal(agent.warnings().length, 1, 'the next after 10 min');
  assert.match(agent.warnings()[0]!, /refused the connection; 1 report waiting, retrying in [\d.]+ s$/);
});

test('the connection cut after every byte of it: everything arrives once, and each cut costs one connection', async () => {
  const whole = new Agent().start();
  await whole.live(30_000);
  const bytes = whole.server.connection.readBytes;
  for (let cut = 0; cut < bytes; cut += 1) {
    const agent = new Agent({ server: (server) => (server.cutAfterBytes = cut) }).start();
    await agent.live(15_000);
    agent.server.cutAfterBytes = Number.POSITIVE_INFINITY;
    const { length } = agent.server.connections;
    agent.server.connection.break(lost);
    await agent.live(15_000);
    agent.assertDelivered();
    assert.equal(agent.server.connections.length, length + 1, `cut at ${cut}: one more`);
    await agent.stop();
    running.pop();
  }
});

test('after each kind of fault it dials again and nothing is lost', async (t) => {
  const error = (code: string): ServerMessage => ({ kind: 'error', code, text: 'because' });
  const faults: Record<string, (server: ScriptedServer) => void> = {
    reset: (server) => server.connection.break(lost),
    'closed in good order': (server) => server.connection.close(),
    'error frame': (server) => {
      server.connection.send(error('order'));
      server.connection.close();
    },
    'error frame of an unknown code': (server) => server.connection.send(error('of-a-later-version')),
    garbage: (server) => server.connection.sendBytes(Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n')),
    'a frame that is not allowed': (server) => server.connection.sendBytes(Buffer.from([0, 0, 0, 1, 0xc1])),
    'a frame that is too long': (server) => server.connection.sendBytes(Buffer.from([0, 1, 0, 0])),
    'ended inside a frame': (server) => {
      server.connection.sendBytes(Buffer.from([0, 0]));
      server.connection.close();
    },
    'a second welcome': (server) =>
      server.connection.send({ kind: 'welcome', version: 1, epochs: [], nowMs: Date.UTC(2026, 0, 1) }),
    'server restarted, everything lost': (server) => {
      server.receiver.received.length = 0;
      server.restart();
    },
    'server restarted, as of what was scraped': (server) => {
      const { epoch, seq } = server.receiver.received[5]!;
      server.receiver.received.length = 6;
      server.restart([{ epoch, seq }]);
    },
  };
  for (const [name, harm] of Object.entries(faults)) {
    await t.test(name, async () => {
      const agent = new Agent().start();
      await agent.live(60_000);
      harm(agent.server);
      await agent.live(60_000);
      agent.assertDelivered();
      assert.equal(agent.server.connections.length, 2);
      assert.ok(agent.server.connections[0]!.isClosed);
      assert.equal(agent.counters.reconnects, 1);
      assert.equal(agent.warnings().length, 1, agent.log.lines.join('\n'));
      assert.match(agent.warnings()[0]!, /^warn: lost 'server:9732': .*; \d+ reports waiting, retrying in [\d.]+ s$/);
      assert.match(agent.log.lines.at(-1)!, /^info: connected to 'server:9732'; \d+ reports? to send$/);
    });
  }
});

test('a half-open connection ends within 30 s, whether writes go through or not', async (t) => {
  for (const isStalled of [false, true]) {
    await t.test(isStalled ? 'writes hang' : 'writes go nowhere', async () => {
      const agent = new Agent().start();
      await agent.live(60_000);
      agent.server.isMute = true;
      agent.server.connection.isStalled = isStalled;
      const since = agent.clock.monotonicMs();
      while (!agent.server.connections[0]!.isClosed) await agent.live(1000);
      assert.ok(agent.clock.monotonicMs() - since <= 30_000);
      agent.server.isMute = false;
      await agent.live(60_000);
      agent.assertDelivered();
      assert.match(agent.warnings()[0]!, /silent for \d\d\.\d s/);
    });
  }
});

test('a server that never answers the hello is left after 10 s', async () => {
  const agent = new Agent({ server: (server) => (server.isMute = true) }).start();
  await agent.live(60_000);
  assert.ok(agent.server.connections.length >= 3 && agent.server.connections.length <= 6);
  assert.match(agent.warnings()[0]!, /cannot connect to 'server:9732': server:9732 did not answer the hello/);
  assert.equal(agent.counters.connects, 0);
  agent.server.isMute = false;
  await agent.live(60_000);
  agent.assertDelivered();
});

test('it pings when nothing was heard or sent for 10 s, and a server that answers is kept', async () => {
  const agent = new Agent().start();
  await agent.clock.advance(3_600_000);
  assert.equal(agent.server.connections.length, 1);
  assert.ok(agent.server.pings >= 350 && agent.server.pings <= 361, `${agent.server.pings} in an hour`);
  await agent.live(600_000);
  assert.equal(agent.server.connections.length, 1, 'it sends, and hears nothing but pongs');
  assert.ok(agent.server.pings >= 400, `${agent.server.pings}`);
});

test('at 5 s it is woken for a report alone: pings go with every other one, and no timer fires for them', async () => {
  for (const isAcknowledging of [false, true]) {
    const agent = new Agent().start();
    await agent.live(60_000);
    const { firedCount } = agent.clock;
    const { pings } = agent.server;
    for (let minute = 0; minute < 10; minute++) {
      await agent.live(60_000);
      if (isAcknowledging) agent.server.acknowledgeAll();
    }
    assert.equal(agent.server.connections.length, 1);
    if (!isAcknowledging) assert.equal(agent.server.pings - pings, 60, 'a ping each 10 s');
    // The spool keeps house meanwhile, with a report too.
    assert.equal(agent.clock.firedCount - firedCount, 120, 'each report waits for its time, and nothing else');
    agent.assertDelivered();
  }
});

test('one ping is asked of a server that says nothing, though reports go on', async () => {
  const agent = new Agent().start();
  await agent.live(60_000);
  const { pings } = agent.server;
  agent.server.isSilent = true;
  while (!agent.server.connections[0]!.isClosed) await agent.live(5000);
  assert.equal(agent.server.pings - pings, 1);
});

test('permanent refusals: said with the reason and tried again once a minute; others with backoff', async (t) => {
  for (const code of ['version', 'name-taken', 'revoked', 'busy']) {
    await t.test(code, async () => {
      const refuse = (server: ScriptedServer) => {
        server.answerToHello = (connection) => {
          connection.send({ kind: 'error', code, text: 'the reason' });
          connection.close();
        };
      };
      const agent = new Agent({ server: refuse }).start();
      await agent.live(600_000);
      const { length } = agent.server.connections;
      if (code === 'busy') assert.ok(length > 20, `${length}`);
      else assert.equal(length, 11, 'at the start and after each of ten minutes');
      assert.ok(agent.warnings().length <= 2, 'one at first, one after 10 min');
      assert.match(
        agent.warnings()[0]!,
        new RegExp(`cannot connect .*refused this agent \\(${code}\\): the reason; .*retrying in`),
      );
      const { state } = agent.link;
      assert.ok(state.kind === 'waiting' && state.isRefused === (code !== 'busy'));
      agent.server.answerToHello = undefined;
      agent.link.retryNow();
      await settle();
      assert.equal(agent.link.state.kind, 'connected', 'told that something has changed it tries at once');
      await agent.live(5000);
      agent.assertDelivered();
    });
  }
});

test('a server that refuses and breaks the connection off is believed its reason, also by a write that waits', async () => {
  const agent = new Agent().start();
  await agent.live(10_000);
  const { connection } = agent.server;
  connection.isStalled = true;
  await agent.live(5000);
  connection.send({ kind: 'error', code: 'revoked', text: 'the key is revoked' });
  connection.break(lost);
  await settle();
  const { state } = agent.link;
  assert.ok(state.kind === 'waiting' && state.isRefused, agent.log.lines.join());
});

test('a server that welcomes and then ends each connection is not dialled at full speed', async () => {
  const agent = new Agent({
    server: (server) => {
      server.answerToHello = (connection) => {
        connection.send({ kind: 'welcome', version: 1, epochs: [], nowMs: Date.UTC(2026, 0, 1) });
        connection.close();
      };
    },
  }).start();
  await agent.clock.advance(600_000);
  assert.ok(agent.server.connections.length < 60, `${agent.server.connections.length}`);
  assert.ok(agent.log.lines.length < 30, 'nor does it fill the log');
});

test('a server that closes the connection at a hello without a key may want one', async () => {
  const agent = new Agent({ server: (server) => (server.answerToHello = (connection) => connection.close()) }).start();
  await agent.clock.advance(1000);
  assert.match(
    agent.warnings()[0]!,
    /closed the connection \(does the server want a key\? 'sysmon-server enroll NAME' makes one\); \d+ reports? waiting/,
  );
});

test('failures count from 0 again once a report was sent', async () => {
  const agent = new Agent({ random: () => 1, server: (server) => (server.isAway = true) }).start();
  await agent.live(120_000);
  agent.server.isAway = false;
  await agent.live(60_000);
  agent.server.connection.break(lost);
  await settle();
  const { state } = agent.link;
  assert.ok(state.kind === 'waiting');
  assert.equal(state.retryAtMs - agent.clock.nowMs(), 500);
});

test('a bug of the server after an outage: the first retries are quick, and rarer with each bug in a row', async () => {
  const agent = new Agent({ random: () => 1, server: (server) => (server.isAway = true) }).start();
  await agent.live(120_000);
  agent.server.isAway = false;
  await agent.live(60_000);
  const waits: number[] = [];
  for (let bug = 0; bug < 4; bug++) {
    agent.server.connection.send({ kind: 'error', code: 'internal', text: 'a bug' });
    await settle();
    const { state } = agent.link;
    assert.ok(state.kind === 'waiting');
    waits.push(state.retryAtMs - agent.clock.nowMs());
    await agent.live(10_000);
  }
  assert.deepEqual(waits, [500, 1000, 2000, 4000]);
});

test('SIGTERM: what is unsent is sent within 4 s and read by the server, then it ends', async () => {
  const agent = new Agent({ server: (server) => (server.latencyMs = 300) }).start();
  await agent.live(60_000);
  agent.sample();
  await agent.stop();
  running.pop();
  agent.assertDelivered();
  assert.equal(agent.link.state.kind, 'stopped');
  assert.equal(agent.server.connections.length, 1);
  assert.equal(agent.clock.timers, 0, 'no timer is left');
});

test('SIGTERM when the server does not answer, is away, or has never been there: it ends all the same', async (t) => {
  const cases: Record<string, (server: ScriptedServer) => void> = {
    'answers nothing': (server) => {
      server.isMute = true;
    },
    'is away': (server) => {
      server.isAway = true;
      for (const connection of server.connections) connection.break(lost);
    },
  };
  for (const [name, harm] of Object.entries(cases)) {
    await t.test(name, async () => {
      const agent = new Agent().start();
      await agent.live(10_000);
      harm(agent.server);
      await agent.live(5000);
      await agent.stop();
      running.pop();
      assert.equal(agent.link.state.kind, 'stopped');
      assert.equal(agent.clock.timers, 0);
      assert.ok(agent.counters.spoolReports > 0, 'the rest is in the spool');
    });
  }
});

test('a bug ends the program, also one that shows while it is stopping', async () => {
  for (const isStopping of [false, true]) {
    const bug = new TypeError('undefined is not a function');
    const stopping = new AbortController();
    let fail = (): void => {};
    const { clock, spool, link } = new Agent({
      dial: () => new Promise<never>((_, reject) => (fail = () => reject(bug))),
    });
    const run = link.run(stopping.signal);
    if (isStopping) stopping.abort();
    fail();
    await assert.rejects(run, bug);
    spool.close(2000);
    assert.equal(clock.timers, 0, 'no timer is left');
  }
});

test('clocks: an offset of up to 2 s is 0; a larger one is fixed once an epoch, to the middle of the round trip', async (t) => {
  for (const aheadMs of [0, 1900, -1900, 2500, -2500, 86_400_000, -86_400_000]) {
    await t.test(`${aheadMs} ms ahead`, async () => {
      const agent = new Agent({
        server: (server) => {
          server.aheadMs = aheadMs;
          server.latencyMs = 400;
        },
      }).start();
      await agent.live(30_000);
      const fixed = Math.abs(aheadMs) <= 2000 ? 0 : aheadMs;
      assert.deepEqual(agent.server.receiver.begins, [{ epoch: 1, offsetMs: fixed }]);
      assert.equal(agent.counters.clockOffsetMs, fixed);
      assert.equal(agent.warnings().length, fixed === 0 ? 0 : 1);
      agent.server.connection.break(lost);
      await agent.live(30_000);
      assert.equal(agent.server.receiver.begins.at(-1)?.offsetMs, fixed);
      assert.equal(agent.counters.serverClockSteps, 0);
      await agent.clock.advance(1000);
      agent.assertDelivered();
    });
  }
});

test('clocks: a slow round trip is measured again by pings, three at most; then the quickest of them counts', async () => {
  const slow = (server: ScriptedServer) => {
    server.aheadMs = 60_000;
    server.latencyMs = 600;
  };
  const agent = new Agent({ server: slow }).start();
  await agent.live(10_000);
  assert.deepEqual(agent.server.receiver.begins, [{ epoch: 1, offsetMs: 60_000 }]);
  assert.equal(agent.server.pings, 3);

  const quicker = new Agent({ server: slow }).start();
  quicker.sample();
  await quicker.clock.advance(1150); // the welcome takes 1.2 s
  assert.equal(quicker.server.receiver.begins.length, 0);
  quicker.server.connection.latencyMs = 100;
  await quicker.clock.advance(5000);
  assert.deepEqual(quicker.server.receiver.begins, [{ epoch: 1, offsetMs: 60_000 }]);
  assert.equal(quicker.server.pings, 1);

  // Within the error of such a round trip nothing is known.
  const near = new Agent({
    server: (server) => {
      server.aheadMs = 2400;
      server.latencyMs = 600;
    },
  }).start();
  await near.live(10_000);
  assert.deepEqual(near.server.receiver.begins, [{ epoch: 1, offsetMs: 0 }]);
});

test("clocks: the server's is set while reports go out: a second ping at once, then a new epoch by the new time", async (t) => {
  for (const stepMs of [-7_200_000, -12_000, 2600, 3_600_000]) {
    await t.test(`by ${stepMs} ms`, async () => {
      const agent = new Agent({ server: (server) => (server.latencyMs = 50) }).start();
      await agent.live(60_000);
      const { pings } = agent.server;
      agent.server.aheadMs = stepMs;
      await agent.live(20_000);
      assert.equal(agent.counters.serverClockSteps, 1);
      assert.equal(agent.counters.clockSteps, 0, 'not ours');
      assert.equal(agent.counters.clockOffsetMs, stepMs);
      assert.ok(agent.server.pings - pings <= 5, `${agent.server.pings - pings} pings`);
      assert.equal(agent.server.connections.length, 2, 'what is not acknowledged is sent on a new connection');
      await agent.live(30_000);
      assert.deepEqual(agent.server.receiver.begins.at(-1), { epoch: 2, offsetMs: stepMs });
      assert.equal(agent.counters.serverClockSteps, 1);
      assert.equal(agent.warnings().length, 2, agent.log.lines.join('\n'));
      assert.equal(
        agent.warnings()[1]!,
        `warn: the clock of this host is ${(Math.abs(stepMs) / 1000).toFixed(1)} s ${stepMs > 0 ? 'behind' : 'ahead of'} the server's; ` +
          'times are corrected. Is NTP on, here and there? (timedatectl)',
      );
      const way = stepMs > 0 ? 'forwards' : 'back';
      assert.match(
        agent.warnings()[0]!,
        new RegExp(`^warn: the clock of 'server:9732' was set ${way} by [\\d.]+ s; what `),
      );
      const newest = agent.server.receiver.received.at(-1)!;
      const { clock } = agent;
      assert.ok(Math.abs(newest.timeMs - (clock.nowMs() + stepMs)) <= 6000, 'its times are those of the server');
    });
  }
});

test('clocks: a server that comes back with another clock: reports are held until a ping has confirmed it', async () => {
  const agent = new Agent({ server: (server) => (server.latencyMs = 100) }).start();
  await agent.live(60_000);
  const { length } = agent.server.receiver.received;
  // It has everything up to the fifth report from before.
  const { epoch, seq } = agent.server.receiver.received[4]!;
  agent.server.aheadMs = -7_200_000;
  agent.server.restart([{ epoch, seq }]);
  const { pings } = agent.server;
  await agent.live(20_000);
  assert.equal(agent.server.connections.length, 2);
  assert.ok(agent.server.pings > pings);
  assert.deepEqual(agent.server.receiver.begins.slice(1), [
    { epoch: 1, offsetMs: -7_200_000 },
    { epoch: 2, offsetMs: -7_200_000 },
  ]);
  const again = agent.server.receiver.received.slice(length);
  assert.equal(again[0]!.seq, 6, 'what it lacks is sent, and with right times');
  assert.equal(again[0]!.timeMs, agent.made[5]!.timeMs - 7_200_000);
});

test('clocks: one contradiction that is not repeated changes nothing', async () => {
  const agent = new Agent().start();
  await agent.live(60_000);
  agent.server.aheadMs = 60_000;
  agent.server.onPing = () => {
    agent.server.aheadMs = 0;
  };
  await agent.live(60_000);
  assert.equal(agent.counters.serverClockSteps, 0);
  assert.equal(agent.server.connections.length, 1);
  agent.assertDelivered();
});

test('a report on which the server fails is sent three times, then dropped, counted, logged; the rest arrives', async () => {
  const poison = 5;
  let tries = 0;
  const agent = new Agent({
    server: (server) => {
      server.receiver.onReport = ({ seq }) => {
        if (seq !== poison) return;
        tries++;
        throw new TypeError('undefined is not a function');
      };
    },
  }).start();
  await agent.live(120_000);
  assert.equal(tries, 3);
  const expected = agent.made.filter(({ seq }) => seq !== poison);
  assert.deepEqual(agent.server.receiver.received, expected, 'what builds on it has right values all the same');
  assert.equal(agent.server.connections.length, 4);
  assert.equal(agent.counters.reportsRefused.server_bug, 1);
  assert.deepEqual(
    agent.link.refusals.map(({ reason, count }) => [reason, count]),
    [['server_bug', 1]],
  );
  const lines = agent.warnings().filter((line) => /did not store/.test(line));
  assert.equal(lines.length, 1);
  assert.match(
    lines[0]!,
    /^warn: 'server:9732' did not store 1 report of 2026-01-01T00:00:2\d.\d{3}Z: it failed on the/,
  );
  agent.server.acknowledgeAll();
  await settle();
  assert.equal(agent.counters.spoolReports, 0, 'it holds nothing up');
});

test('a server that fails on every report is not dialled at full speed', async () => {
  const agent = new Agent({
    server: (server) => {
      server.receiver.onReport = () => {
        throw new TypeError('undefined is not a function');
      };
    },
  }).start();
  await agent.live(600_000);
  assert.ok(agent.server.connections.length < 60, `${agent.server.connections.length} connections in 10 min`);
  assert.ok(agent.log.lines.length < 40, `${agent.log.lines.length} lines`);
});

test('what the server says that it refused is counted, shown and logged once a minute', async () => {
  const agent = new Agent().start();
  await agent.live(10_000);
  const refused: ServerMessage = {
    ...{ kind: 'refused', reason: 'too_old', count: 369, text: 'older than the window of 30m' },
    ...{ firstMs: Date.UTC(2026, 0, 1), lastMs: Date.UTC(2026, 0, 1, 0, 30) },
  };
  for (let second = 0; second < 30; second++) {
    agent.server.connection.send(refused);
    await agent.clock.advance(1000);
  }
  assert.equal(agent.counters.reportsRefused.too_old, 30 * 369);
  assert.deepEqual(agent.warnings(), [
    "warn: 'server:9732' did not store 369 reports of 2026-01-01T00:00:00.000Z to 2026-01-01T00:30:00.000Z: " +
      'older than the window of 30m',
  ]);
  assert.equal(agent.spool.droppedCount, 0, 'the server knows of these');
});

test("clocks: the error 'clock' counts as the first contradiction, and alone as nothing", async () => {
  for (const aheadMs of [0, 300_000]) {
    const agent = new Agent({ server: (server) => (server.latencyMs = 50) }).start();
    await agent.live(60_000);
    agent.server.aheadMs = aheadMs;
    const { pings } = agent.server;
    agent.server.connection.send({ kind: 'error', code: 'clock', text: 'the clock of the server was set' });
    agent.server.connection.close();
    await agent.clock.advance(1500);
    assert.equal(agent.server.connections.length, 2);
    assert.equal(agent.server.pings, pings, 'the welcome decides');
    assert.equal(agent.counters.serverClockSteps, aheadMs === 0 ? 0 : 1);
    await agent.live(30_000);
    assert.equal(agent.counters.clockOffsetMs, aheadMs);
    assert.equal(agent.warnings().length, aheadMs === 0 ? 0 : 2, agent.log.lines.join('\n'));
  }
});

test('an epoch of an earlier run without an offset gets that of this host as it is now', async () => {
  const agent = new Agent({ server: (server) => (server.aheadMs = 60_000) });
  // As it is found on disk: what it was measured by is gone.
  agent.sample();
  Object.assign(agent.spool.epoch!, { baseMs: undefined });
  await agent.clock.advance(5000);
  agent.times.renew();
  agent.start();
  await agent.live(10_000);
  assert.deepEqual(agent.server.receiver.begins, [
    { epoch: 1, offsetMs: 60_000 },
    { epoch: 2, offsetMs: 60_000 },
  ]);
  agent.assertDelivered();
});

test('a step of the wall clock begins a new epoch, measured by a ping; times stay right', async () => {
  const agent = new Agent().start();
  await agent.live(30_000);
  agent.clock.step(1900);
  await agent.live(10_000);
  assert.equal(agent.counters.clockSteps, 0, 'within 2 s the epoch goes on with its own clock');
  agent.clock.step(-1900);

  const pings = agent.server.pings;
  agent.clock.step(-3_600_000);
  agent.server.aheadMs = 3_600_000;
  await agent.live(30_000);
  assert.equal(agent.counters.clockSteps, 1);
  assert.ok(agent.server.pings > pings);
  assert.deepEqual(agent.server.receiver.begins, [
    { epoch: 1, offsetMs: 0 },
    { epoch: 2, offsetMs: 3_600_000 },
  ]);
  assert.equal(agent.server.connections.length, 1);
  const times = agent.server.receiver.received.map(({ timeMs }) => timeMs);
  for (const [index, timeMs] of times.entries()) if (index > 0) assert.equal(timeMs - times[index - 1]!, 5000);
  agent.assertDelivered();
});

test('a step across what is ignored of an offset does not set the times back', async () => {
  const agent = new Agent({ server: (server) => (server.aheadMs = -1100) }).start();
  await agent.live(30_000);
  // From 1.1 s ahead of the server to 1.9 s behind it: each by itself is no offset, together they are 3 s.
  agent.clock.step(-3000);
  agent.server.aheadMs += 3000;
  await agent.live(30_000);
  assert.deepEqual(agent.server.receiver.begins, [
    { epoch: 1, offsetMs: 0 },
    { epoch: 2, offsetMs: 3000 },
  ]);
  const times = agent.server.receiver.received.map(({ timeMs }) => timeMs);
  for (const [index, timeMs] of times.entries()) if (index > 0) assert.equal(timeMs - times[index - 1]!, 5000);
  agent.assertDelivered();
});

test('a step while answers are slow: what was measured before is carried on', async () => {
  const agent = new Agent({ server: (server) => (server.aheadMs = 60_000) }).start();
  await agent.live(30_000);
  agent.server.connection.latencyMs = 600;
  agent.clock.step(-3_600_000);
  agent.server.aheadMs += 3_600_000;
  await agent.live(30_000);
  assert.deepEqual(agent.server.receiver.begins, [
    { epoch: 1, offsetMs: 60_000 },
    { epoch: 2, offsetMs: 3_660_000 },
  ]);
});

test("after a step the server's clock is asked again, for it may have moved too", async () => {
  const agent = new Agent().start();
  await agent.live(30_000);
  agent.clock.step(-3_600_000);
  agent.server.aheadMs = 3_600_000 + 9000;
  await agent.live(10_000);
  assert.equal(agent.server.receiver.begins.at(-1)?.offsetMs, 3_609_000);
});

test('steps and suspends while the server is away: each epoch gets the offset of its own clock', async () => {
  const agent = new Agent({ server: (server) => (server.isAway = true) }).start();
  // The host has started in 1970 and learns the time later; the server has always been right.
  const { clock, server } = agent;
  const yearsMs = 50 * 365 * 86_400_000;
  clock.step(-yearsMs);
  server.aheadMs = yearsMs;
  await agent.live(60_000);
  clock.step(yearsMs);
  server.aheadMs = 0;
  await agent.live(60_000);
  // Asleep for an hour: the monotonic clock stands still, wall and boot time go on.
  clock.step(3_600_000);
  agent.suspendedMs = 3_600_000;
  await agent.live(60_000);
  server.isAway = false;
  await agent.live(60_000);
  assert.deepEqual(server.receiver.begins, [
    { epoch: 1, offsetMs: yearsMs },
    { epoch: 2, offsetMs: 0 },
    { epoch: 3, offsetMs: 0 },
  ]);
  agent.assertDelivered();
});

test('a slow line: no more than some 400 KB are under way, and silence does not end it', async () => {
  const agent = new Agent({ server: (server) => (server.isAway = true) });
  agent.maker.grow(5000);
  for (let index = 0; index < 60; index++) {
    agent.maker.beginAnew(5000);
    agent.sample();
    await agent.clock.advance(5000);
  }
  agent.server.isAway = false;
  agent.server.latencyMs = 4000;
  agent.start();
  let most = 0;
  for (let seconds = 0; seconds < 400 && agent.server.receiver.received.length < 60; seconds++) {
    await agent.clock.advance(1000);
    most = Math.max(most, agent.counters.bytesSent - (agent.server.connections[0]?.readBytes ?? 0));
  }
  agent.assertDelivered();
  assert.equal(agent.server.connections.length, 1);
  assert.ok(agent.counters.bytesSent > 1_000_000);
  assert.ok(most > 0 && most <= 3 * 131_072 + 65_536, `${most}`);
});
