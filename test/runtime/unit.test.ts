import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseUnitFacts } from '../../src/runtime/unit.ts';

test('what systemctl show says of a unit', () => {
  const text = 'LoadState=loaded\nUser=sysmon-server\nGroup=\nMemoryMax=1610612736\n';
  assert.deepEqual(parseUnitFacts(text), {
    user: 'sysmon-server',
    group: 'sysmon-server',
    memoryBytesMax: 1_610_612_736,
  });
  assert.equal(parseUnitFacts(text.replace('1610612736', 'infinity'))?.memoryBytesMax, undefined);
  assert.equal(parseUnitFacts(text.replace('Group=', 'Group=other'))?.group, 'other');
  assert.equal(parseUnitFacts(text.replace('loaded', 'not-found')), undefined);
  assert.equal(parseUnitFacts(text.replace('User=sysmon-server', 'User=')), undefined);
});
