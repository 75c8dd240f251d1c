import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { askControl, ControlError, type ControlHandlers, serveControl } from '../../src/runtime/control.ts';
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
    status: async ({ verbose }) => ({ verbose, big }),
    nothing: () => undefined,
  });
  assert.deepEqual(await askControl(path, { command: 'status', verbose: true }), { verbose: true, big });
  assert.equal(await askControl(path, { command: 'nothing' }), null);
});

test('what is refused comes back in words', async (context) => {
  const { path } = await serve(context, {
    status: () => {
      throw new Error('not now');
    },
  });
  await assert.rejects(askControl(path, { command: 'status' }), withCode('refused', /^not now$/));
  await assert.rejects(
    askControl(path, { command: 'toString' }),
    withCode('refused', /^unknown command 'toString': expected status$/),
  );
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

test('what is no question, and one that has no end', async (context) => {
  const { path } = await serve(context, { status: () => 1 });
  assert.match(await raw(path, 'GET / HTTP/1.1\n'), /^\{"error":/);
  assert.equal(await raw(path, '[1]\n'), '{"error":"expected an object with a command"}\n');
  assert.equal(await raw(path, '{"command":1}\n'), '{"error":"expected an object with a command"}\n');
  assert.equal(await raw(path, 'x'.repeat(70_000)), '');
  assert.equal(await askControl(path, { command: 'status' }), 1);
});

test('the socket is for owner and group, and goes when the program ends', async (context) => {
  const before = process.umask();
  const { path, server } = await serve(context, {});
  assert.equal(statSync(path).mode & 0o777, 0o660);
  assert.equal(process.umask(), before);
  await server.close();
  assert.equal(existsSync(path), false);
});

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
  await assert.rejects(askControl(path, { command: 'x' }), withCode('not-running', /nothing runs here/));
  await serve(context, { status: () => 1 }, path);
  assert.equal(await askControl(path, { command: 'status' }), 1);
  await assert.rejects(serveControl(path, {}, new MemoryLog()), withCode('refused', /another program answers/));
  assert.equal(await askControl(path, { command: 'status' }), 1);
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
  await assert.rejects(askControl(path, { command: 'x' }), withCode('not-running', /control\.sock/));
});

test('an answer that is cut off, and none at all', async (context) => {
  const path = place(context);
  const server = createServer((socket) => socket.once('data', () => socket.end('{"ok":')));
  await new Promise<void>((resolve) => server.listen(path, resolve));
  context.after(() => server.close());
  await assert.rejects(askControl(path, { command: 'x' }), withCode('failed', /cut off or no JSON/));
  const silent = place(context);
  const other = createServer((socket) => socket.on('error', () => {}));
  await new Promise<void>((resolve) => other.listen(silent, resolve));
  context.after(() => other.close());
  await assert.rejects(askControl(silent, { command: 'x' }, 20), withCode('failed', /within 20 ms/));
});
