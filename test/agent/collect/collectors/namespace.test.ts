import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { ProbeResult } from '../../../support/namespace-probe.ts';

/** A shell with a network and a /sys of its own, where it may do what root may. */
function inNamespace(command: string) {
  const shell = `mount -t sysfs sysfs /sys && ${command}`;
  return spawnSync('unshare', ['--net', '--mount', 'sh', '-c', shell], { encoding: 'utf8' });
}

const { status, stderr } = inNamespace('ip link show lo');
const skip = status !== 0 && `no network namespace without root, unshare and ip: ${stderr?.trim()}`;

test('a real /proc/net/dev longer than a page, and devices that go and come back', { skip }, () => {
  const probe = fileURLToPath(new URL('../../../support/namespace-probe.js', import.meta.url));
  const run = inNamespace(`exec '${process.execPath}' '${probe}'`);
  assert.equal(run.status, 0, run.stderr);
  const { oneReadBytes, all, without, back } = JSON.parse(run.stdout) as ProbeResult;

  const names = Object.keys(all);
  for (let at = 0; at < 150; at++) assert.ok(names.includes(`device${at}`), `device${at}`);
  // The kernel gives a page a read: whoever reads once has lost devices.
  assert.ok(oneReadBytes < 4096 && 150 * 100 > oneReadBytes, `one read gave ${oneReadBytes} bytes`);
  // Sixteen columns and rx_nohandler, from sysfs.
  for (const [device, count] of Object.entries(all)) assert.equal(count, 17, device);

  assert.equal(without.device7, undefined);
  assert.equal(without.device8, 17, 'another device of the same name: its old file says ENODEV for ever');
  assert.equal(Object.keys(without).length, names.length - 1);
  assert.equal(back.device7, 17);
});
