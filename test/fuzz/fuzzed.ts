import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { protocolErrorCodes } from '../../src/protocol/errors.ts';
import { levels } from './inputs.ts';
import { fuzzWire } from './wire.ts';

/** `count` spoilt connections are read or refused, and nothing else happens. The seed is another one each time, and printed. */
export function assertFuzzed(context: TestContext, count: number): void {
  const seed = process.env['SEED'] ?? `${Date.now()}`;
  context.diagnostic(`npm run fuzz -- --seed ${seed} --inputs ${count}`);
  const result = fuzzWire({ seed, first: 0, count });
  for (const [outcome, times] of result.outcomes) context.diagnostic(`${outcome}: ${times}`);

  // A fuzzer that only ever sees one kind of refusal would find nothing. The other codes are the connection's.
  const ofConnections = ['hello-timeout', 'silent', 'replaced', 'busy', 'name-taken', 'revoked', 'internal', 'clock'];
  for (const code of protocolErrorCodes) {
    if (!ofConnections.includes(code))
      assert.ok((result.outcomes.get(code) ?? 0) > count / 5000, `few were refused as ${code}`);
  }
  assert.ok((result.outcomes.get('taken') ?? 0) > count / 50, 'few were read to their end');
  for (const level of levels) assert.ok((result.levels.get(level) ?? 0) > count / 10);
  assert.ok(result.heapGrownBytes < 8 * 1024 * 1024, `the heap has grown by ${result.heapGrownBytes} bytes`);
}
