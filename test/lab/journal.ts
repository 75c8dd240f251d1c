import type { Lab } from './lab.ts';

/** A line of a host's journal. */
export interface JournalLine {
  /** What journalctl -t selects by, such as `sysmon-agent`, `systemd`. */
  readonly program: string;
  /** As of syslog: 3 error, 4 warning, 6 info. */
  readonly priority: number;
  readonly text: string;
}

/** The place in a host's journal behind its newest line, for {@link journalLines}. */
export async function journalCursor(lab: Lab, host: string): Promise<string> {
  const shown = await lab.sh(host, 'journalctl --sync; journalctl -n 0 --show-cursor -q');
  return /-- cursor: (.*)$/.exec(shown)![1]!;
}

/**
 * All lines of a host's journal, oldest first, or those behind a cursor. Lines of one program are to be chosen from what this
 * gives: behind a cursor of another program's line, journalctl 252 with -t, or any other match, passes over the first that it should show.
 */
export async function journalLines(lab: Lab, host: string, cursor?: string): Promise<readonly JournalLine[]> {
  const fields = '--output-fields=MESSAGE,PRIORITY,SYSLOG_IDENTIFIER';
  const behind = cursor === undefined ? '' : `--after-cursor '${cursor}'`;
  const out = await lab.sh(host, `journalctl --sync; journalctl -q -o json ${fields} ${behind}`);
  return out
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as { MESSAGE: string; PRIORITY?: string; SYSLOG_IDENTIFIER?: string })
    .map(({ MESSAGE: text, PRIORITY: priority, SYSLOG_IDENTIFIER: program = '' }) => {
      return { program, priority: Number(priority), text };
    });
}

/** The lines of our two programs among them. */
export function ofPrograms(lines: readonly JournalLine[]): readonly JournalLine[] {
  return lines.filter(({ program }) => program === 'sysmon-agent' || program === 'sysmon-server');
}
