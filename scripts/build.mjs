// npm run build: set-up, type check, systemd/*.env, then both bundles.
//   --bundle   the bundles alone, without the type check
import { bundle, compile } from './compile.mjs';
import { writeEnvFiles } from './env-files.mjs';
import { setup } from './setup.mjs';

setup();
if (!process.argv.includes('--bundle')) {
  await compile();
  await writeEnvFiles();
}
await bundle();
