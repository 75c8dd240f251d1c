import { createHash } from 'node:crypto';
import { ageText } from '../../../runtime/words.ts';
import type { AgentStatus, ServerStatus } from '../../status.ts';
import type { StatusView } from '../api.ts';
import type { Reply } from '../reply.ts';

const style = `
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { margin: 2rem auto; padding: 0 1rem; max-width: 72rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; text-align: left; border-bottom: 1px solid #8884; white-space: nowrap; }
td.n, th.n { text-align: right; }
.up { color: #18794e; } .down { color: #c62a2f; font-weight: 600; }
.note { padding: .5rem .8rem; border-left: 4px solid #ad5700; background: #ad570018; }
div { overflow-x: auto; }
@media (prefers-color-scheme: dark) { .up { color: #4cc38a; } .down { color: #ff6369; } }
`;

/** Nothing but this style: no script, no frame, no request to anywhere. */
const pagePolicy = `default-src 'none'; style-src 'sha256-${createHash('sha256').update(style).digest('base64')}'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'`;

/** How a host becomes an agent: with a key, or with the port of agents alone. */
export type Joining = { readonly kind: 'by-key' } | { readonly kind: 'without-key'; readonly port: number };

/** The page at `/`. */
export function pageReply(
  status: StatusView,
  options: { readonly plaintext: boolean; readonly joining: Joining; readonly nowMs: number },
): Reply {
  return {
    code: 200,
    type: 'text/html',
    body: pageHtml({ status: status.server(), agents: status.agents(), ...options }),
    headers: {
      'Content-Security-Policy': pagePolicy,
      'Referrer-Policy': 'no-referrer',
      'X-Frame-Options': 'DENY',
      'Cache-Control': 'no-store',
    },
  };
}

/** Plain HTML: links to the other routes, and the agents and scrapers as of now. */
function pageHtml(options: {
  readonly status: ServerStatus;
  readonly agents: readonly AgentStatus[];
  readonly plaintext: boolean;
  readonly joining: Joining;
  readonly nowMs: number;
}): string {
  const { status, agents, plaintext, joining, nowMs } = options;
  const note = plaintext
    ? '<p class="note">Agents connect without keys (<code>--allow-plaintext</code>): anyone who can reach the port can report under any name.</p>'
    : '';
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>sysmon: ${status.agents.up} of ${status.agents.known} agents up</title>
<style>${style}</style>
<h1>sysmon server</h1>
<p>Receives the reports of agents on hosts that Prometheus cannot reach and exposes them to Prometheus. Version ${escapeHtml(status.version)}, up since ${escapeHtml(status.startedAt)}.</p>
${note}
<p><a href="/metrics">/metrics</a> for Prometheus · <a href="/api/v1/agents">/api/v1/agents</a> as JSON ·
<a href="/-/healthy">/-/healthy</a> · <a href="/-/ready">/-/ready</a></p>
<h2>Agents: ${status.agents.up} up, ${status.agents.known - status.agents.up} down</h2>
${agents.length === 0 ? `<p>No agent has reported yet. ${joiningHtml(joining)}</p>` : agentsTable(agents, nowMs)}
<h2>Scrapers</h2>
${status.scrapers.length === 0 ? '<p>No Prometheus has scraped yet. Until one does, reports are acknowledged as they arrive.</p>' : scrapersTable(status, nowMs)}
</html>
`;
}

function joiningHtml(joining: Joining): string {
  switch (joining.kind) {
    case 'by-key':
      return 'Run <code>sudo sysmon-server enroll NAME</code> on this host: it prints how the host NAME joins.';
    case 'without-key':
      return `Run <code>sysmon-agent --server HOST:${joining.port}</code> on a host, where HOST is the name of this one.`;
  }
}

function agentsTable(agents: readonly AgentStatus[], nowMs: number): string {
  const rows = agents.map(
    (agent) => `<tr><td>${escapeHtml(agent.name)}</td><td class="${agent.up ? 'up">up' : 'down">down'}</td>
<td>${agent.peer === undefined ? 'not connected' : escapeHtml(agent.peer)}</td>
<td class="n">${agent.newestAt === undefined ? 'none' : ago(agent.newestAt, nowMs)}</td>
<td class="n">${agent.intervalSeconds} s</td><td class="n">${agent.series}</td>
<td class="n">${agent.windowReports}</td><td class="n">${agent.unscrapedReports ?? '–'}</td>
<td class="n">${agent.clockOffsetSeconds} s</td></tr>`,
  );
  return `<div><table><tr><th>Agent</th><th>State</th><th>Connection</th><th class="n">Newest report</th><th class="n">Interval</th><th class="n">Series</th><th class="n">Reports in window</th><th class="n">Not scraped</th><th class="n">Clock offset</th></tr>
${rows.join('\n')}
</table></div>`;
}

function scrapersTable(status: ServerStatus, nowMs: number): string {
  const rows = status.scrapers.map(
    (scraper) => `<tr><td>${escapeHtml(scraper.scraper)}</td><td>${escapeHtml(scraper.selection) || 'all agents'}</td>
<td class="n">${ago(scraper.lastScrapeAt, nowMs)}</td><td class="n">${scraper.backlogReports}</td>
<td class="n">${Math.round(scraper.lagSeconds)} s</td><td>${scraper.confirmedBy}</td>
<td class="${scraper.problems.length > 0 ? 'down' : ''}">${scraper.problems.map(escapeHtml).join('<br>') || '-'}</td></tr>`,
  );
  return `<div><table><tr><th>Scraper</th><th>Selects</th><th class="n">Last scrape</th><th class="n">Backlog</th><th class="n">Lag</th><th>Confirmed by</th><th>Problems</th></tr>
${rows.join('\n')}
</table></div>`;
}

function ago(isoTime: string, nowMs: number): string {
  return `${ageText(nowMs - Date.parse(isoTime))} ago`;
}

const entities: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (character) => entities[character] ?? '');
}
