import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';

/** A process that lets a task run every day, and passes so many seconds from 23:59:58 UTC on. */
function passing(seconds: number, task: string) {
  const url = JSON.stringify(new URL('../../src/server/daily.js', import.meta.url).href);
  const script = `
    import { mock } from 'node:test';
    const { everyDay } = await import(${url});
    mock.timers.enable({ apis: ['setTimeout', 'setInterval', 'Date'], now: Date.UTC(2026, 2, 28, 23, 59, 58) });
    const daily = everyDay(() => { ${task} });
    for (let passed = 0; passed < ${seconds * 10}; passed++) {
      mock.timers.tick(100);
      await new Promise((resolve) => setImmediate(resolve));
    }
    await daily.stop();
    mock.timers.reset();
    console.log('stopped');`;
  // A zone in which this night has an hour less.
  const env = { PATH: process.env['PATH'], TZ: 'Europe/Berlin' };
  return spawnSync(process.execPath, ['--no-warnings', '--input-type=module', '-e', script], {
    env,
    encoding: 'utf8',
    timeout: 60_000,
  });
}

test('a task runs at midnight, in UTC, and no more after the stop', () => {
  const { status, stdout, stderr } = passing(5, `console.log(new Date().toISOString());`);
  assert.equal(stderr, '');
  assert.match(stdout, /^2026-03-29T00:00:00\.\d{3}Z\nstopped\n$/);
  assert.equal(status, 0);
});

test('a bug in the task ends the process, with its stack', () => {
  const { status, stdout, stderr } = passing(5, `throw new Error('a bug');`);
  assert.match(stderr, /Error: a bug\n {4}at /);
  assert.doesNotMatch(stdout, /stopped/);
  assert.equal(status, 1);
});
