import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';

export interface Certificate {
  /** The file of the authority that signed it, as PEM. */
  readonly authorityFile: string;
  readonly cert: string;
  readonly key: string;
}

/**
 * A certificate for localhost and 127.0.0.1 out of an authority made for this test. Undefined where there is no
 * openssl, after the test was skipped; with CI=true that is a failure.
 */
export function certificate(context: TestContext): Certificate | undefined {
  if (spawnSync('openssl', ['version']).status !== 0) {
    if (process.env.CI === 'true') throw new Error("'openssl' is missing: apt-get install openssl");
    context.skip('no openssl: apt-get install openssl');
    return undefined;
  }
  const folder = mkdtempSync(join(tmpdir(), 'sysmon-certificates-'));
  context.after(() => rmSync(folder, { recursive: true }));
  const file = (name: string) => join(folder, name);
  writeFileSync(file('names'), 'subjectAltName=DNS:localhost,IP:127.0.0.1\n');
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  openssl('req', '-x509', ...newKey, '-keyout', file('ca.key'), '-out', file('ca.pem'), '-subj', '/CN=authority');
  openssl('req', ...newKey, '-keyout', file('key'), '-out', file('csr'), '-subj', '/CN=localhost');
  const authority = ['-CA', file('ca.pem'), '-CAkey', file('ca.key'), '-CAcreateserial'];
  openssl('x509', '-req', '-in', file('csr'), ...authority, '-extfile', file('names'), '-out', file('cert'));
  return {
    authorityFile: file('ca.pem'),
    cert: readFileSync(file('cert'), 'utf8'),
    key: readFileSync(file('key'), 'utf8'),
  };
}

function openssl(...args: string[]): void {
  const { status, stderr } = spawnSync('openssl', args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`openssl ${args[0]} failed: ${stderr}`);
}
