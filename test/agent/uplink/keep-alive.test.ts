import assert from 'node:assert/strict';
import { test } from 'node:test';
import { KeepAlive } from '../../../src/agent/uplink/keep-alive.ts';
import { VirtualClock } from '../../support/virtual-clock.ts';

/** A keep-alive whose pings go out at once, and when they went and silence was found. */
class Line {
  readonly clock = new VirtualClock();
  readonly pings: number[] = [];
  readonly silences: [atMs: number, silentMs: number][] = [];
  readonly keepAlive: KeepAlive = new KeepAlive({
    clock: this.clock,
    ping: () => this.ping(),
    onSilence: (silentMs) => {
      this.silences.push([this.clock.monotonicMs(), silentMs]);
      this.keepAlive.stop();
    },
  });
  /** The peer answers each ping after so long; never where it is undefined. */
  answerMs: number | undefined;

  constructor(answerMs?: number) {
    this.answerMs = answerMs;
    this.keepAlive.start();
  }

  ping(): void {
    this.pings.push(this.clock.monotonicMs());
    this.keepAlive.sent('ping');
    if (this.answerMs !== undefined) this.clock.after(this.answerMs, () => this.keepAlive.heard());
  }

  report(): void {
    const { takesPing } = this.keepAlive;
    this.keepAlive.sent('report');
    if (takesPing) this.ping();
  }
}

test('a ping when nothing was said or heard for 10 s, again 10 s after the answer', async () => {
  const line = new Line(200);
  await line.clock.advance(31_000);
  // Both have to be recent: what was sent last is the ping, what was heard last its answer.
  assert.deepEqual(line.pings, [10_000, 20_000, 30_000]);
  assert.deepEqual(line.silences, []);
});

test('a peer that speaks and is never spoken to is pinged, and so is one that is spoken to and silent', async () => {
  const hears = new Line(0);
  for (let s = 0; s < 20; s++) {
    await hears.clock.advance(1000);
    hears.keepAlive.heard();
  }
  assert.deepEqual(hears.pings, [10_000, 20_000]);
  const speaks = new Line();
  for (let s = 0; s < 25; s++) {
    await speaks.clock.advance(1000);
    speaks.keepAlive.sent('other');
  }
  assert.deepEqual(speaks.pings, [10_000]);
  assert.deepEqual(speaks.silences, [[20_000, 20_000]]);
});

test('a ping that nothing follows for 10 s: silent, whatever else was sent, since the last that was heard', async () => {
  const line = new Line();
  await line.clock.advance(3000);
  line.keepAlive.heard();
  await line.clock.advance(10_000);
  line.ping();
  assert.deepEqual(line.pings, [10_000, 13_000], 'another ping does not put the end off');
  await line.clock.advance(10_000);
  assert.deepEqual(line.silences, [[20_000, 17_000]]);
});

test('anything that is heard is an answer', async () => {
  const line = new Line();
  await line.clock.advance(19_999);
  line.keepAlive.heard();
  await line.clock.advance(1000);
  assert.deepEqual(line.silences, []);
});

test('where reports go out every few seconds, a ping goes with one of them and no timer fires', async () => {
  for (const intervalMs of [1000, 5000, 10_000]) {
    for (const answerMs of [0, 0.1, 150]) {
      const line = new Line(answerMs);
      // The first interval is not known before it is over.
      for (let report = 0; report < 2; report++) {
        line.report();
        await line.clock.advance(intervalMs);
      }
      line.report();
      await line.clock.advance(answerMs);
      const answersBefore = line.pings.length;
      const { firedCount: start, setCount } = line.clock;
      const reports = 600_000 / intervalMs;
      // A timer is late by a few ms now and then.
      for (let report = 0; report < reports; report++) {
        await line.clock.advance(intervalMs + (report % 2 === 0 ? 3 : -3));
        line.report();
      }
      await line.clock.advance(1000);
      const answers = line.pings.length - answersBefore;
      assert.ok(answers >= 55 && answers <= 80, `${answers} pings in 10 min at ${intervalMs} ms`);
      assert.equal(line.clock.firedCount - start, answers, 'the answers, and nothing of the keep-alive');
      const set = line.clock.setCount - setCount - answers;
      assert.ok(set <= Math.max(reports / 2, answers) + 2, `${set} timers for ${reports} reports`);
      assert.deepEqual(line.silences, []);
    }
  }
});

test('where reports end, a ping follows, and then silence', async () => {
  for (const intervalMs of [1000, 5000, 10_000]) {
    const line = new Line();
    for (let report = 0; report < 10; report++) {
      line.keepAlive.sent('report');
      line.keepAlive.heard();
      await line.clock.advance(intervalMs);
    }
    const lastMs = line.clock.monotonicMs() - intervalMs;
    await line.clock.advance(60_000);
    const [pingMs] = line.pings;
    assert.ok(pingMs! >= lastMs + 10_000 && pingMs! <= lastMs + 16_250, `${pingMs! - lastMs} ms at ${intervalMs} ms`);
    assert.deepEqual(line.silences, [[pingMs! + 10_000, pingMs! + 10_000 - lastMs]]);
  }
});

test('where reports are rare, pings keep their own time', async () => {
  const line = new Line(0);
  for (let minute = 0; minute < 10; minute++) {
    line.report();
    await line.clock.advance(60_000);
  }
  assert.ok(line.pings.length >= 50, `${line.pings.length} in 10 min`);
});

test('a stop leaves no timer, and nothing sets one afterwards', async () => {
  const line = new Line();
  assert.equal(line.clock.timers, 1);
  line.keepAlive.stop();
  line.keepAlive.heard();
  line.keepAlive.sent('report');
  assert.equal(line.clock.timers, 0);
});
