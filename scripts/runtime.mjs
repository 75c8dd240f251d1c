// The Node.js that a release brings, for hosts whose own is missing or too old.
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fail, root, run } from './lib.mjs';

/** The LTS, as npm's packages carry it; a newer one is a new version and new hashes here. */
export const runtime = {
  version: '24.21.0',
  integrity: {
    x64: 'sha512-3nULszZ5X0fciYpG0t6TrdApJzAn8+FlINP6OiMX7V8HrvpATPN936U1LlReOJriLRa4e8yEqQBYCnLyPNAs7Q==',
    arm64: 'sha512-FpJRPEz2OvvTLfjIOlNGFY9JLPMKgl5m+d4oGYBLg24kJ1mmvN1Zl/HPJgF4HDaJ51ISev1l1cRZ/DM+keXW5g==',
  },
  /** What Debian calls the libraries that it needs, see `readelf -d` and `objdump -T`. */
  debianDepends: 'libc6 (>= 2.28), libgcc-s1 (>= 3.0), libstdc++6 (>= 7)',
};

export const architectures = Object.keys(runtime.integrity);

const cache = join(root, 'var/cache');

/** Puts the program and its licence, out of npm's package, into a folder; what is in the cache is verified each time. */
export function addRuntime(architecture, folder) {
  const name = `node-linux-${architecture}`;
  const file = join(cache, `${name}-${runtime.version}.tgz`);
  if (!existsSync(file)) {
    mkdirSync(cache, { recursive: true });
    run('npm', ['pack', '--silent', '--pack-destination', cache, `${name}@${runtime.version}`], {
      stdio: ['ignore', 'ignore', 'inherit'],
    });
  }
  const wanted = runtime.integrity[architecture];
  const found = `sha512-${createHash('sha512').update(readFileSync(file)).digest('base64')}`;
  if (found !== wanted) {
    rmSync(file);
    fail(
      `'${name}@${runtime.version}' is not what it was: its integrity is ${found}, expected ${wanted}; it was removed`,
    );
  }
  run('tar', ['-xzf', file, '-C', folder, '--strip-components=1', 'package/LICENSE']);
  run('tar', ['-xzf', file, '-C', folder, '--strip-components=2', 'package/bin/node']);
}
