import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { Optimizer } from '../../../src/agent/collect/optimizer.ts';

test('the optimizer is switched on once, by the first collection of a large host', () => {
  const flags: string[] = [];
  const optimizer = new Optimizer((flag) => flags.push(flag));
  for (const seriesCount of [500, 4999]) optimizer.suit(seriesCount);
  assert.deepEqual(flags, []);
  for (const seriesCount of [5000, 42_000, 500, 42_000]) optimizer.suit(seriesCount);
  assert.deepEqual(flags, ['--opt', '--heap-growing-percent=35']);
});

test('this Node.js takes the flag while it runs, and optimizes from then on', () => {
  const url = new URL('../../../src/agent/collect/optimizer.js', import.meta.url);
  const program = `
    import { Optimizer } from '${url}';
    function sum(count) { let sum = 0; for (let at = 0; at < count; at++) sum = (sum * 31 + at) | 0; return sum; }
    const isOptimized = () => {
      for (let round = 0; round < 2000; round++) sum(2000);
      return (%GetOptimizationStatus(sum) & 16) !== 0;
    };
    const before = isOptimized();
    new Optimizer().suit(42_000);
    await new Promise((resolve) => setTimeout(resolve, 50));
    console.log(before, isOptimized());
  `;
  const flags = ['--no-opt', '--no-concurrent-recompilation', '--allow-natives-syntax', '--input-type=module'];
  const { stdout, stderr } = spawnSync(process.execPath, [...flags, '-e', program], { encoding: 'utf8' });
  assert.equal(stdout, 'false true\n', stderr);
});
