// npm run fuzz [-- --inputs N --seed S --first I]: set-up, build, then test/fuzz/main.ts with these options.
import { compile } from './compile.mjs';
import { root, run } from './lib.mjs';
import { setup } from './setup.mjs';

setup();
await compile();
run(process.execPath, ['--enable-source-maps', `${root}build/test/fuzz/main.js`, ...process.argv.slice(2)]);
