import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  askChrony,
  chronyPortsOwn,
  parseTracking,
  trackingQuestion,
} from '../../../../src/agent/collect/bus/chrony.ts';
import { BusError } from '../../../../src/agent/collect/bus/message.ts';
import { answerTo, FakeChrony, floatBits } from '../../../support/fake-chrony.ts';
import { rootFile } from '../../../support/files.ts';
import { skipWithout } from '../../../support/installed.ts';
import { eventually, freePort, Program, temporaryFolder } from '../../../support/programs.ts';

const tracking = {
  isSynchronized: true,
  offset: 0.25,
  rootMeanSquare: 0.125,
  rootDelay: 0.5,
  rootDispersion: 2 ** -10,
};

// What chronyd 4.3 has answered, with `local stratum 8`, to the question with the number 0xabcdef01.
const recorded = Buffer.from(
  '06020000002100050000000000000000abcdef0100000000000000007f7f010100000000000000000000000000000000000000000008000000' +
    '0000006b0aee6b06cef58c000000000000000000000000000000000000000000000000000000000000000000000000',
  'hex',
);

test("chronyd's answer, and what is none", () => {
  const none = { isSynchronized: true, offset: 0, rootMeanSquare: 0, rootDelay: 0, rootDispersion: 0 };
  assert.deepEqual(parseTracking(recorded, 0xabcdef01), none);
  assert.equal(parseTracking(recorded, 0xabcdef02), undefined, 'that is another question');
  const unsynchronized = Buffer.from(recorded);
  unsynchronized.writeUInt16BE(3, 54);
  assert.equal(parseTracking(unsynchronized, 0xabcdef01)?.isSynchronized, false);

  const refused = (at: number, byte: number, message: RegExp) => {
    const wrong = Buffer.from(recorded);
    wrong[at] = byte;
    assert.throws(
      () => parseTracking(wrong, 0xabcdef01),
      (error) => error instanceof BusError && message.test(error.message),
    );
  };
  refused(0, 5, /not chronyd, or speaks another version/);
  refused(1, 1, /not chronyd/);
  refused(7, 6, /of tracking/);
  refused(9, 19, /refuses to say how it keeps the clock: status 19/);
  for (let length = 0; length < recorded.length; length++) {
    assert.throws(() => parseTracking(recorded.subarray(0, length), 0xabcdef01), BusError);
  }
  // It must not be shorter than the answer: chronyd does not answer it then.
  assert.equal(trackingQuestion(1).length, recorded.length);
});

test('property: numbers come as they are, to 24 bits', () => {
  const number = fc
    .double({ min: -1e6, max: 1e6, noNaN: true })
    .filter((value) => value === 0 || Math.abs(value) > 1e-12);
  fc.assert(
    fc.property(number, number, (offset, rootDelay) => {
      const found = parseTracking(answerTo(trackingQuestion(7), { ...tracking, offset, rootDelay }), 7)!;
      assert.ok(Math.abs(found.offset - offset) <= Math.abs(offset) * 2 ** -22, `${offset} became ${found.offset}`);
      assert.ok(Math.abs(found.rootDelay - rootDelay) <= Math.abs(rootDelay) * 2 ** -22);
    }),
  );
  assert.deepEqual([floatBits(0), floatBits(1), floatBits(-1)], [0, 0x0480_0000, 0x0580_0000]);
});

test('property: whatever bytes come, they are tracking, another answer, or a BusError', () => {
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 200 }),
    fc.tuple(fc.nat(103), fc.nat(255)).map(([at, byte]) => Object.assign(Buffer.from(recorded), { [at]: byte })),
  );
  fc.assert(
    fc.property(bytes, (answer) => {
      try {
        const found = parseTracking(answer, 0xabcdef01);
        assert.ok(found === undefined || Object.values(found).every((value) => !Number.isNaN(value)));
      } catch (error) {
        assert.ok(error instanceof BusError, String(error));
      }
    }),
  );
});

test('one datagram is a question, and one the answer', async (context) => {
  const chrony = await FakeChrony.listen(context, tracking);
  assert.deepEqual(await askChrony({ port: chrony.port, timeoutMs: 1000 }), tracking);
  // Late answers to others, and then the right one.
  chrony.before = [answerTo(trackingQuestion(1), { ...tracking, offset: 9 })];
  assert.deepEqual(await askChrony({ port: chrony.port, timeoutMs: 1000 }), tracking);
  assert.equal(chrony.questions, 2);
  chrony.before = [Buffer.from('what?')];
  await assert.rejects(askChrony({ port: chrony.port, timeoutMs: 1000 }), /not chronyd/);
});

test('where nobody answers there is nothing, soon', async (context) => {
  const startMs = performance.now();
  assert.equal(await askChrony({ port: await freePort(), timeoutMs: 10_000 }), undefined);
  assert.ok(performance.now() - startMs < 5000, 'the kernel says so at once');
  const chrony = await FakeChrony.listen(context, undefined);
  assert.equal(await askChrony({ port: chrony.port, timeoutMs: 100 }), undefined);
  assert.equal(chrony.questions, 1);
});

test('a port of its own that is taken is not the only one', async (context) => {
  const chrony = await FakeChrony.listen(context, tracking);
  const first = await FakeChrony.listen(context, undefined);
  const question = { port: chrony.port, timeoutMs: 1000 };
  await assert.rejects(
    askChrony({ ...question, ownPorts: { first: first.port, count: 1 } }),
    /^BusError: UDP ports (\d+) to \1 are all in use/,
  );
  const ownPorts = { first: first.port, count: 4 };
  for (let tries = 0; tries < 8; tries++) assert.deepEqual(await askChrony({ ...question, ownPorts }), tracking);
});

test('the unit lets the agent bind its own ports, and no others', () => {
  const unit = readFileSync(rootFile('systemd/sysmon-agent.service'), 'utf8');
  const { first, count } = chronyPortsOwn;
  assert.match(unit, /^SocketBindDeny=any$/m);
  assert.deepEqual(unit.match(/^SocketBindAllow=.*$/gm), [`SocketBindAllow=ipv4:udp:${first}-${first + count - 1}`]);
});

test("Debian's chronyd", { skip: skipWithout('/usr/sbin/chronyd') }, async (context) => {
  const folder = temporaryFolder(context);
  const port = await freePort();
  const file = join(folder, 'chrony.conf');
  // -x: it leaves the clock alone.
  const lines = [`cmdport ${port}`, 'bindcmdaddress 127.0.0.1', 'bindcmdaddress /', 'port 0', `pidfile ${folder}/pid`];
  const start = async (...more: string[]) => {
    writeFileSync(file, `${[...lines, ...more].join('\n')}\n`);
    const chronyd = new Program('chronyd', '/usr/sbin/chronyd', ['-x', '-d', '-u', 'root', '-f', file]);
    context.after(() => chronyd.kill('SIGKILL'));
    const answer = await eventually(10_000, async () => {
      const found = await askChrony({ port, timeoutMs: 500 });
      assert.ok(found !== undefined, chronyd.lines.join('\n'));
      return found;
    });
    await chronyd.kill('SIGTERM');
    return answer;
  };
  const byItself = await start('local stratum 8');
  assert.deepEqual([byItself.isSynchronized, byItself.offset], [true, 0]);
  const lost = await start();
  assert.equal(lost.isSynchronized, false);
});
