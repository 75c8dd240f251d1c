import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bundleOf, freePort, Program, ServerProgram } from '../support/programs.ts';

test('a Prometheus that does not answer fails the check with 3, and not the start', async (context) => {
  const port = await freePort();
  const flags = ['--prometheus', `a=http://127.0.0.1:${port}`];
  const check = new Program('check', process.execPath, [
    bundleOf('server'),
    'check',
    '--config.file',
    '/dev/null',
    ...flags,
  ]);
  assert.equal((await check.ended).code, 3);
  assert.match(
    check.lines.at(-1)!,
    new RegExp(`^Prometheus 'a' at http://127\\.0\\.0\\.1:${port}: error: connect ECONNREFUSED`),
  );
  const server = await ServerProgram.start(context, flags);
  assert.deepEqual(await server.kill('SIGTERM'), { code: 0, signal: null });
});
