import type { StreamRecord } from '../delivery/agent-record.ts';
import type { ConfirmedBy } from '../delivery/cursor.ts';

/** What this part counts, and the text of all that the server counts. */
export interface WebMetrics {
  request(route: string, code: number): void;
  httpRefused(): void;
  nameRefused(): void;
  /** An answer to `/metrics` with reports was sent completely, or not. */
  scrape(outcome: 'finished' | 'aborted'): void;
  scraped(
    scraper: string,
    selection: string,
    given: { readonly samples: number; readonly backlogReports: number },
  ): void;
  /** At the old end of the window when it was scraped: too old to be sent. */
  skipped(reports: number): void;
  scraperInfo(info: ScraperInfo): void;
  forgetScraperInfo(scraper: string): void;
  /** The server's own metrics, with what is known of these sources of agents. */
  text(sources: readonly SourceUp[]): Promise<string>;
}

export interface ScraperInfo {
  readonly scraper: string;
  readonly program: string;
  readonly version: string;
  /** Whether signs of an HTTP proxy have been seen. */
  readonly via: 'direct' | 'proxy';
  /** What confirms an answer. */
  readonly confirmed_by: ConfirmedBy | 'none';
}

/** Whether a source of an agent is up, and how late its reports come, with the labels that are on its series. */
export interface SourceUp {
  readonly stream: Pick<StreamRecord, 'agent' | 'sourceName' | 'labels' | 'lagMs'>;
  readonly up: boolean;
}
