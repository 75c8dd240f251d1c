import { makeBacklogPlan } from './backlog-plan.ts';
import { makePlan } from './plan.ts';
import { World } from './world.ts';

/**
 * Runs histories from the command line (`npm run simulate`): `FIRST STEP COUNT [--trace] [--backlog]`, the seeds FIRST,
 * FIRST + STEP and so on. Prints what was violated as it comes, and at the end one line of JSON.
 */
const [first, step, count] = process.argv.slice(2).map(Number);
const isTraced = process.argv.includes('--trace');
const planOf = process.argv.includes('--backlog') ? makeBacklogPlan : makePlan;
if (first === undefined || step === undefined || count === undefined || Number.isNaN(first + step + count)) {
  throw new Error('FIRST STEP COUNT were expected');
}

let within = 0;
let failed = 0;
let reports = 0;
const beyond: Record<string, number> = {};
const counts: Record<string, number> = {};
for (let at = 0; at < count; at++) {
  const seed = first + at * step;
  const onTrace = isTraced ? { onTrace: (line: string) => process.stdout.write(`${line}\n`) } : {};
  const outcome = await new World({ seed, plan: planOf(seed), ...onTrace }).run();
  if (outcome.beyond.length === 0) within++;
  for (const why of outcome.beyond) beyond[why] = (beyond[why] ?? 0) + 1;
  for (const [what, n] of Object.entries(outcome.counts)) counts[what] = (counts[what] ?? 0) + n;
  reports += outcome.reports;
  if (outcome.violations.length === 0) continue;
  failed++;
  process.stdout.write(
    `SEED=${seed} is violated${outcome.beyond.length > 0 ? ` (beyond: ${outcome.beyond.join('; ')})` : ''}\n`,
  );
  for (const violation of outcome.violations) process.stdout.write(`    ${violation}\n`);
}
process.stdout.write(`${JSON.stringify({ within, failed, reports, beyond, counts })}\n`);
if (failed > 0) process.exitCode = 1;
