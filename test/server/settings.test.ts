import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readOptions } from '../../src/runtime/options.ts';
import { program } from '../../src/server/options.ts';
import { readSettings, type Settings } from '../../src/server/settings.ts';

function settings(...argv: string[]): Settings {
  return readSettings(readOptions(program, { argv: ['run', ...argv], env: {}, readFile: () => '' }));
}

test('a window of over 30 min needs an out-of-order window that is 15 min longer, and the error says why', () => {
  assert.equal(settings('--window=30m').windowMs, 30 * 60_000);
  const why =
    /'--window' is '24h' .*expected at most 30m, or --prometheus-out-of-order of at least 1d15m, .* its newest may be of another target/;
  assert.throws(() => settings('--window=24h'), why);
  assert.throws(() => settings('--window=24h', '--prometheus-out-of-order=24h'), why);
  assert.throws(() => settings('--window=24h', '--prometheus-out-of-order=24h14m59s'), why);
  assert.equal(settings('--window=24h', '--prometheus-out-of-order=24h15m').windowMs, 24 * 3_600_000);
});

test("the limits of a scrape job are the agents', where they are given", () => {
  assert.deepEqual(settings().labelBounds, { labels: 64, nameBytes: 128, valueBytes: 512 });
  const given = ['--label-limit=30', '--label-name-length-limit=100', '--label-value-length-limit=200'];
  assert.deepEqual(settings(...given).labelBounds, { labels: 30, nameBytes: 100, valueBytes: 200 });
  const wide = ['--label-limit=100', '--label-name-length-limit=500', '--label-value-length-limit=1000'];
  assert.deepEqual(settings(...wide).labelBounds, settings().labelBounds, 'no wider than those of the protocol');
});
