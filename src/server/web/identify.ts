import { type AgentId, agentId } from '../../model/agent-id.ts';
import { type ScraperName, scraperText } from '../delivery/scraper.ts';

/**
 * Who requests `/metrics`, and what the answer may hold: by this request, and by what the same connection has carried
 * before.
 */

/** A request. Header names are in lower case. */
export interface RequestFacts {
  readonly method: string;
  /** What follows the `?`. */
  readonly query: string;
  readonly headers: Readonly<Record<string, string | readonly string[] | undefined>>;
  /** Of the peer, without its port. */
  readonly address: string;
  /** `1.0` or `1.1`. */
  readonly httpVersion: string;
  /** The user that the request has proved, if any. */
  readonly user?: string;
}

/** A request for metrics, understood. */
export interface Identified {
  readonly scraper: ScraperName;
  readonly program: Program;
  /** The agents that are selected, in order and each once; none: all. */
  readonly agents: readonly AgentId[];
  readonly given: Given;
  /** How long the scraper waits for the answer; undefined if unknown. */
  readonly timeoutMs: number | undefined;
  /** `max=`. */
  readonly samplesMax: number | undefined;
  /** `max-bytes=`, or what this program reads. */
  readonly textBytesMax: number | undefined;
}

/** A wrong request: the answer is 400 with this text. */
export interface Misunderstood {
  readonly wrong: string;
}

export interface Program {
  readonly name: string;
  /** Empty if unknown. */
  readonly version: string;
}

/** What an answer may hold, and why. */
export type Given =
  /** Reports with their timestamps, each once: many of an agent in one answer, or one of each. */
  | { readonly kind: 'reports'; readonly reports: 'many' | 'one'; readonly why: string }
  /** The newest values, without timestamps. The server remembers nothing of it. */
  | { readonly kind: 'newest'; readonly why: string };

export function identify(request: RequestFacts): Identified | Misunderstood {
  const parameters = parametersOf(request.query);
  if ('wrong' in parameters) return parameters;
  const row = programRow(header(request, 'user-agent'));
  const timeoutMs = scrapeTimeoutMs(header(request, 'x-prometheus-scrape-timeout-seconds'));
  return {
    scraper: nameOf(request, parameters.scraper),
    program: row.program,
    agents: parameters.agents,
    given: givenTo(request, { row, parameters, timeoutMs }),
    timeoutMs,
    samplesMax: parameters.samplesMax,
    textBytesMax: parameters.textBytesMax ?? row.textBytesMax,
  };
}

function nameOf({ user, address }: RequestFacts, given: string | undefined): ScraperName {
  if (given !== undefined) return { space: 'param', text: given };
  return user === undefined ? { space: 'addr', text: address } : { space: 'user', text: user };
}

function givenTo(
  { method }: RequestFacts,
  asked: { readonly row: ProgramRow; readonly parameters: Parameters; readonly timeoutMs: number | undefined },
): Given {
  const { row, parameters, timeoutMs } = asked;
  if (method === 'HEAD') return { kind: 'newest', why: 'a HEAD request' };
  if (timeoutMs === undefined) return { kind: 'newest', why: 'no X-Prometheus-Scrape-Timeout-Seconds header' };
  if (parameters.timestamps === false) return { kind: 'newest', why: 'timestamps=0' };
  if (row.keeps === 'newest' && parameters.timestamps === undefined) return { kind: 'newest', why: row.why };
  if (parameters.reports !== undefined) {
    return { kind: 'reports', reports: parameters.reports, why: `reports=${parameters.reports}` };
  }
  if (row.keeps === 'many') return { kind: 'reports', reports: 'many', why: row.why };
  return { kind: 'reports', reports: 'one', why: 'timestamps=1 without reports=many' };
}

const header = ({ headers }: RequestFacts, name: string): string => String(headers[name] ?? '');

function scrapeTimeoutMs(text: string): number | undefined {
  const seconds = text === '' ? Number.NaN : Number(text);
  return seconds > 0 && seconds <= 3600 ? seconds * 1000 : undefined;
}

// Programs, by their User-Agent.

interface ProgramRow {
  readonly program: Program;
  /** What it keeps of an answer with timestamps: many samples of a series, or unknown, so it gets the newest values. */
  readonly keeps: 'many' | 'newest';
  readonly why: string;
  readonly textBytesMax: number | undefined;
}

interface ProgramKind {
  readonly name: string;
  /** Its first group is the version. */
  readonly userAgent: RegExp;
  /** Of the versions, where not all are alike. */
  readonly versions?: (version: readonly number[]) => boolean;
  readonly keeps: ProgramRow['keeps'];
  readonly why: string;
  readonly textBytesMax?: number;
}

const keepsAll = 'it keeps every sample with its timestamp';

// Its -promscrape.maxScrapeSize is 16 MiB by default; an answer beyond it is read and thrown away.
const victoriaTextBytesMax = 12 * 1024 * 1024;

/** The first that fits counts. */
const programKinds: readonly ProgramKind[] = [
  {
    name: 'Prometheus',
    // https://github.com/prometheus/prometheus/issues/14503, fixed in 2.53.3 and 2.54.1
    userAgent: /^Prometheus\/v?(\d+\.\d+\.\d+\S*)/,
    versions: (version) => isBetween(version, [2, 52, 0], [2, 53, 2]) || isBetween(version, [2, 54, 0], [2, 54, 0]),
    keeps: 'newest',
    why: 'this version keeps only the first sample of a series in a scrape: upgrade to 2.53.3, or 2.54.1 or later',
  },
  {
    name: 'Prometheus',
    // Without a version it is another program that scrapes with a part of Prometheus.
    userAgent: /^Prometheus\/v?(\d+\.\d+\.\d+\S*)/,
    keeps: 'many',
    why: keepsAll,
  },
  { name: 'Alloy', userAgent: /^Alloy\/?(\S*)/, keeps: 'many', why: keepsAll },
  { name: 'GrafanaAgent', userAgent: /^GrafanaAgent\/?(\S*)/, keeps: 'many', why: keepsAll },
  {
    name: 'vm_promscrape',
    userAgent: /^vm_promscrape\/?(\S*)/,
    keeps: 'newest',
    why: 'VictoriaMetrics and vmagent ignore timestamps by default: set honor_timestamps: true there, and timestamps=1 and reports=many in its URL',
    textBytesMax: victoriaTextBytesMax,
  },
  {
    name: 'otelcol',
    userAgent: /^otelcol(?:-[\w-]+)?\/?(\S*)/,
    keeps: 'newest',
    why: 'OpenTelemetry collectors are not known to keep old samples: timestamps=1 gives them one report of each agent an answer',
  },
];

const unknownWhy =
  'this program is not known to keep timestamps: timestamps=1 gives it one report of each agent an answer';

function programRow(userAgent: string): ProgramRow {
  for (const { name, userAgent: pattern, versions, keeps, why, textBytesMax } of programKinds) {
    const version = pattern.exec(userAgent)?.[1];
    if (version === undefined || versions?.(version.split(/[.+-]/, 3).map(Number)) === false) continue;
    return { program: { name, version: shortened(version) }, keeps, why, textBytesMax };
  }
  const [, name = '', version = ''] = /^([\w.-]+)(?:\/(\S*))?/.exec(userAgent) ?? [];
  return {
    program: { name: shortened(name) || 'unknown', version: shortened(version) },
    keeps: 'newest',
    why: unknownWhy,
    // After an answer of over 1 MiB, VictoriaMetrics 1.79 asks as `Go-http-client`.
    textBytesMax: victoriaTextBytesMax,
  };
}

const isBetween = (version: readonly number[], from: readonly number[], to: readonly number[]): boolean =>
  compare(version, from) >= 0 && compare(version, to) <= 0;

function compare(a: readonly number[], b: readonly number[]): number {
  return (a[0]! - b[0]!) * 1e8 + (a[1]! - b[1]!) * 1e4 + (a[2]! - b[2]!);
}

/** A peer's text for a label and a log line. */
const shortened = (text: string): string => text.replace(/[^\w.+~-]/g, '').slice(0, 32);

// Parameters.

interface Parameters {
  readonly scraper: string | undefined;
  readonly agents: readonly AgentId[];
  readonly timestamps: boolean | undefined;
  readonly reports: 'many' | 'one' | undefined;
  readonly samplesMax: number | undefined;
  readonly textBytesMax: number | undefined;
}

/** What each takes, in words and as a test. */
const parameterKinds: Readonly<
  Record<string, { readonly expected: string; readonly isRight: (value: string) => boolean }>
> = {
  scraper: { expected: '1 to 64 characters of A-Z a-z 0-9 . _ : -', isRight: (value) => namePattern.test(value) },
  agent: { expected: "an agent's name", isRight: (value) => agentId(value) !== undefined },
  timestamps: { expected: '0 or 1', isRight: (value) => value === '0' || value === '1' },
  reports: { expected: 'many or one', isRight: (value) => value === 'many' || value === 'one' },
  max: { expected: 'a whole number of samples, 1 to 10000000', isRight: (value) => isCount(value, 10_000_000) },
  'max-bytes': {
    expected: 'a whole number of bytes of text, 1 to 1073741824',
    isRight: (value) => isCount(value, 1024 ** 3),
  },
};

const parametersText = `/metrics takes ${Object.keys(parameterKinds).join(', ')}; only agent may be repeated`;

/** Unknown parameters are refused: a misspelt name would consume samples of another cursor. */
function parametersOf(query: string): Parameters | Misunderstood {
  const values = new Map<string, string[]>();
  for (const [name, value] of new URLSearchParams(query)) {
    const kind = Object.hasOwn(parameterKinds, name) ? parameterKinds[name] : undefined;
    if (kind === undefined) return { wrong: `unknown parameter '${name.slice(0, 40)}': ${parametersText}` };
    if (!kind.isRight(value)) return { wrong: `${name}=${value.slice(0, 40)}: expected ${kind.expected}` };
    const before = values.get(name);
    if (before === undefined) values.set(name, [value]);
    else if (name === 'agent') before.push(value);
    else return { wrong: `${name} is given twice: ${parametersText}` };
  }
  const one = (name: string): string | undefined => values.get(name)?.[0];
  const count = (name: string): number | undefined => (values.has(name) ? Number(one(name)) : undefined);
  const timestamps = one('timestamps');
  return {
    scraper: one('scraper'),
    // Each has passed the test above.
    agents: [...new Set(values.get('agent'))].sort().map((name) => agentId(name)!),
    timestamps: timestamps === undefined ? undefined : timestamps === '1',
    reports: one('reports') as Parameters['reports'],
    samplesMax: count('max'),
    textBytesMax: count('max-bytes'),
  };
}

const namePattern = /^[A-Za-z0-9._:-]{1,64}$/;
const isCount = (text: string, max: number): boolean => /^[1-9][0-9]{0,15}$/.test(text) && Number(text) <= max;

// Proxies.

/** The earlier requests of a connection. */
export interface ConnectionPast {
  readonly userAgents: ReadonlySet<string>;
  /** Names in the order of their last use. */
  readonly scrapers: readonly string[];
  /** By scraper and selection, in the order of their last use. */
  readonly asked: ReadonlyMap<string, Asked>;
}

interface Asked {
  readonly atMs: number;
  /** Of each of the last requests: whether it came before the time-out of the one before was over. */
  readonly wereEarly: readonly boolean[];
}

export const nothingPast: ConnectionPast = { userAgents: new Set(), scrapers: [], asked: new Map() };

/** A request on a connection. */
export interface ConnectionRequest {
  readonly request: RequestFacts;
  /** As they were written. */
  readonly headerNames: readonly string[];
  readonly identified: Identified;
  /** On the monotonic clock. */
  readonly nowMs: number;
}

/**
 * The past with this request, and the sign of an HTTP proxy, if there is one. A proxy reads answers that its own client may
 * never read, so a next request on its connection proves nothing.
 */
export function withRequest(
  past: ConnectionPast,
  { request, headerNames, identified, nowMs }: ConnectionRequest,
): { readonly past: ConnectionPast; readonly proxy: string | undefined } {
  const { agents, timeoutMs = 0 } = identified;
  const userAgent = header(request, 'user-agent');
  const scraper = scraperText(identified.scraper);
  const key = `${scraper} ${agents.join(',')}`;
  const before = past.asked.get(key);
  const wereEarly = before === undefined ? [] : [...before.wereEarly, nowMs - before.atMs < timeoutMs * 0.8];
  const asked: Asked = { atMs: nowMs, wereEarly: wereEarly.slice(-earlyKept) };
  const others = [...past.asked].filter(([each]) => each !== key);
  return {
    past: {
      userAgents: new Set([...past.userAgents, userAgent].slice(-namesKept)),
      scrapers: [...past.scrapers.filter((name) => name !== scraper), scraper].slice(-namesKept),
      asked: new Map([...others, [key, asked] as const].slice(-namesKept)),
    },
    proxy: proxySign(request, headerNames) ?? sharedSign(past, { userAgent, scraper, asked }),
  };
}

/** By a request alone. */
function proxySign(request: RequestFacts, headerNames: readonly string[]): string | undefined {
  const named = ['via', 'x-forwarded-for', 'forwarded'].find((name) => request.headers[name] !== undefined);
  if (named !== undefined) return `a header ${proxyHeaders[named]}`;
  if (!/^Prometheus\//.test(header(request, 'user-agent'))) return undefined;
  if (request.httpVersion === '1.0') return 'HTTP/1.0 from a Prometheus';
  // HAProxy and Envoy write them so.
  return headerNames.includes('user-agent') ? 'names of headers in lower case from a Prometheus' : undefined;
}

/** Several share one connection. */
function sharedSign(
  past: ConnectionPast,
  { userAgent, scraper, asked }: { userAgent: string; scraper: string; asked: Asked },
): string | undefined {
  if (past.userAgents.size > 0 && !past.userAgents.has(userAgent)) return 'two programs on one connection';
  // A new name is a Prometheus whose configuration has changed; back to an earlier one means that there are two.
  const isBack = past.scrapers.includes(scraper) && past.scrapers.at(-1) !== scraper;
  if (isBack) return 'two names in turns on one connection';
  // No scrape_timeout is longer than its scrape_interval. After a reload one scrape may come early.
  const isOften = asked.wereEarly.filter((early) => early).length >= earlyMost;
  return isOften ? 'more scrapes on one connection than their time-out allows one Prometheus' : undefined;
}

const proxyHeaders: Readonly<Record<string, string>> = {
  via: 'Via',
  'x-forwarded-for': 'X-Forwarded-For',
  forwarded: 'Forwarded',
};
const namesKept = 8;
const earlyKept = 8;
const earlyMost = 4;

/** Whether an answer may be compressed: `gzip;q=0` is no. */
export function acceptsGzip(acceptEncoding: string): boolean {
  const weights = new Map<string, number>();
  for (const each of acceptEncoding.toLowerCase().split(',')) {
    const [coding = '', ...parameters] = each.split(';').map((part) => part.trim());
    const q = parameters.find((parameter) => parameter.startsWith('q='));
    weights.set(coding, q === undefined ? 1 : Number(q.slice(2)));
  }
  return (weights.get('gzip') ?? weights.get('*') ?? 0) > 0;
}
