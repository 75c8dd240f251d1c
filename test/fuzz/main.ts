// npm run fuzz [-- --inputs N --seed S --first I]: spoilt connections until one of them does what it must not.
import { parseArgs } from 'node:util';
import { fuzzWire } from './wire.ts';

const { values } = parseArgs({
  options: {
    inputs: { type: 'string', default: '1000000' },
    seed: { type: 'string', default: `${Date.now()}` },
    first: { type: 'string', default: '0' },
  },
});
const [inputs, first] = [whole('inputs', values.inputs), whole('first', values.first)];
const batch = 50_000;
console.log(`npm run fuzz -- --seed ${values.seed} --first ${first} --inputs ${inputs}`);
for (let done = 0; done < inputs; done += batch) {
  const count = Math.min(batch, inputs - done);
  const { outcomes } = fuzzWire({ seed: values.seed, first: first + done, count });
  console.log(`${done + count}: ${[...outcomes].map(([outcome, times]) => `${outcome} ${times}`).join(', ')}`);
}

function whole(name: string, text: string): number {
  if (/^\d{1,15}$/.test(text)) return Number(text);
  console.error(`--${name}: was '${text}', expected a whole number`);
  process.exit(2);
}
