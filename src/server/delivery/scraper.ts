import { createHash } from 'node:crypto';
import type { AgentId } from '../../model/agent-id.ts';
import type { StreamId } from '../../model/source.ts';
import type { AgentBatch } from '../exposition/exposition.ts';
import type { Gives } from './probe.ts';

/** Who scrapes. The same text in another space is another scraper: `scraper=10.0.0.5` is not who comes from there. */
export interface ScraperName {
  /** `scraper=NAME` of the URL, the authenticated user, or the client's address. */
  readonly space: 'param' | 'user' | 'addr';
  readonly text: string;
}

/** As it is shown: `prometheus-a`, `user/bob`, `addr/192.0.2.1`. No `scraper=NAME` has a `/` in it. */
export const scraperText = ({ space, text }: ScraperName): string => (space === 'param' ? text : `${space}/${text}`);

/** What {@link scraperText} shows, as a name again. */
export function scraperNameOf(text: string): ScraperName {
  const [, space, rest] = /^(user|addr)\/(.*)$/s.exec(text) ?? [];
  return rest === undefined ? { space: 'param', text } : { space: space as 'user' | 'addr', text: rest };
}

/**
 * A selection as the value of a label, and for people. A long one is named by its SHA-256: it stands in the answers to all
 * scrapers, and a job may refuse each for one long value. No agent's name has a blank.
 */
export function selectionText(selection: string): string {
  if (selection.length <= selectionTextMax) return selection;
  const hash = createHash('sha256').update(selection).digest('hex').slice(0, 12);
  return `${selection.split(',').length} agents, ${hash}`;
}

// The least that `--label-value-length-limit` may be.
const selectionTextMax = 64;

/** One connection over which scrapes come. Compared by identity. */
export interface ScrapeConnection {
  /** The client's address, without its port. */
  readonly address: string;
}

export interface ScrapeRequest {
  readonly name: ScraperName;
  /** The agents that the URL selects; empty: all. */
  readonly selection: readonly AgentId[];
  readonly connection: ScrapeConnection;
  /** What the scraper says in X-Prometheus-Scrape-Timeout-Seconds. */
  readonly timeoutMs: number;
  /** At most so many samples, whatever the scraper has been given before: `max`. */
  readonly samplesMax?: number | undefined;
  /** At most about so many bytes of text, before compression. */
  readonly bytesMax?: number | undefined;
  /** Its database takes the samples of a series in any order. */
  readonly takesAnyOrder?: boolean;
  /** At most so many reports of each agent: 1 for a scraper that keeps one sample of a series from an answer. */
  readonly reportsMax?: number | undefined;
}

/** Of each stream, a time: all up to it. */
export type Positions = ReadonlyMap<StreamId, number>;

/** What a scraper is given, with timestamps. Exactly one of `finish` and `abort` ends it; after the first, nothing does. */
export interface Scrape {
  readonly scraper: ScraperName;
  readonly batches: readonly AgentBatch[];
  /** Of each stream that it gives something new of: up to when. */
  readonly until: Positions;
  readonly samples: number;
  /** Memory of its reports: absent series take some, too. */
  readonly decodedBytes: number;
  /** Reports that were left for the next scrape. */
  readonly backlogReports: number;
  /** Reports that this scraper has not had and can no longer be given: at the old end of the window. */
  readonly skippedReports: number;
  /** A report of each of these is larger than the answer may be: with these bounds it never comes. */
  readonly tooLarge: readonly StreamId[];
  /** How often it comes: the shorter of the last two intervals, as one may have been missed. Undefined while unknown. */
  readonly intervalMs: number | undefined;
  /** Streams that are left out because answers are refused, probably for one of them. */
  readonly withheld: ReadonlySet<StreamId>;
  /** Where a receipt confirms: the number that the answer carries. */
  readonly number: number | undefined;
  /** The times of two samples of a probe that the answer has, too; undefined: none is due. */
  readonly probeTimesMs: readonly number[] | undefined;
  /** What the answer gives: of `newest` and `probe` there are no batches. */
  readonly gives: Gives;
  /** Resolves when the state on disk has the number, or has not had it for a while: then the answer may end. */
  readonly mayEnd: Promise<void>;
  /** All of the answer is with the operating system. */
  finish(): void;
  /** It was not sent whole. */
  abort(): void;
}

/** How a connection has ended. */
export type ConnectionEvent =
  /** The client has answered our half-close with its own, and its kernel has acknowledged every byte. */
  | { readonly kind: 'half-closed' }
  /** The client has closed it by itself; whether its kernel had acknowledged every byte by then. */
  | { readonly kind: 'fin'; readonly isAcknowledged: boolean }
  /** It was reset, has failed, or was closed by us without an answer. */
  | { readonly kind: 'reset' };
