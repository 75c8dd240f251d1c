import { makePlan } from './plan.ts';
import { World } from './world.ts';

const seed = Number(process.argv[2] ?? 1);
const count = Number(process.argv[3] ?? 1);
const trace = process.env['TRACE'] === '1';
void makePlan;
let within = 0;
const reasons = new Map<string, number>();
const started = Date.now();
for (let s = seed; s < seed + count; s++) {
  const outcome = await new World({ seed: s, ...(trace ? { onTrace: (l: string) => console.log(l) } : {}) }).run();
  if (outcome.beyond.length === 0) within++;
  for (const r of outcome.beyond) reasons.set(r, (reasons.get(r) ?? 0) + 1);
  if (outcome.violations.length > 0 || count === 1)
    console.log(s, JSON.stringify({ ...outcome, missing: [...outcome.missing] }, null, 1));
}
console.log(`${within} of ${count} within, ${(Date.now() - started) / count} ms each`);
console.log([...reasons].sort((a, b) => b[1] - a[1]));
