import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { skipHere } from './installed.ts';

export interface Certificate {
  /** The file of the authority that signed it, as PEM. */
  readonly authorityFile: string;
  readonly cert: string;
  readonly key: string;
  readonly certFile: string;
  /** With mode 0400. */
  readonly keyFile: string;
}

/** Signs certificates for the names that it is given, as openssl writes them: `DNS:localhost,IP:127.0.0.1`. */
export interface Authority {
  readonly file: string;
  issue(names: string): Certificate;
}

/**
 * A certificate for localhost and 127.0.0.1 out of an authority made for this test. Undefined where there is no
 * openssl, after the test was skipped; with CI=true that is a failure.
 */
export function certificate(context: TestContext): Certificate | undefined {
  return authority(context)?.issue('DNS:localhost,IP:127.0.0.1');
}

/** An authority made for this test; undefined as {@link certificate}. */
export function authority(context: TestContext): Authority | undefined {
  if (spawnSync('openssl', ['version']).status !== 0) {
    return skipHere(context, "'openssl' is missing: apt-get install openssl");
  }
  const folder = mkdtempSync(join(tmpdir(), 'sysmon-certificates-'));
  context.after(() => rmSync(folder, { recursive: true }));
  const file = (name: string) => join(folder, name);
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  openssl('req', '-x509', ...newKey, '-keyout', file('ca.key'), '-out', file('ca.pem'), '-subj', '/CN=authority');
  let count = 0;
  return {
    file: file('ca.pem'),
    issue(names) {
      const own = (name: string) => file(`${name}${count}`);
      count++;
      writeFileSync(own('names'), `subjectAltName=${names}\n`);
      openssl('req', ...newKey, '-keyout', own('key'), '-out', own('csr'), '-subj', '/CN=localhost');
      const signer = ['-CA', file('ca.pem'), '-CAkey', file('ca.key'), '-CAcreateserial'];
      openssl('x509', '-req', '-in', own('csr'), ...signer, '-extfile', own('names'), '-out', own('cert'));
      chmodSync(own('key'), 0o400);
      const [certFile, keyFile] = [own('cert'), own('key')];
      const [cert, key] = [readFileSync(certFile, 'utf8'), readFileSync(keyFile, 'utf8')];
      return { authorityFile: file('ca.pem'), cert, key, certFile, keyFile };
    },
  };
}

function openssl(...args: string[]): void {
  const { status, stderr } = spawnSync('openssl', args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`openssl ${args[0]} failed: ${stderr}`);
}
