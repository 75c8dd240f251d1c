import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { BusClient } from '../../../../src/agent/collect/bus/client.ts';
import { BusError } from '../../../../src/agent/collect/bus/message.ts';
import { callMore, VarlinkDecoder } from '../../../../src/agent/collect/bus/varlink.ts';
import { FakeBus } from '../../../support/fake-bus.ts';

const uid = process.getuid!();
const get = (property: string) => ({
  ...{ destination: 'org.freedesktop.systemd1', path: '/org/freedesktop/systemd1', member: 'Get' },
  ...{ interface: 'org.freedesktop.DBus.Properties', arguments: ['org.freedesktop.systemd1.Manager', property] },
});

async function withBus(run: (bus: FakeBus, path: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'sysmon-bus-'));
  const path = join(folder, 'socket');
  const bus = await FakeBus.listen(path);
  try {
    await run(bus, path);
  } finally {
    await bus.close();
    rmSync(folder, { recursive: true });
  }
}

async function refusal(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
    return 'answered';
  } catch (error) {
    assert.ok(error instanceof BusError, String(error));
    return `${error.code}: ${error.message}`;
  }
}

test('calls are answered, also several at a time; an error is of its call alone', () =>
  withBus(async (_, path) => {
    const client = await BusClient.connect({ path, uid, timeoutMs: 2000 });
    const answers = [client.call(get('Version')), client.call(get('SystemState'))];
    assert.deepEqual(await Promise.all(answers), [['252.39-1~deb12u2'], ['running']]);
    assert.match(
      await refusal(client.call(get('NoSuch'))),
      /^refused: Get: org.freedesktop.DBus.Error.AccessDenied: no$/,
    );
    assert.deepEqual(await client.call(get('Version')), ['252.39-1~deb12u2']);
    client.close();
    assert.equal(await refusal(client.call(get('Version'))), 'closed: the connection was closed');
  }));

test('a bus that is silent, rejects, hangs up, says what is no message, or is not there', () =>
  withBus(async (bus, path) => {
    const options = { path, uid, timeoutMs: 200 };
    bus.mood = 'silent';
    assert.match(await refusal(BusClient.connect(options)), /^closed: it does not answer/);
    bus.mood = 'rejects';
    assert.match(await refusal(BusClient.connect(options)), /^refused: the answer to AUTH is "REJECTED EXTERNAL"/);
    bus.mood = 'well';
    const client = await BusClient.connect(options);
    bus.mood = 'silent';
    const late = client.call(get('Version'));
    assert.match(await refusal(late), /^timeout: no answer to Get in 200 ms/);
    assert.equal(client.isOpen, false);
    bus.mood = 'garbage';
    const other = await BusClient.connect(options);
    assert.match(
      await refusal(other.call({ ...get(''), member: 'ListUnits' })),
      /^format: the protocol version is 115/,
    );
    const third = await BusClient.connect(options);
    const waiting = third.call({ ...get('Version') });
    bus.hangUp();
    assert.match(await refusal(waiting), /^closed: /);
    assert.match(await refusal(BusClient.connect({ ...options, path: `${path}-none` })), /^closed: connect ENOENT/);
  }));

test('Varlink: one answer after another, wherever the stream is cut', () => {
  const bytes = Buffer.from('{"parameters":{"a":1},"continues":true}\0{"parameters":{"b":"ü"}}\0');
  for (let cut = 0; cut <= bytes.length; cut++) {
    const decoder = new VarlinkDecoder();
    const replies = [...decoder.push(bytes.subarray(0, cut)), ...decoder.push(bytes.subarray(cut))];
    assert.deepEqual(replies, [
      { parameters: { a: 1 }, continues: true },
      { parameters: { b: 'ü' }, continues: false },
    ]);
  }
  const refused = (text: string) => {
    try {
      return new VarlinkDecoder().push(Buffer.from(text)).length;
    } catch (error) {
      assert.ok(error instanceof BusError);
      return `${error.code}: ${error.message}`;
    }
  };
  assert.equal(refused('{\0'), 'format: an answer is no JSON: "{"');
  assert.equal(refused('7\0'), 'format: an answer is no object');
  assert.equal(
    refused('{"error":"org.varlink.service.MethodNotFound"}\0'),
    'refused: org.varlink.service.MethodNotFound',
  );
  assert.equal(refused('{"error":{"toString":1,"valueOf":1}}\0'), 'refused: an error without a name');
  assert.equal(refused('x'.repeat(1024 * 1024 + 1)), 'limit: a message of more than 1048576 bytes');
});

test('Varlink: a call that is answered by many, and one that is not', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'sysmon-varlink-'));
  const path = join(folder, 'socket');
  let answer = '{"parameters":{"n":1},"continues":true}\0{"parameters":{"n":2},"continues":false}\0';
  const asked: string[] = [];
  const server = createServer((socket) => {
    socket.on('data', (chunk) => {
      asked.push(String(chunk));
      if (answer === '') socket.destroy();
      else socket.write(answer);
    });
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  try {
    const taken: unknown[] = [];
    await callMore({ path, method: 'a.B', timeoutMs: 2000 }, (parameters) => taken.push(parameters));
    assert.deepEqual(taken, [{ n: 1 }, { n: 2 }]);
    assert.deepEqual(asked, ['{"method":"a.B","more":true,"parameters":{}}\0']);
    answer = '';
    assert.match(
      await refusal(callMore({ path, method: 'a.B', timeoutMs: 2000 }, () => {})),
      /^closed: the other side/,
    );
    answer = '{"parameters":{},"continues":true}\0';
    assert.match(
      await refusal(callMore({ path, method: 'a.B', timeoutMs: 100 }, () => {})),
      /^timeout: no answer to a\.B in 100 ms/,
    );
  } finally {
    server.close();
    rmSync(folder, { recursive: true });
  }
});
