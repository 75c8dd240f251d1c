import { printable } from '../../runtime/words.ts';
import { DatabaseError, type ScraperDatabase, type StoredAnswers, type StoredQuestion } from '../delivery/receipts.ts';
import { type Access, BoundedGet, type GetAnswer } from './bounded-get.ts';

/**
 * The query API of Prometheus and of what imitates it.
 * https://prometheus.io/docs/prometheus/latest/querying/api/
 */
export class QueryApi implements ScraperDatabase {
  readonly url: string;
  readonly #get: BoundedGet;
  /** Asked for again when it has been unreachable: it may be another one then. */
  #kind: DatabaseKind | undefined;
  /** The targets with whose labels answers were stored, of late: an address or a user does not show in a target's URL. */
  #storedFrom: ReadonlySet<TargetId> = new Set();

  /** The URL is that of the page, without userinfo, query or a slash at its end. */
  constructor(url: string, access: Access) {
    this.url = url;
    this.#get = new BoundedGet(url, access);
  }

  set access(access: Access) {
    this.#get.access = access;
  }

  async ask({ scraper, serverId, backMs, hasProbe }: StoredQuestion): Promise<StoredAnswers> {
    try {
      this.#kind ??= await this.kind();
      const server = serverId === undefined ? '' : `,server_id="${serverId}"`;
      const labels = `scraper=${JSON.stringify(scraper)}${server}`;
      const series = hasProbe
        ? `{__name__=~"sysmon_server_answer|sysmon_server_probe",${labels}}`
        : `sysmon_server_answer{${labels}}`;
      const query = `${series}[${Math.ceil(backMs / 1000)}s]`;
      // VictoriaMetrics leaves out the last half minute otherwise, and remembers that it was empty.
      const data = await this.#data('/api/v1/query', { query, latency_offset: '1ms', nocache: '1' });
      const { targets, ...stored } = storedOf(data);
      if (targets.size > 0) this.#storedFrom = targets;
      return { ...this.#kind, ...stored };
    } catch (error) {
      this.#kind = undefined;
      throw error;
    }
  }

  async lastError(urlName: string | undefined, selection: string): Promise<string | undefined> {
    try {
      const { activeTargets } = record(await this.#data('/api/v1/targets', { state: 'active' }), 'data');
      const named = list(activeTargets, 'activeTargets')
        .map(targetOf)
        .filter(({ url }) => isScrapedBy(url, urlName, selection));
      const own = named.filter(({ id }) => this.#storedFrom.has(id));
      // Before the first answer is stored, a name in the URL shows which it is, if only one has it.
      const isAlone = urlName !== undefined && named.length === 1;
      const found = (own.length === 0 && isAlone ? named : own).find(({ lastError }) => lastError !== '');
      return found === undefined ? undefined : clean(found.lastError);
    } catch (error) {
      if (error instanceof DatabaseError) return undefined;
      throw error;
    }
  }

  /** What answers there. Rejects with a {@link DatabaseError} if nothing does. */
  async kind(): Promise<DatabaseKind> {
    const path = '/api/v1/status/buildinfo';
    const answer = await this.#answer(path, {});
    // Each answer of VictoriaMetrics has it; its version is not said, or is a made-up one for Grafana.
    if (answer.headers['x-server-hostname'] !== undefined) {
      return { program: 'VictoriaMetrics', version: '', showsAfterMs: showsAfterMsOther };
    }
    if (answer.status === 404) return { program: '', version: '', showsAfterMs: showsAfterMsOther };
    const { application, version = '', goVersion } = record(dataOf(answer), 'data');
    const isPrometheus = application === undefined && goVersion !== undefined;
    return {
      program: clean(isPrometheus ? 'Prometheus' : String(application ?? '')),
      version: clean(String(version)),
      showsAfterMs: isPrometheus ? 0 : showsAfterMsOther,
    };
  }

  /** Its configuration in YAML; undefined where it does not show it. Rejects with a {@link DatabaseError}. */
  async config(): Promise<string | undefined> {
    const answer = await this.#answer('/api/v1/status/config', {});
    if (answer.status !== 200) return undefined;
    const { yaml } = record(dataOf(answer), 'data');
    return typeof yaml === 'string' ? yaml : undefined;
  }

  stop(): void {
    this.#get.stop();
  }

  async #data(path: string, query: Readonly<Record<string, string>>): Promise<unknown> {
    const answer = await this.#answer(path, query);
    if (answer.status === 404)
      throw new DatabaseError('refused', `it has no ${path}: is this the URL of a Prometheus?`);
    return dataOf(answer);
  }

  async #answer(path: string, query: Readonly<Record<string, string>>): Promise<GetAnswer> {
    const answer = await this.#get.get(path, query, { timeoutMs: askMsMax, bytesMax });
    const { status, headers } = answer;
    if (status >= 300 && status < 400) {
      const to = clean(String(headers.location ?? ''));
      throw new DatabaseError('refused', `it redirects to '${to}', which is not followed: give the URL that is meant`);
    }
    if (status === 401 || status === 403) {
      throw new DatabaseError(
        'refused',
        `it refuses the request (${status}): check its token, or its user and password`,
      );
    }
    return answer;
  }
}

export type DatabaseKind = Pick<StoredAnswers, 'program' | 'version' | 'showsAfterMs'>;

/** `data` of an answer of the API. Throws a {@link DatabaseError} with what it says instead. */
function dataOf({ status, text }: GetAnswer): unknown {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new DatabaseError('malformed', `its answer (${status}) is no JSON`, { cause: error });
  }
  const answer = record(json, 'the answer');
  if (answer['status'] === 'success') return answer['data'];
  throw new DatabaseError('refused', `it answers ${status}: ${clean(String(answer['error'] ?? 'no reason'))}`);
}

function storedOf(
  data: unknown,
): Pick<StoredAnswers, 'numbers' | 'probes'> & { readonly targets: ReadonlySet<TargetId> } {
  const { resultType, result } = record(data, 'data');
  if (resultType !== 'matrix') throw new DatabaseError('malformed', 'its answer is no matrix of samples');
  const numbers = new Set<number>();
  const probes = new Map<number, Set<number>>();
  const targets = new Set<TargetId>();
  for (const each of list(result, 'result')) {
    const { metric, values } = record(each, 'series');
    const { __name__: name, answer, ...labels } = record(metric, 'metric');
    targets.add(targetId(labels));
    for (const sample of list(values, 'values')) {
      const [seconds, value] = list(sample, 'sample');
      const number = Number(name === 'sysmon_server_probe' ? answer : value);
      if (!Number.isSafeInteger(number) || number <= 0) continue;
      if (name !== 'sysmon_server_probe') numbers.add(number);
      else probes.set(number, (probes.get(number) ?? new Set()).add(Math.round(Number(seconds) * 1000)));
    }
  }
  return { numbers, probes, targets };
}

/** A target by the labels that its samples have, too. */
type TargetId = string;

const targetId = ({ job, instance }: Record<string, unknown>): TargetId => JSON.stringify([job, instance]);

function targetOf(value: unknown): { readonly url: string; readonly id: TargetId; readonly lastError: string } {
  const { scrapeUrl, labels, lastError } = record(value, 'target');
  return {
    url: String(scrapeUrl),
    id: targetId(record(labels ?? {}, 'labels')),
    lastError: String(lastError ?? ''),
  };
}

/** Whether a target's URL has these agents and this name, or none. */
function isScrapedBy(url: string, name: string | undefined, selection: string): boolean {
  const parameters = new URLSearchParams(/\?(.*)$/s.exec(url)?.[1] ?? '');
  if (parameters.get('scraper') !== (name ?? null)) return false;
  return [...new Set(parameters.getAll('agent'))].sort().join(',') === selection;
}

function record(value: unknown, what: string): Record<string, unknown> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw new DatabaseError('malformed', `${what} of its answer is no object`);
}

function list(value: unknown, what: string): unknown[] {
  if (Array.isArray(value)) return value;
  throw new DatabaseError('malformed', `${what} of its answer is no list`);
}

/** Text of the other side for a log: short, printable, and without what may be a secret in a URL. */
function clean(text: string): string {
  return printable(text.replace(/:\/\/[^\s/@]*@/g, '://').slice(0, 300));
}

const askMsMax = 5000;
// Numbers of an hour, of a scrape each second for each of some selections; or some thousand targets.
const bytesMax = 16 * 1024 * 1024;
// Of VictoriaMetrics 1 to 5 s; what a Prometheus writes to elsewhere takes a while longer.
const showsAfterMsOther = 15_000;
