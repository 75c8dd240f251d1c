import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { CodedError } from '../../runtime/coded-error.ts';
import { readSecretFile, SecretFileError } from '../../runtime/secret-file.ts';
import { reasonOf } from '../../runtime/words.ts';
import type { Access } from './bounded-get.ts';

/** Where the database of a scraper answers, and by which files it is asked. */
export interface PrometheusSettings {
  /** The scraper's name, as it is shown. */
  readonly scraper: string;
  readonly url: string;
  readonly tokenFile: string | undefined;
  readonly user: string | undefined;
  readonly passwordFile: string | undefined;
  readonly caFile: string | undefined;
}

/** A file that cannot be used; the message names it. */
export class AccessError extends CodedError<'unreadable' | 'format'> {
  override readonly name = 'AccessError';
}

/** What the files hold now. Throws an {@link AccessError}. */
export function readAccess({ tokenFile, user, passwordFile, caFile }: PrometheusSettings): Access {
  let authorization: string | undefined;
  if (tokenFile !== undefined) authorization = `Bearer ${readSecret(tokenFile)}`;
  if (user !== undefined) {
    const password = passwordFile === undefined ? '' : readSecret(passwordFile);
    authorization = `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`;
  }
  return { authorization, ca: caFile === undefined ? undefined : readCa(caFile) };
}

/** One line, which an HTTP header can hold. */
function readSecret(path: string): string {
  let text: string;
  try {
    text = readSecretFile(path).trim();
  } catch (error) {
    const why = error instanceof SecretFileError ? error.message : `'${path}': ${reasonOf(error)}`;
    throw new AccessError('unreadable', why, { cause: error });
  }
  if (!/^[\x20-\x7e]{1,4096}$/.test(text)) {
    throw new AccessError('format', `'${path}': expected one line of at most 4096 printable ASCII characters`);
  }
  return text;
}

function readCa(path: string): string {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw new AccessError('unreadable', `'${path}': ${reasonOf(error)}`, { cause: error });
  }
  const certificates = text.match(/-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g) ?? [];
  try {
    if (certificates.length === 0) throw new Error('it has none');
    for (const each of certificates) new X509Certificate(each);
  } catch (error) {
    throw new AccessError('format', `'${path}': expected certificates in PEM: ${reasonOf(error)}`, { cause: error });
  }
  return text;
}
