import { duration } from '../../runtime/option-parsers.ts';
import { durationText, plural } from '../../runtime/words.ts';
import { DatabaseError } from '../delivery/receipts.ts';
import type { DatabaseKind, QueryApi } from './query-api.ts';

/** What a database answers to `sysmon-server check`. */
export interface CheckedPrometheus {
  /** Sentences without an end, for a person. */
  readonly notes: readonly string[];
  /** What has to be corrected, with what to do. */
  readonly errors: readonly string[];
}

/** Asks whether the database answers, what it is, and whether its configuration suits this server. */
export async function checkPrometheus(
  api: QueryApi,
  {
    scraper,
    windowMs,
    sendsSecret,
  }: { readonly scraper: string; readonly windowMs: number; readonly sendsSecret: boolean },
): Promise<CheckedPrometheus> {
  const notes: string[] = [];
  const errors: string[] = [];
  const { hostname, protocol } = new URL(api.url);
  if (sendsSecret && protocol === 'http:' && !/^(?:127\..*|localhost|\[::1\])$/.test(hostname)) {
    errors.push('its token or password is sent without TLS: use https');
  }
  try {
    const kind = await api.kind();
    const { numbers } = await api.ask({ scraper, serverId: undefined, backMs: answersBackMs, hasProbe: false });
    notes.push(
      `it is ${kind.program || 'not known by name'}${kind.version === '' ? '' : ` ${kind.version}`}`,
      numbers.size === 0
        ? 'it has no answer of the last 5 min yet'
        : `it has ${plural(numbers.size, 'answer')} of the last 5 min`,
    );
    const config = await api.config();
    if (config === undefined) notes.push('it does not show its configuration');
    else checkConfig(config, kind, { scraper, windowMs }, { notes, errors });
  } catch (error) {
    if (!(error instanceof DatabaseError)) throw error;
    errors.push(error.message);
  }
  return { notes, errors };
}

/** The configuration as the program prints it: YAML, a key a line. */
function checkConfig(
  config: string,
  { program }: DatabaseKind,
  { scraper, windowMs }: { readonly scraper: string; readonly windowMs: number },
  { notes, errors }: { readonly notes: string[]; readonly errors: string[] },
): void {
  const outOfOrder = /^ *out_of_order_time_window: *(\S+)$/m.exec(config)?.[1];
  const outOfOrderMs = outOfOrder === undefined ? 0 : parseDuration(outOfOrder);
  const leastMs = windowMs + outOfOrderMarginMs;
  if (outOfOrderMs > 0 && outOfOrderMs < leastMs) {
    errors.push(
      `its out_of_order_time_window is ${outOfOrder}: set none, or at least ${durationText(leastMs)}, which is --window and 15m`,
    );
  } else if (program === 'Prometheus' && outOfOrderMs === 0 && windowMs > windowMsWithoutOutOfOrder) {
    errors.push(`it has no out_of_order_time_window: with this --window set it to at least ${durationText(leastMs)}`);
  }
  const jobs = config.split(/^ *- job_name: */m).slice(1);
  const job = jobs.find((each) =>
    new RegExp(`^ *scraper: *(?:\\n *- *|\\[ *)["']?${escaped(scraper)}["']? *\\]?$`, 'm').test(each),
  );
  if (job === undefined) return void notes.push(`none of its jobs has params: {scraper: [${scraper}]}`);
  const name = /^\S+/.exec(job)?.[0] ?? '';
  const honors = /^ *honor_timestamps: *(true|false)$/m.exec(job)?.[1];
  if (honors === 'false' || (honors === undefined && program === 'VictoriaMetrics')) {
    errors.push(`its job ${name} ignores timestamps: set honor_timestamps: true`);
  }
  const limits = [...job.matchAll(/^ *(\w+_limit): *([1-9]\S*)$/gm)].map(([, key, value]) => `${key} ${value}`);
  if (limits.length > 0)
    notes.push(`its job ${name} has ${limits.join(' and ')}, which a catch-up may exceed at first`);
}

const escaped = (text: string): string => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');

function parseDuration(text: string): number {
  try {
    return duration()(text);
  } catch {
    // `1y` is longer than any window.
    return Infinity;
  }
}

const answersBackMs = 5 * 60_000;
const outOfOrderMarginMs = 15 * 60_000;
const windowMsWithoutOutOfOrder = 30 * 60_000;
