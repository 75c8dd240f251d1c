import { validateHeaderValue } from 'node:http';
import { isIP } from 'node:net';
import { isAlias, isMap, isScalar, isSeq, LineCounter, type Node, parseDocument, type YAMLMap } from 'yaml';
import { CodedError } from '../../runtime/coded-error.ts';
import { reasonOf } from '../../runtime/words.ts';

/**
 * The file of `--web.config.file`, in the format of Prometheus's exporter-toolkit:
 * https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md
 * What cannot be done here is refused by its name and line, rather than passed over.
 */
export interface WebConfigText {
  readonly tls: TlsText | undefined;
  /** Added to every answer. */
  readonly headers: Readonly<Record<string, string>>;
  /** bcrypt hashes by user; none: nobody has to say who they are. */
  readonly users: ReadonlyMap<string, string>;
  /** The file itself holds what others must not read. */
  readonly hasSecrets: boolean;
  /** What is taken and has no effect. */
  readonly notices: readonly string[];
}

export interface TlsText {
  readonly cert: TextOrFile;
  readonly key: TextOrFile;
  readonly clientAuth: ClientAuth;
  readonly clientCa: TextOrFile | undefined;
  /** None: any. */
  readonly allowedSans: readonly string[];
  readonly minVersion: TlsVersion;
  readonly maxVersion: TlsVersion;
  /** As OpenSSL names them; none: Node's own. */
  readonly ciphers: readonly string[];
  readonly honorCipherOrder: boolean;
  readonly curves: readonly string[];
}

/** PEM, or the file that holds it, relative to the folder of this one. */
export type TextOrFile =
  | { readonly kind: 'text'; readonly pem: string }
  | { readonly kind: 'file'; readonly path: string };

export type ClientAuth = (typeof clientAuths)[number];
export type TlsVersion = 'TLSv1.2' | 'TLSv1.3';

export class WebConfigError extends CodedError<'unreadable' | 'format' | 'tls'> {
  override readonly name = 'WebConfigError';
}

export const noWebConfigText: WebConfigText = {
  ...{ tls: undefined, headers: {}, users: new Map(), hasSecrets: false, notices: [] },
};

/** The text as a configuration. Throws a {@link WebConfigError} that names the key and its line. */
export function parseWebConfig(text: string): WebConfigText {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const [error] = document.errors;
  if (error !== undefined) {
    throw new WebConfigError('format', `line ${lines.linePos(error.pos[0]).line}: ${error.message}`);
  }
  const { contents } = document;
  if (contents === null || (isScalar(contents) && contents.value === null)) return noWebConfigText;
  return readRoot(new Section('', contents, lines));
}

function readRoot(root: Section): WebConfigText {
  const tls = root.section('tls_server_config');
  const http = root.section('http_server_config');
  const users = readUsers(root.section('basic_auth_users'));
  const rateLimit = root.section('rate_limit');
  if (rateLimit !== undefined)
    throw rateLimit.wrong('is not supported: bounds of connections and answers are built in');
  root.end();
  const tlsText = tls && readTls(tls);
  const notices: string[] = [];
  const headers = http === undefined ? {} : readHttp(http, notices);
  const hasSecrets = users.size > 0 || tlsText?.key.kind === 'text';
  return { tls: tlsText, headers, users, hasSecrets, notices };
}

function readTls(section: Section): TlsText {
  const cert = textOrFile(section, 'cert');
  const key = textOrFile(section, 'key');
  const clientCa = textOrFile(section, 'client_ca');
  const clientAuth = section.choice('client_auth_type', clientAuths) ?? 'NoClientCert';
  const allowedSans = section.list('client_allowed_sans')?.map(plainSan) ?? [];
  const minVersion = versions[section.choice('min_version', versionNames) ?? 'TLS12'];
  const maxVersion = versions[section.choice('max_version', versionNames) ?? 'TLS13'];
  const ciphers = section.named('cipher_suites', cipherSuites) ?? [];
  const honorCipherOrder = section.boolean('prefer_server_cipher_suites') ?? true;
  const curves = section.named('curve_preferences', curveNames) ?? [];
  section.end();
  if (cert === undefined) throw section.wrong('needs cert_file');
  if (key === undefined) throw section.wrong('needs key_file');
  if (minVersion > maxVersion) throw section.wrong('has a min_version above its max_version');
  const verifies = clientAuth === 'RequireAndVerifyClientCert' || clientAuth === 'VerifyClientCertIfGiven';
  if (verifies && clientCa === undefined) throw section.wrong(`needs client_ca_file for ${clientAuth}`);
  if (clientCa !== undefined && clientAuth === 'NoClientCert') {
    throw section.wrong('has client_ca_file, but its client_auth_type asks for no certificate');
  }
  if (allowedSans.length > 0 && !clientAuth.startsWith('Require')) {
    throw section.wrong('has client_allowed_sans, which needs RequireAnyClientCert or RequireAndVerifyClientCert');
  }
  return {
    ...{ cert, key, clientAuth, clientCa, allowedSans },
    ...{ minVersion, maxVersion, ciphers, honorCipherOrder, curves },
  };
}

function textOrFile(section: Section, name: string): TextOrFile | undefined {
  const pem = section.string(name);
  const path = section.string(`${name}_file`);
  if (pem && path) throw section.wrong(`has both ${name} and ${name}_file`);
  if (pem) return { kind: 'text', pem };
  return path ? { kind: 'file', path } : undefined;
}

function readHttp(section: Section, notices: string[]): Record<string, string> {
  if (section.boolean('http2') === true)
    notices.push('http_server_config.http2 has no effect: this server speaks HTTP/1.1');
  const given = section.section('headers');
  section.end();
  const headers: Record<string, string> = {};
  for (const [name, values] of Object.entries(headerValues)) {
    const value = given?.string(name);
    if (given === undefined || value === undefined || value === '') continue;
    if (values !== undefined && !values.includes(value.toLowerCase())) {
      throw given.wrong(`'${name}' is '${value}': expected ${values.join(' or ')}`);
    }
    try {
      validateHeaderValue(name, value);
    } catch (error) {
      throw given.wrong(`'${name}': ${reasonOf(error)}`);
    }
    headers[name] = value;
  }
  given?.end();
  return headers;
}

function readUsers(section: Section | undefined): Map<string, string> {
  const users = new Map<string, string>();
  for (const name of section?.names() ?? []) {
    const hash = section!.string(name) ?? '';
    // The name is a label and stands in log lines; a colon cannot be in one (RFC 7617).
    if (!/^[^:\p{C}]{1,64}$/u.test(name))
      throw section!.wrong(`'${name}': a user has 1 to 64 characters, and no colon`);
    const cost = /^\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}$/.exec(hash)?.[1];
    if (cost === undefined)
      throw section!.wrong(`'${name}': expected a bcrypt hash, as 'htpasswd -nBC 10 ""' prints it`);
    if (Number(cost) < 4 || Number(cost) > bcryptCostMax) {
      throw section!.wrong(`'${name}': a cost of ${Number(cost)}: expected 4 to ${bcryptCostMax}`);
    }
    users.set(name, hash);
  }
  section?.end();
  return users;
}

/** IPv6 addresses have several spellings. */
export function plainSan(san: string): string {
  return isIP(san) === 6 ? new URL(`http://[${san}]`).hostname.slice(1, -1) : san;
}

// A check at 14 takes a second and a half, and a Prometheus waits for it once.
const bcryptCostMax = 14;

const clientAuths = [
  'NoClientCert',
  'RequestClientCert',
  'RequireAnyClientCert',
  'VerifyClientCertIfGiven',
  'RequireAndVerifyClientCert',
] as const;

const versions = { TLS12: 'TLSv1.2', TLS13: 'TLSv1.3' } as const;
const versionNames = Object.keys(versions) as (keyof typeof versions)[];

// Go's names (https://pkg.go.dev/crypto/tls#pkg-constants) and OpenSSL's.
const cipherSuites: Readonly<Record<string, string>> = {
  TLS_AES_128_GCM_SHA256: 'TLS_AES_128_GCM_SHA256',
  TLS_AES_256_GCM_SHA384: 'TLS_AES_256_GCM_SHA384',
  TLS_CHACHA20_POLY1305_SHA256: 'TLS_CHACHA20_POLY1305_SHA256',
  TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256: 'ECDHE-ECDSA-AES128-GCM-SHA256',
  TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384: 'ECDHE-ECDSA-AES256-GCM-SHA384',
  TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA: 'ECDHE-ECDSA-AES128-SHA',
  TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA: 'ECDHE-ECDSA-AES256-SHA',
  TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256: 'ECDHE-ECDSA-CHACHA20-POLY1305',
  TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256: 'ECDHE-RSA-AES128-GCM-SHA256',
  TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384: 'ECDHE-RSA-AES256-GCM-SHA384',
  TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA: 'ECDHE-RSA-AES128-SHA',
  TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA: 'ECDHE-RSA-AES256-SHA',
  TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256: 'ECDHE-RSA-CHACHA20-POLY1305',
};

const curveNames: Readonly<Record<string, string>> = {
  X25519: 'X25519',
  CurveP256: 'prime256v1',
  CurveP384: 'secp384r1',
  CurveP521: 'secp521r1',
};

// Those that the format allows; undefined: any value.
const headerValues: Readonly<Record<string, readonly string[] | undefined>> = {
  'Content-Security-Policy': undefined,
  'X-Frame-Options': ['deny', 'sameorigin'],
  'X-Content-Type-Options': ['nosniff'],
  'X-XSS-Protection': undefined,
  'Strict-Transport-Security': undefined,
};

/** A mapping of the file, whose keys are read one by one; {@link end} refuses those that nobody has read. */
class Section {
  readonly #path: string;
  readonly #node: Node;
  readonly #lines: LineCounter;
  readonly #values = new Map<string, { readonly line: number; readonly value: Node | null }>();
  readonly #read = new Set<string>();

  constructor(path: string, node: Node, lines: LineCounter) {
    this.#path = path;
    this.#node = node;
    this.#lines = lines;
    if (!isMap(node)) throw this.wrong('expected keys and values');
    for (const { key, value } of (node as YAMLMap<Node, Node | null>).items) {
      const line = this.#lineOf(key);
      if (!isScalar(key)) throw new WebConfigError('format', `line ${line}: expected a name before the colon`);
      if (isAlias(value)) throw new WebConfigError('format', `line ${line}: an alias: write the value itself`);
      this.#values.set(String(key.value), { line, value });
    }
  }

  names(): string[] {
    return [...this.#values.keys()];
  }

  string(name: string): string | undefined {
    return this.#scalar(name, 'a text', (value) => (typeof value === 'string' ? value : undefined));
  }

  boolean(name: string): boolean | undefined {
    return this.#scalar(name, 'true or false', (value) => (typeof value === 'boolean' ? value : undefined));
  }

  choice<T extends string>(name: string, choices: readonly T[]): T | undefined {
    const find = (value: unknown) => choices.find((each) => each === value);
    return this.#scalar(name, choices.join(', '), (value) => (value === '' ? choices[0] : find(value)));
  }

  list(name: string): string[] | undefined {
    const value = this.#take(name);
    if (value === undefined) return undefined;
    const texts = isSeq(value) ? value.items.map((item) => (isScalar(item) ? item.value : undefined)) : [undefined];
    if (!texts.every((text): text is string => typeof text === 'string')) throw this.#expected(name, 'a list of texts');
    return texts;
  }

  /** A list of names, each as `table` has it. */
  named(name: string, table: Readonly<Record<string, string>>): string[] | undefined {
    return this.list(name)?.map((text) => {
      if (Object.hasOwn(table, text)) return table[text]!;
      throw this.#expected(name, `${Object.keys(table).join(', ')}; '${text}' is not among them`);
    });
  }

  section(name: string): Section | undefined {
    const value = this.#take(name);
    return value && new Section(this.#pathOf(name), value, this.#lines);
  }

  end(): void {
    for (const [name, { line }] of this.#values) {
      if (!this.#read.has(name))
        throw new WebConfigError('format', `line ${line}: unknown key '${this.#pathOf(name)}'`);
    }
  }

  /** What is wrong with this section. */
  wrong(what: string): WebConfigError {
    const subject = this.#path === '' ? '' : `${this.#path} `;
    return new WebConfigError('format', `line ${this.#lineOf(this.#node)}: ${subject}${what}`);
  }

  #scalar<T>(name: string, expected: string, read: (value: unknown) => T | undefined): T | undefined {
    const value = this.#take(name);
    if (value === undefined) return undefined;
    const taken = isScalar(value) ? read(value.value) : undefined;
    if (taken === undefined) throw this.#expected(name, expected);
    return taken;
  }

  /** Undefined where the key is missing or has no value. */
  #take(name: string): Node | undefined {
    this.#read.add(name);
    const value = this.#values.get(name)?.value;
    return value == null || (isScalar(value) && value.value === null) ? undefined : value;
  }

  #expected(name: string, expected: string): WebConfigError {
    const line = this.#values.get(name)?.line ?? 0;
    return new WebConfigError('format', `line ${line}: '${this.#pathOf(name)}': expected ${expected}`);
  }

  #pathOf(name: string): string {
    return this.#path === '' ? name : `${this.#path}.${name}`;
  }

  #lineOf(node: Node | null): number {
    return node?.range == null ? 0 : this.#lines.linePos(node.range[0]).line;
  }
}
