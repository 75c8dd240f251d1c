import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { rootFile } from '../support/files.ts';

// What `npm run build` does; the other scripts only call its parts. Here all is up to date, so nothing changes.
test('the build ends with 0, and says nothing', () => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [rootFile('scripts/build.mjs')], { encoding: 'utf8' });
  assert.deepEqual({ status, stdout, stderr }, { status: 0, stdout: '', stderr: '' });
});
