import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { hostId } from '../../../src/agent/uplink/host-id.ts';

const root = mkdtempSync(join(tmpdir(), 'sysmon-host-'));
after(() => rmSync(root, { recursive: true, force: true }));
let made = 0;
const randomBytes = (count: number) => Buffer.alloc(count, ++made);

test("a host's identity comes from its machine-id and does not give it away", () => {
  mkdirSync(join(root, 'etc'));
  const machineId = '0123456789abcdef0123456789abcdef';
  writeFileSync(join(root, 'etc/machine-id'), `${machineId}\n`);
  const id = hostId({ rootfs: root, spoolDir: undefined, randomBytes });
  assert.match(id, /^[0-9a-f]{32}$/);
  assert.notEqual(id, machineId);
  assert.equal(hostId({ rootfs: root, spoolDir: root, randomBytes }), id);
  assert.equal(made, 0);
  writeFileSync(join(root, 'etc/machine-id'), `${machineId.replace('0', '1')}\n`);
  assert.notEqual(hostId({ rootfs: root, spoolDir: undefined, randomBytes }), id);
});

test('without one it is made up and kept in the folder of the spool', () => {
  for (const text of ['', 'uninitialized\n']) {
    writeFileSync(join(root, 'etc/machine-id'), text);
    const spoolDir = mkdtempSync(join(root, 'spool-'));
    const id = hostId({ rootfs: root, spoolDir, randomBytes });
    assert.equal(hostId({ rootfs: root, spoolDir, randomBytes }), id);
    assert.equal(readFileSync(join(spoolDir, 'host-id'), 'utf8'), `${id}\n`);
    writeFileSync(join(spoolDir, 'host-id'), 'torn');
    assert.notEqual(hostId({ rootfs: root, spoolDir, randomBytes }), id);
  }
  assert.notEqual(
    hostId({ rootfs: root, spoolDir: undefined, randomBytes }),
    hostId({ rootfs: root, spoolDir: undefined, randomBytes }),
  );
  assert.match(hostId({ rootfs: root, spoolDir: join(root, 'missing'), randomBytes }), /^[0-9a-f]{32}$/);
});
