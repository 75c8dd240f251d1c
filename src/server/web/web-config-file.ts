import { constants } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { createSecureContext, type TlsOptions } from 'node:tls';
import { type Clock, runEvery } from '../../runtime/clock.ts';
import type { Log } from '../../runtime/log.ts';
import { readSecretFile } from '../../runtime/secret-file.ts';
import { codeOf, plural, reasonOf } from '../../runtime/words.ts';
import {
  noWebConfigText,
  parseWebConfig,
  type TextOrFile,
  type TlsText,
  WebConfigError,
  type WebConfigText,
} from './web-config.ts';

/** The HTTP port's configuration, with what its files hold. Another one is another object. */
export interface WebConfig extends Omit<WebConfigText, 'tls'> {
  readonly tls: WebTls | undefined;
  /** All that it was read from. */
  readonly files: readonly string[];
}

export interface WebTls extends Pick<TlsText, 'clientAuth' | 'allowedSans'> {
  readonly options: TlsOptions;
}

/** Without a file: no TLS, and nobody has to say who they are. */
export const noWebConfig: WebConfig = { ...noWebConfigText, tls: undefined, files: [] };

/** `by TLS with client certificates and passwords (2 users)` */
export function webConfigText({ tls, users }: WebConfig): string {
  const by: string[] = [];
  if (tls?.clientAuth.startsWith('Require')) by.push('client certificates');
  if (users.size > 0) by.push(`passwords (${plural(users.size, 'user')})`);
  const how = tls === undefined ? 'without TLS' : 'by TLS';
  return `${how}${by.length > 0 ? ` with ${by.join(' and ')}` : ''}`;
}

/** Reads the file and those that it names. Throws a {@link WebConfigError}, or a SecretFileError. */
export function readWebConfig(path: string): WebConfig {
  const text = parsed(path);
  // As key files: what others can read or change is refused.
  if (text.hasSecrets) readSecretFile(path);
  const files = [path];
  const read = (source: TextOrFile, secret: boolean): string => {
    if (source.kind === 'text') return source.pem;
    const file = resolve(dirname(path), source.path);
    files.push(file);
    return secret ? readSecretFile(file) : readPlain(file);
  };
  const tls = text.tls && tlsOf(path, text.tls, read);
  return { ...text, tls, files };
}

function parsed(path: string): WebConfigText {
  try {
    return parseWebConfig(readPlain(path));
  } catch (error) {
    if (!(error instanceof WebConfigError) || error.code !== 'format') throw error;
    throw new WebConfigError('format', `'${path}', ${error.message}`, { cause: error });
  }
}

function readPlain(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    const reason = codeOf(error) === 'ENOENT' ? 'there is no such file' : reasonOf(error);
    throw new WebConfigError('unreadable', `'${path}': ${reason}`, { cause: error });
  }
}

function tlsOf(path: string, text: TlsText, read: (source: TextOrFile, secret: boolean) => string): WebTls {
  const { cert, key, clientCa, clientAuth, allowedSans, minVersion, maxVersion, honorCipherOrder } = text;
  const options: TlsOptions = {
    cert: read(cert, false),
    key: read(key, true),
    ...(clientCa === undefined ? {} : { ca: read(clientCa, false) }),
    ...{ minVersion, maxVersion, honorCipherOrder },
    ...(text.ciphers.length === 0 ? {} : { ciphers: [...new Set([...tls13Ciphers, ...text.ciphers])].join(':') }),
    ...(text.curves.length === 0 ? {} : { ecdhCurve: text.curves.join(':') }),
    // What has changed counts for every new connection: none goes on from an earlier one.
    secureOptions: constants.SSL_OP_NO_TICKET,
    ALPNProtocols: ['http/1.1'],
    requestCert: clientAuth !== 'NoClientCert',
    // The rest is looked at after the handshake, see secure.ts.
    rejectUnauthorized: clientAuth === 'RequireAndVerifyClientCert',
  };
  try {
    createSecureContext(options);
  } catch (error) {
    throw new WebConfigError('tls', `'${path}', tls_server_config: ${reasonOf(error)}`, { cause: error });
  }
  return { options, clientAuth, allowedSans };
}

// As in Go, where the list is for TLS 1.2 alone; Node turns TLS 1.3 off where none of these is named.
const tls13Ciphers = ['TLS_AES_256_GCM_SHA384', 'TLS_CHACHA20_POLY1305_SHA256', 'TLS_AES_128_GCM_SHA256'];

/** The present configuration: read again when one of its files has changed, or at a reload. */
export class WebConfigFile {
  readonly #path: string;
  readonly #log: Log;
  readonly #watch: { stop(): void };
  #current: WebConfig;
  /** Of the files as they were read last, and as they were seen last. */
  #readStamp: string;
  #seenStamp: string;
  #lastError = '';

  constructor(path: string, current: WebConfig, { clock, log }: { readonly clock: Clock; readonly log: Log }) {
    this.#path = path;
    this.#log = log;
    this.#current = current;
    this.#readStamp = stampOf(current.files);
    this.#seenStamp = this.#readStamp;
    this.#watch = runEvery(clock, lookEveryMs, () => this.#look());
  }

  get current(): WebConfig {
    return this.#current;
  }

  /** Reads it now. What is wrong leaves the present one in force, and is logged once. */
  reload(): void {
    this.#readStamp = stampOf(this.#current.files);
    this.#seenStamp = this.#readStamp;
    try {
      this.#current = readWebConfig(this.#path);
      // Its files may be others now.
      this.#readStamp = stampOf(this.#current.files);
      this.#seenStamp = this.#readStamp;
      this.#lastError = '';
      this.#log.info(`reloaded '${this.#path}': HTTP ${webConfigText(this.#current)}`);
      for (const notice of this.#current.notices) this.#log.info(`'${this.#path}': ${notice}`);
    } catch (error) {
      const reason = reasonOf(error);
      if (reason === this.#lastError) return;
      this.#lastError = reason;
      this.#log.error(`--web.config.file: ${reason}; keeping the present configuration and certificate`);
    }
  }

  stop(): void {
    this.#watch.stop();
  }

  /** A file is read when it has been the same at two looks: it may be being written. */
  #look(): void {
    const stamp = stampOf(this.#current.files);
    const isStill = stamp === this.#seenStamp;
    this.#seenStamp = stamp;
    if (isStill && stamp !== this.#readStamp) this.reload();
  }
}

function stampOf(files: readonly string[]): string {
  return files
    .map((file) => {
      try {
        const { dev, ino, size, mtimeMs, ctimeMs } = statSync(file);
        return `${dev} ${ino} ${size} ${mtimeMs} ${ctimeMs}`;
      } catch (error) {
        return codeOf(error);
      }
    })
    .join('\n');
}

const lookEveryMs = 2000;
