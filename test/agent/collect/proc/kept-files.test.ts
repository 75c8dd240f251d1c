import assert from 'node:assert/strict';
import { test } from 'node:test';
import { keptFiles } from '../../../../src/agent/collect/proc/kept-files.ts';

const limits = (soft: string) => () =>
  `Limit                     Soft Limit           Hard Limit           Units     \n` +
  `Max processes             95918                95918                processes \n` +
  `Max open files            ${soft.padEnd(20)} 524288               files     \n`;

test('a share of the files that the process may have open, and never more than the kernel has room for', () => {
  assert.deepEqual(keptFiles(limits('4096')), { fast: 2048, slow: 1024 });
  assert.deepEqual(keptFiles(limits('7000')), { fast: 3500, slow: 1750 });
  const most = { fast: 4096, slow: 6144 };
  assert.deepEqual(keptFiles(limits('524288')), most);
  assert.deepEqual(keptFiles(limits('unlimited')), most);
});

test('where the limit is not known, the smallest that there is', () => {
  const least = { fast: 2048, slow: 1024 };
  assert.deepEqual(
    keptFiles(limits('1024')),
    least,
    'nobody sets so few, and a file too many is only opened for each read',
  );
  assert.deepEqual(
    keptFiles(() => 'something else\n'),
    least,
  );
  assert.deepEqual(
    keptFiles(() => {
      throw new Error('no /proc');
    }),
    least,
  );
});

test('of this process', { skip: process.platform !== 'linux' && 'not Linux' }, () => {
  const { fast, slow } = keptFiles();
  assert.ok(fast >= 2048 && slow >= 1024);
});
