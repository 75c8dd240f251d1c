import assert from 'node:assert/strict';
import { createHook } from 'node:async_hooks';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { askControl, ControlError, type ControlHandlers, serveControl } from '../../src/runtime/control.ts';
import { skipHere } from '../support/installed.ts';
import { MemoryLog } from '../support/memory-log.ts';
import { until } from '../support/sockets.ts';

function place(context: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'sysmon-control-'));
  context.after(() => rmSync(folder, { recursive: true }));
  return join(folder, 'control.sock');
}

async function serve(context: TestContext, handlers: ControlHandlers, path = place(context)) {
  const log = new MemoryLog();
  const server = await serveControl(path, handlers, log);
  assert.ok(server);
  context.after(() => server.close());
  return { path, log, server };
}

const withCode = (code: string, words: RegExp) => (error: unknown) => {
  assert.ok(error instanceof ControlError, String(error));
  assert.equal(error.code, code);
  assert.match(error.message, words);
  return true;
};

test('a question and its answer, as large as it likes', async (context) => {
  const big = 'x'.repeat(3_000_000);
  const { path } = await serve(context, {
    'GET status': { parameters: ['name'], answer: async ({ name }) => ({ name, big }) },
    'POST nothing': () => undefined,
  });
  const asked = askControl(path, 'GET status', { parameters: { name: 'a&b=c d' } });
  assert.deepEqual(await asked, { name: 'a&b=c d', big });
  assert.equal(await askControl(path, 'POST nothing'), null);
});

test('what is refused comes back in words', async (context) => {
  const { path } = await serve(context, {
    'GET status': () => {
      throw new Error('not now');
    },
    'POST revoke': () => 1,
  });
  await assert.rejects(askControl(path, 'GET status'), withCode('refused', /^not now$/));
  const known = 'expected GET /api/v1/status, POST /api/v1/revoke';
  for (const question of ['GET toString', 'GET revoke', 'POST status'] as const) {
    const words = new RegExp(`^unknown question '${question.replace(' ', ' /api/v1/')}': ${known}$`);
    await assert.rejects(askControl(path, question), withCode('refused', words));
  }
});

test('parameters are those of the question, each once', async (context) => {
  const { path } = await serve(context, {
    'GET status': () => 1,
    'POST revoke': { parameters: ['name', 'generation'], answer: (values) => values },
  });
  const parameters = { name: 'a', generation: '1' };
  assert.deepEqual(await askControl(path, 'POST revoke', { parameters }), parameters);
  const expected = /^parameters of 'POST \/api\/v1\/revoke': expected name, generation, each once$/;
  for (const query of ['', '?name=a', '?name=a&name=b', '?name=a&generation=1&more=2', '?name=a&generation=1&name=b']) {
    await assert.rejects(askControl(path, `POST revoke${query}`), withCode('refused', expected), query);
  }
  await assert.rejects(askControl(path, 'GET status', { parameters }), withCode('refused', /: expected none$/));
});

test('curl can ask', async (context) => {
  if (spawnSync('curl', ['--version']).status !== 0) {
    return skipHere(context, "'curl' is missing: apt-get install curl");
  }
  const { path } = await serve(context, { 'GET status': () => ({ agents: 3 }) });
  const curl = spawn('curl', ['-s', '-i', '--unix-socket', path, 'http://localhost/api/v1/status']);
  let text = '';
  curl.stdout.on('data', (chunk) => {
    text += chunk;
  });
  await once(curl, 'close');
  assert.match(text, /^HTTP\/1.1 200 OK\r\n[\s\S]*Content-Type: application\/json\r\n[\s\S]*\r\n\r\n{"agents":3}\n$/);
});

function raw(path: string, text: string): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect(path, () => socket.write(text));
    let answer = '';
    socket.on('data', (chunk) => {
      answer += chunk;
    });
    socket.on('error', () => {}); // being cut off is an answer
    socket.on('close', () => resolve(answer));
  });
}

test('a client may end its side before it has the answer, or go away at once', async (context) => {
  const { path } = await serve(context, { 'GET status': () => 1 });
  connect(path).destroy();
  const socket = connect(path).end('GET /api/v1/status HTTP/1.1\r\nHost: a\r\n\r\n').setEncoding('utf8');
  let answer = '';
  for await (const chunk of socket) answer += chunk;
  assert.match(answer, /^HTTP\/1\.1 200 OK\r\n[\s\S]*\r\n1\n/);
});

test('what is no question, and one that has no end', async (context) => {
  const { path } = await serve(context, { 'GET status': () => 1 });
  assert.match(await raw(path, '{"command":"status"}\n'), /^HTTP\/1.1 400 /);
  for (const url of ['//', '/', '*', 'http://[', '/api/v1/../v1/status', `/api/v1/${'x'.repeat(1000)}`]) {
    assert.match(await raw(path, `GET ${url} HTTP/1.1\r\nHost: x\r\n\r\n`), /^HTTP\/1.1 404 /, url);
  }
  assert.match(await raw(path, `GET /${'x'.repeat(70_000)}`), /^HTTP\/1.1 431 /);
  assert.equal(await askControl(path, 'GET status'), 1);
});

test('sixteen ask at once, and no more', async (context) => {
  let release = () => {};
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  let asked = 0;
  const { path } = await serve(context, {
    'GET status': () => {
      asked++;
      return held;
    },
  });
  const answers = Promise.all(Array.from({ length: 16 }, () => askControl(path, 'GET status')));
  await until(() => asked === 16);
  await assert.rejects(askControl(path, 'GET status'), withCode('failed', /control socket/));
  assert.equal(asked, 16);
  release();
  await answers;
  assert.equal(await askControl(path, 'GET status'), null);
});

test('the socket is for owner and group, and goes when the program ends', async (context) => {
  const before = process.umask();
  const { path, server } = await serve(context, {});
  assert.equal(statSync(path).mode & 0o777, 0o660);
  assert.equal(process.umask(), before);
  await server.close();
  assert.equal(existsSync(path), false);
});

test('a process that nobody asks is not woken', async (context) => {
  const shortest: number[] = [];
  const hook = createHook({
    init(_, type, __, resource) {
      if (type === 'Timeout') shortest.push((resource as { _idleTimeout: number })._idleTimeout);
    },
  }).enable();
  await serve(context, {});
  hook.disable();
  assert.ok(Math.min(...shortest) > 24 * 3600 * 1000, `timers of ${shortest.join(', ')} ms`);
});

test('who connects and does not ask within five seconds makes room; who waits for an answer is not cut off', async (context) => {
  context.mock.timers.enable({ apis: ['setTimeout'] });
  let answer = () => {};
  const { path } = await serve(context, { 'GET late': () => new Promise<void>((resolve) => (answer = resolve)) });
  const asked = once(connectAnd(path, 'GET /api/v1/late HTTP/1.1\r\nHost: x\r\n\r\n'), 'data');
  const silent = connectAnd(path, '');
  const half = connectAnd(path, 'GET /api/v1/late HTTP/1.1\r\n');
  const closed = Promise.all([once(silent, 'close'), once(half, 'close')]);
  await Promise.all([once(silent, 'connect'), once(half, 'connect')]);
  for (let turn = 0; turn < 10; turn++) await new Promise(setImmediate);
  context.mock.timers.tick(4999);
  for (let turn = 0; turn < 10; turn++) await new Promise(setImmediate);
  assert.deepEqual([silent.closed, half.closed], [false, false]);
  context.mock.timers.tick(1);
  await closed;
  answer();
  assert.match(String((await asked)[0]), /^HTTP\/1\.1 200 OK\r\n/);
});

function connectAnd(path: string, text: string): Socket {
  const socket = connect(path, () => socket.write(text));
  socket.on('error', () => {}); // it is cut off
  return socket;
}

test('close does not wait for one that keeps silent', async (context) => {
  const { path, server } = await serve(context, {});
  const silent = connect(path);
  silent.on('error', () => {}); // it is cut off
  await until(() => !silent.connecting);
  await server.close();
  await until(() => silent.closed);
});

test('a socket that a killed program left is replaced; one that answers, or a file, is not', async (context) => {
  const path = place(context);
  const script = `require('node:net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`;
  await new Promise((resolve) => spawn(process.execPath, ['-e', script]).on('close', resolve));
  assert.equal(existsSync(path), true);
  await assert.rejects(askControl(path, 'GET x'), withCode('not-running', /nothing answers at the control socket/));
  await serve(context, { 'GET status': () => 1 }, path);
  assert.equal(await askControl(path, 'GET status'), 1);
  await assert.rejects(serveControl(path, {}, new MemoryLog()), withCode('refused', /another program answers/));
  assert.equal(await askControl(path, 'GET status'), 1);
  const file = place(context);
  writeFileSync(file, 'mine');
  await assert.rejects(serveControl(file, {}, new MemoryLog()), withCode('refused', /is no socket/));
});

test('no folder, too long a path, nobody there', async (context) => {
  const path = place(context);
  const log = new MemoryLog();
  assert.equal(await serveControl(join(path, 'x', 'y'), {}, log), undefined);
  assert.match(log.lines[0] ?? '', /^debug: no control socket: the folder of '.*y' does not exist$/);
  await assert.rejects(serveControl(`${path}${'x'.repeat(100)}`, {}, log), withCode('failed', /at most 107 bytes/));
  await assert.rejects(askControl(path, 'GET x'), withCode('not-running', /control\.sock': .*--control-socket$/));
});

test('a unit that is not running is named, with what starts it and where its end is recorded', async () => {
  for (const unit of ['sysmon-agent', 'sysmon-server']) {
    const path = `/run/${unit}/nobody-listens-here.sock`;
    const words = `^${unit} is not running \\(nothing answers at '${path}'\\): 'sudo systemctl start ${unit}' .*'sudo journalctl -u ${unit}' `;
    await assert.rejects(askControl(path, 'GET status'), withCode('not-running', new RegExp(words)));
  }
});

test('an answer that is cut off, and none at all', async (context) => {
  const path = place(context);
  const server = createServer((socket) =>
    socket.once('data', () => socket.end('HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"ok":')),
  );
  await new Promise<void>((resolve) => server.listen(path, resolve));
  context.after(() => server.close());
  await assert.rejects(askControl(path, 'GET x'), withCode('failed', /cut off or no JSON/));
  const silent = place(context);
  const other = createServer((socket) => socket.on('error', () => {}));
  await new Promise<void>((resolve) => other.listen(silent, resolve));
  context.after(() => other.close());
  await assert.rejects(askControl(silent, 'GET x', { timeoutMs: 20 }), withCode('failed', /within 20 ms/));
});
