import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import {
  lastWords,
  onceAMinute,
  oneLine,
  type StderrLogOptions,
  stderrIsJournal,
  stderrLog,
} from '../../src/runtime/log.ts';
import { MemoryLog } from '../support/memory-log.ts';
import { VirtualClock } from '../support/virtual-clock.ts';

function written(options: Omit<StderrLogOptions, 'write'>): string {
  let text = '';
  const log = stderrLog({
    ...options,
    write: (line) => {
      text += line;
    },
  });
  log.error('e');
  log.warn('w');
  log.info('i');
  log.debug('d');
  return text;
}

test('journald is given priorities, a terminal words', () => {
  assert.equal(written({ level: 'debug', journal: true, name: 'x' }), '<3>e\n<4>w\n<6>i\n<7>d\n');
  assert.equal(written({ level: 'debug', journal: false }), 'error: e\nwarning: w\ni\ndebug: d\n');
  assert.equal(written({ level: 'info', journal: false, name: 'x' }), 'x: error: e\nx: warning: w\nx: i\n');
});

test('a level leaves out what is below it', () => {
  assert.equal(written({ level: 'warn', journal: true }), '<3>e\n<4>w\n');
  assert.equal(written({ level: 'error', journal: true }), '<3>e\n');
});

test('what a peer sends cannot make a second line or a control sequence', () => {
  assert.equal(oneLine('a\n<3>b\r\u001b[2J\u0085\u2028\u0000 ü'), 'a\\n<3>b\\x0d\\x1b[2J\\x85\\u2028\\x00 ü');
  assert.equal(oneLine('x'.repeat(10_000)).length, 4096);
});

test('stderr is the journal only where the inode says so', () => {
  assert.equal(stderrIsJournal({}), false);
  assert.equal(stderrIsJournal({ JOURNAL_STREAM: '1:2' }), false);
  const url = new URL('../../src/runtime/log.js', import.meta.url).href;
  const script = `
    const { stderrIsJournal } = await import(${JSON.stringify(url)});
    const { dev, ino } = (await import('node:fs')).fstatSync(2);
    console.log(stderrIsJournal({ JOURNAL_STREAM: dev + ':' + ino }));`;
  const { stdout } = spawnSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' });
  assert.equal(stdout, 'true\n');
});

test('the same event is logged once a minute, with the number of those between', async () => {
  const clock = new VirtualClock();
  const log = new MemoryLog();
  const seldom = onceAMinute(log, clock);
  seldom.warn('a', 'first');
  seldom.warn('a', 'second');
  seldom.warn('b', 'other key');
  seldom.error('a', 'other level');
  await clock.advance(59_999);
  seldom.warn('a', 'third');
  await clock.advance(1);
  seldom.warn('a', 'fourth');
  await clock.advance(60_000);
  seldom.warn('a', 'fifth');
  assert.deepEqual(log.lines, [
    'warn: first',
    'warn: other key',
    'error: other level',
    'warn: fourth (and 2 more like it)',
    'warn: fifth',
  ]);
});

test('keys without end: the oldest are forgotten, the newest are not', () => {
  const log = new MemoryLog();
  const seldom = onceAMinute(log, new VirtualClock());
  for (let index = 0; index < 5000; index++) seldom.info(`key ${index}`, `${index}`);
  assert.equal(log.lines.length, 5000);
  seldom.info('key 4999', 'again');
  seldom.info('key 4001', 'again');
  assert.equal(log.lines.length, 5000);
  seldom.info('key 0', 'again');
  assert.equal(log.lines.length, 5001);
});

test('what a program ends with: for people with its name, for journald as errors', () => {
  assert.equal(lastWords('sysmon-test', 'a port is taken', { journal: false }), 'sysmon-test: a port is taken\n');
  assert.equal(lastWords('sysmon-test', 'a port is taken', { journal: true }), '<3>a port is taken\n');
  assert.equal(lastWords('sysmon-test', 'Error: bug\n    at f', { journal: true }), '<3>Error: bug\n<3>    at f\n');
});
