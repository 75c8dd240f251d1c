import assert from 'node:assert/strict';
import { test } from 'node:test';
import { memoryLimitBytes } from '../../src/runtime/memory-limit.ts';

const limitOf = (files: Readonly<Record<string, string>>) =>
  memoryLimitBytes((path) => {
    const text = files[path];
    if (text === undefined) throw new Error(`ENOENT: '${path}'`);
    return text;
  });

test('the limit of memory is the least of the unit and the slices around it', () => {
  const unit = {
    '/proc/self/cgroup': '0::/system.slice/sysmon-agent.service\n',
    '/sys/fs/cgroup/system.slice/sysmon-agent.service/memory.max': '335544320\n',
    '/sys/fs/cgroup/system.slice/memory.max': 'max\n',
  };
  assert.equal(limitOf(unit), 335_544_320);
  assert.equal(limitOf({ ...unit, '/sys/fs/cgroup/system.slice/memory.max': '1000\n' }), 1000);
  const own = '/sys/fs/cgroup/system.slice/sysmon-agent.service/memory.max';
  assert.equal(limitOf({ ...unit, [own]: 'max\n' }), undefined);
  assert.equal(limitOf({ '/proc/self/cgroup': '0::/\n', '/sys/fs/cgroup/memory.max': '4096\n' }), 4096, 'a container');
});

test('where nothing can be read, no limit is known', () => {
  assert.equal(limitOf({}), undefined);
  assert.equal(limitOf({ '/proc/self/cgroup': '4:memory:/a\n1:cpu:/\n' }), undefined, 'version 1');
  assert.equal(limitOf({ '/proc/self/cgroup': '0::/a\n' }), undefined);
  assert.equal(limitOf({ '/proc/self/cgroup': '0::/a\n', '/sys/fs/cgroup/a/memory.max': '' }), undefined);
});
