import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  type Answer,
  type AnswerEvent,
  type AnswerState,
  after,
  answerEvents,
  Cursor,
  type Effect,
  type Loss,
  never,
  Pace,
  samplesMaxDefault,
  transitions,
} from '../../../src/server/delivery/cursor.ts';
import { agentA, agentB, connect, hostOf } from './cursors-harness.ts';

const a = hostOf(agentA);
const b = hostOf(agentB);

const beingSent: AnswerState = { kind: 'being sent' };
const unconfirmed: AnswerState = { kind: 'unconfirmed' };
const confirmed: AnswerState = { kind: 'confirmed' };
const lost = (how: Loss): AnswerState => ({ kind: 'lost', how });

type Rows = readonly [AnswerState, AnswerEvent, AnswerState, ...Effect[]][];

/** The rules, once more and by hand. What is not here changes nothing. */
const byConnection: Rows = [
  [beingSent, 'sent', unconfirmed, 'know'],
  [beingSent, 'aborted', lost('aborted'), 'count', 'halve'],
  [beingSent, 'clock stepped', lost('clock'), 'count'],
  [unconfirmed, 'asked again', confirmed, 'advance', 'widen'],
  [unconfirmed, 'half-closed', confirmed, 'advance', 'widen'],
  [unconfirmed, 'closed at rest', confirmed, 'advance', 'widen'],
  [unconfirmed, 'closed too early', lost('cut'), 'count'],
  [unconfirmed, 'ended at rest', lost('at rest'), 'count'],
  [unconfirmed, 'timed out', lost('timed out'), 'count', 'halve'],
  [unconfirmed, 'closed at once', lost('at once'), 'count', 'halve'],
  [unconfirmed, 'reset at once', lost('cut'), 'count', 'halve'],
  [unconfirmed, 'restarted', lost('restart'), 'count'],
  [unconfirmed, 'clock stepped', lost('clock'), 'count'],
];

/** Where a receipt is asked for, nothing else confirms. */
const byReceipt: Rows = [
  [beingSent, 'sent', unconfirmed, 'know'],
  [beingSent, 'aborted', lost('aborted'), 'count', 'halve'],
  [beingSent, 'clock stepped', lost('clock'), 'count'],
  [unconfirmed, 'closed too early', lost('cut'), 'count'],
  [unconfirmed, 'reset at once', lost('cut'), 'count', 'halve'],
  [unconfirmed, 'restarted', lost('restart'), 'count'],
  [unconfirmed, 'clock stepped', lost('clock'), 'count'],
  [unconfirmed, 'stored', confirmed, 'advance', 'widen'],
  [unconfirmed, 'refused', lost('refused'), 'count'],
  [lost('cut'), 'stored', confirmed, 'advance', 'widen'],
  [lost('cut'), 'refused', lost('refused')],
  [lost('cut'), 'clock stepped', lost('clock')],
  [confirmed, 'clock stepped', lost('clock'), 'count'],
];

for (const [by, rows] of [
  ['connection', byConnection],
  ['receipt', byReceipt],
] as const) {
  for (const [state, event, expected, ...effects] of rows) {
    test(`by ${by}: an answer that is ${state.kind}, and then ${event}`, () => {
      assert.deepEqual(after(state, event, by), { state: expected, effects });
    });
  }

  test(`by ${by}: nothing else changes an answer`, () => {
    const known = new Set(rows.map(([{ kind }, event]) => `${kind} ${event}`));
    let rest = 0;
    for (const state of [beingSent, unconfirmed, confirmed, lost('at once')]) {
      for (const event of answerEvents) {
        if (known.has(`${state.kind} ${event}`)) continue;
        assert.deepEqual(after(state, event, by), { state, effects: [] }, `${state.kind} ${event}`);
        rest++;
      }
    }
    assert.equal(rest + rows.length, 4 * answerEvents.length);
    assert.equal(Object.values(transitions[by]).flatMap((events) => Object.keys(events)).length, rows.length);
  });
}

const asked = { nowMs: 0, timeoutMs: 10_000 };

/** A cursor, and answers of it that end as it is said. */
class CursorHarness {
  readonly cursor = new Cursor('', '192.0.2.1', 0);
  nowMs = 0;
  #requests = 0;

  /** A whole answer up to `untilMs`, and what happens to it. */
  answer(untilMs: number, ...events: AnswerEvent[]): Answer {
    const answer = this.cursor.begin(connect(), this.#requests++, asked);
    this.nowMs += 1000;
    for (const event of ['sent' as const, ...events]) {
      if (event === 'sent') answer.until = new Map([[a, untilMs]]);
      this.cursor.apply(answer, event, this.nowMs);
    }
    return answer;
  }

  moveOn(): number | undefined {
    this.nowMs += 1000;
    return this.cursor.moveOn(this.nowMs)[0]?.untilMs;
  }
}

test('what was given twice and had time to be read is not given a third time', () => {
  const world = new CursorHarness();
  world.answer(1, 'ended at rest');
  assert.equal(world.moveOn(), undefined);
  assert.equal(world.cursor.sentMs(a), 1);
  world.answer(2, 'ended at rest');
  assert.equal(world.moveOn(), 1);
  assert.equal(world.cursor.positionMs(a), 1);
  assert.equal(world.cursor.sentMs(a), 2);
  world.answer(3, 'ended at rest');
  assert.equal(world.moveOn(), 2, 'new data always flow');
});

test('what was given and probably not read is given four times', () => {
  for (const event of ['closed at once', 'timed out', 'restarted'] as const) {
    const world = new CursorHarness();
    for (const ms of [1, 2, 3]) {
      world.answer(ms, event);
      assert.equal(world.moveOn(), undefined, event);
    }
    world.answer(4, event);
    assert.equal(world.moveOn(), 1, event);
  }
});

test('what was cut off is given many times', () => {
  for (const event of ['reset at once', 'closed too early'] as const) {
    const world = new CursorHarness();
    for (let ms = 1; ms < 16; ms++) {
      world.answer(ms, event);
      assert.equal(world.moveOn(), undefined, `${event} ${ms}`);
    }
    world.answer(16, event);
    assert.equal(world.moveOn(), 1, event);
  }
});

test('what was not sent whole, or with times of another clock, was not given', () => {
  const world = new CursorHarness();
  for (let answer = 0; answer < 8; answer++) world.answer(1, 'clock stepped');
  for (let answer = 0; answer < 8; answer++) {
    world.cursor.apply(world.cursor.begin(connect(), answer, asked), 'aborted', world.nowMs);
  }
  world.cursor.begin(connect(), 1, asked);
  assert.equal(world.moveOn(), undefined);
});

test('answers within one second of each other count once: they were for those who had given up meanwhile', () => {
  const world = new CursorHarness();
  for (let answer = 0; answer < 6; answer++) {
    world.answer(1, 'closed at once');
    world.nowMs -= 1000;
  }
  assert.equal(world.moveOn(), undefined);
});

test('an answer that nothing has happened to counts as given once it has rested', () => {
  const world = new CursorHarness();
  world.answer(1, 'ended at rest');
  world.answer(2);
  assert.equal(world.cursor.moveOn(world.nowMs + 999).length, 0);
  assert.equal(world.moveOn(), 1);
});

test('each stream moves on by itself', () => {
  const world = new CursorHarness();
  const answers = [new Map([[a, 1]]), new Map([[b, 5]]), new Map([[a, 2]])];
  for (const until of answers) world.answer(0, 'ended at rest').until = until;
  world.cursor.answers = answers.map((until, at) => ({
    ...{ state: lost('at rest'), connection: connect(), request: at, givesUpMs: never, sentAtMs: at * 1000, until },
    ...{ samples: 0, receipt: undefined },
  }));
  assert.deepEqual(world.cursor.moveOn(10_000), [{ stream: a, afterMs: -Infinity, untilMs: 1 }]);
  assert.equal(world.cursor.positionMs(b), -Infinity);
  assert.equal(world.cursor.sentMs(b), 5);
});

test('a confirmed answer moves the position, and never back', () => {
  const world = new CursorHarness();
  world.answer(5, 'asked again');
  world.answer(3, 'half-closed');
  assert.equal(world.cursor.positionMs(a), 5);
  assert.deepEqual(world.cursor.answers, []);
});

test('what a lost answer had given is remembered through a smaller one', () => {
  const world = new CursorHarness();
  world.answer(4, 'ended at rest');
  world.answer(1, 'asked again');
  assert.equal(world.cursor.positionMs(a), 1);
  assert.equal(world.cursor.sentMs(a), 4);
  world.answer(4, 'asked again');
  assert.equal(world.cursor.sentMs(a), -Infinity);
});

test('a scraper is known from its first answer that was sent whole', () => {
  const world = new CursorHarness();
  const answer = world.cursor.begin(connect(), 0, asked);
  assert.equal(world.cursor.isKnown, false);
  world.cursor.apply(answer, 'aborted', 0);
  assert.equal(world.cursor.isKnown, false);
  world.answer(1);
  assert.equal(world.cursor.isKnown, true);
});

test('from the oldest of several: what the others had may be there, what was given to them counts for nothing', () => {
  const [slow, fast, own] = [new CursorHarness(), new CursorHarness(), new CursorHarness()];
  slow.answer(1, 'asked again');
  fast.answer(7, 'asked again');
  for (const ms of [8, 9]) fast.answer(ms, 'ended at rest');
  own.answer(3, 'asked again');
  own.answer(4, 'ended at rest');
  const cursors = [slow, fast, own].map(({ cursor }) => cursor.copy());
  own.cursor.startAtOldestOf(cursors, own.cursor.copy());
  assert.equal(own.cursor.positionMs(a), 1);
  assert.equal(own.cursor.sentMs(a), 9);
  assert.equal(own.moveOn(), undefined);
  own.answer(5, 'ended at rest');
  assert.equal(own.moveOn(), 4);
});

test('a step of the clock backwards takes the positions with it, one forwards does not', () => {
  const world = new CursorHarness();
  world.answer(100_000, 'asked again');
  world.cursor.clockStepped(30_000);
  assert.equal(world.cursor.positionMs(a), 100_000);
  world.cursor.clockStepped(-30_000);
  assert.equal(world.cursor.positionMs(a), 70_000);
});

test('answers are bounded where single streams are given in turn', () => {
  const world = new CursorHarness();
  for (let at = 0; at < 50; at++) {
    const answer = world.answer(0, 'reset at once');
    answer.until = new Map([[`s${at}` as typeof a, 1]]);
    world.cursor.answers.push(answer);
  }
  world.answer(1, 'reset at once');
  assert.ok(world.cursor.answers.length <= 32);
});

test('K is three times what comes in, halved by an abort, doubled by a confirmation', () => {
  const pace = new Pace();
  assert.equal(pace.samplesMax, samplesMaxDefault);
  const halved: number[] = [];
  for (let abort = 0; abort < 10; abort++) {
    pace.halve();
    halved.push(pace.samplesMax);
  }
  assert.deepEqual(halved, [150_000, 75_000, 37_500, 18_750, 9375, 4687, 2343, 1171, 1000, 1000]);
  pace.widen();
  assert.equal(pace.samplesMax, 2000);
  pace.arrived({ samples: 500_000, bytes: 0, decodedBytes: 10_000_000 });
  assert.equal(pace.samplesMax, 1_500_000);
  pace.halve();
  assert.deepEqual([pace.samplesMax, pace.decodedBytesMax], [1_500_000, 30_000_000], 'three times what comes in');
  pace.arrived({ samples: 10, bytes: 0, decodedBytes: 0 });
  assert.equal(pace.samplesMax, samplesMaxDefault);
});
