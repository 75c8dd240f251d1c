import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CodedError } from '../../src/runtime/coded-error.ts';
import {
  ageText,
  bytesText,
  codeOf,
  durationText,
  isoTime,
  mebibytesText,
  plural,
  printable,
  reasonOf,
  secondsText,
} from '../../src/runtime/words.ts';

test('one is one, anything else is many', () => {
  assert.deepEqual(
    [0, 1, 2].map((count) => plural(count, 'report')),
    ['0 reports', '1 report', '2 reports'],
  );
  assert.deepEqual([plural(1, 'series', 'series'), plural(5, 'series', 'series')], ['1 series', '5 series']);
});

test('durations and sizes that were chosen are exact', () => {
  for (const [ms, text] of [
    [0, '0s'],
    [1, '1ms'],
    [1500, '1s500ms'],
    [90_000, '1m30s'],
    [86_400_000, '1d'],
    [788_645_001, '1w2d3h4m5s1ms'],
  ] as const) {
    assert.equal(durationText(ms), text);
  }
  for (const [bytes, text] of [
    [0, '0B'],
    [1023, '1023B'],
    [1536, '1536B'],
    [64 * 1024 ** 2, '64MiB'],
    [2 * 1024 ** 4, '2TiB'],
    [4096 * 1024 ** 4, '4096TiB'],
  ] as const) {
    assert.equal(bytesText(bytes), text);
  }
});

test('times and sizes that were measured are rounded', () => {
  assert.equal(secondsText(12_340), '12.3 s');
  assert.equal(mebibytesText(12_939_427), '12.3 MiB');
  for (const [ms, text] of [
    [-5000, '0 s'],
    [499, '0 s'],
    [119_400, '119 s'],
    [120_000, '2 min'],
    [7_199_000, '120 min'],
    [7_200_000, '2 h'],
    [47 * 3_600_000, '47 h'],
    [72 * 3_600_000, '3 d'],
  ] as const) {
    assert.equal(ageText(ms), text);
  }
  assert.equal(isoTime(0), '1970-01-01T00:00:00.000Z');
});

test('whatever is thrown has a reason, and a code where there is one', () => {
  class Gone extends CodedError<'gone'> {
    override readonly name = 'Gone';
  }
  const cause = new TypeError('x');
  const gone = new Gone('gone', 'it has gone', { cause });
  assert.deepEqual([gone.code, codeOf(gone), reasonOf(gone), gone.cause], ['gone', 'gone', 'it has gone', cause]);
  assert.equal(String(gone), 'Gone: it has gone');
  assert.deepEqual([reasonOf('text'), codeOf('text'), codeOf(new Error('no code'))], ['text', '', '']);
});

test('text from outside keeps to its place', () => {
  assert.equal(printable('a\n<3>b\r\u001b[2J\u0085\u2028\u0000 ü'), 'a\\n<3>b\\x0d\\x1b[2J\\x85\\u2028\\x00 ü');
  assert.equal(printable('web\u202e1-\u2066x\u2069\u200f\u061c'), 'web\\u202e1-\\u2066x\\u2069\\u200f\\u061c');
  assert.equal(printable('名前 👩‍🚀 é'), '名前 👩‍🚀 é');
});
