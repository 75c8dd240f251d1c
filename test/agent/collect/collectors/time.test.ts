import assert from 'node:assert/strict';
import { test } from 'node:test';
import { collectOn } from '../../../support/collect-fixture.ts';
import { hostOf, makeTree } from '../../../support/fixture-proc.ts';

/** A zone of the first version of the format, of one type: `CET`, an hour ahead. It has no line end anywhere. */
const zone = Buffer.concat([
  Buffer.from('TZif'),
  Buffer.alloc(16),
  ...[0, 0, 0, 0, 1, 4].map((count) => Buffer.from([0, 0, 0, count])),
  Buffer.from([0, 0, 0x0e, 0x10, 0, 0]),
  Buffer.from('CET\0'),
]);

function offsets(files: readonly [string, Uint8Array][], system: readonly [string, string][] = []): string[] {
  const tree = makeTree(files);
  const host = hostOf(tree, { system: new Map(system) });
  try {
    const { text, parseErrors } = collectOn('time', host);
    const lines = text.split('\n').filter((line) => /^node_time_zone_offset_seconds/.test(line));
    return [...lines, ...parseErrors.map(({ path }) => path.slice(tree.folder.length))];
  } finally {
    host.close();
    tree.remove();
  }
}

test('the zone is that of TZ, else of /etc/localtime, else UTC; one that cannot be read gives no offset', () => {
  const cet = 'node_time_zone_offset_seconds{time_zone="CET"} 3600';
  const utc = 'node_time_zone_offset_seconds{time_zone="UTC"} 0';
  const local = '/root/etc/localtime';
  assert.deepEqual(offsets([['root/etc/localtime', zone]]), [cet]);
  assert.deepEqual(offsets([]), [utc]);
  assert.deepEqual(offsets([['root/etc/localtime', zone]], [['TZ', '']]), [utc]);
  assert.deepEqual(offsets([['root/usr/share/zoneinfo/A/B', zone]], [['TZ', ':A/B']]), [cet]);
  assert.deepEqual(offsets([['root/etc/zone', zone]], [['TZ', '/etc/zone']]), [cet]);
  for (const bytes of [Buffer.alloc(0), Buffer.from('TZif'), zone.subarray(0, zone.length - 1)]) {
    assert.deepEqual(offsets([['root/etc/localtime', bytes]]), [local]);
  }
});
