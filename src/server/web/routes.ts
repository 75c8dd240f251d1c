import { isIP } from 'node:net';
import type { Clock } from '../../runtime/clock.ts';
import type { AgentRecord } from '../delivery/agent-record.ts';
import { agentReply, agentsReply, noSuchAgent, type StatusView } from './api.ts';
import { type AgentPageOptions, agentLive, agentPage } from './page/agent.ts';
import { assetReply } from './page/assets.ts';
import { chartsOf, historyOf } from './page/charts.ts';
import type { LiveFleet } from './page/live.ts';
import { scrapersPage } from './page/scrapers.ts';
import { json, type Reply, text } from './reply.ts';

/** A request as a route sees it. */
export interface RouteRequest {
  /** What follows the prefix; empty for an exact path. */
  readonly rest: string;
  /** What follows the question mark. */
  readonly query: string;
}

/**
 * A path, or a prefix with a `*` at its end. Metrics, archives and the changes of a page are streamed, everything else is a
 * {@link Reply}.
 */
export interface Route {
  readonly path: string;
  readonly answer: ((request: RouteRequest) => Reply) | 'metrics' | 'archive' | 'events';
}

export interface RoutesOptions {
  readonly clock: Clock;
  readonly status: StatusView;
  /** By their names. */
  readonly agents: ReadonlyMap<string, AgentRecord>;
  readonly fleet: Pick<LiveFleet, 'page'>;
  /** Ready: the ports are open and the state is read. */
  isReady(): boolean;
}

/** Every path of this server. */
export const routesOf = ({ clock, status, agents, fleet, isReady }: RoutesOptions): readonly Route[] => [
  { path: '/', answer: ({ query }) => fleet.page(query) },
  { path: '/events', answer: 'events' },
  { path: '/agents/*', answer: (request) => ofAgent({ clock, status, agents }, request, agentPage) },
  { path: '/live/*', answer: (request) => ofAgent({ clock, status, agents }, request, agentLive) },
  { path: '/scrapers', answer: () => scrapersPage(status.server(), clock.nowMs()) },
  { path: '/assets/*', answer: ({ rest }) => assetReply(rest) },
  { path: '/metrics', answer: 'metrics' },
  { path: '/api/v1/agents', answer: () => agentsReply(status) },
  { path: '/api/v1/agents/*', answer: ({ rest }) => agentReply(status, rest) },
  { path: '/api/v1/charts/*', answer: ({ rest }) => chartsReply(agents, rest) },
  { path: '/install/*', answer: 'archive' },
  { path: '/-/healthy', answer: () => text(200, 'healthy\n') },
  { path: '/-/ready', answer: () => (isReady() ? text(200, 'ready\n') : text(503, 'not ready yet\n')) },
];

/** The answer to a request. `route` is the path of the table, or `other`, for metrics. */
export type Routed = { readonly route: string } & (
  | { readonly kind: 'reply'; readonly reply: Reply }
  | { readonly kind: 'metrics' }
  | { readonly kind: 'archive'; readonly file: string }
  /** The changes of the fleet's page of a query, since a revision. */
  | { readonly kind: 'events'; readonly revision: number; readonly query: string }
);

function ofAgent(
  { clock, status, agents }: Pick<RoutesOptions, 'clock' | 'status' | 'agents'>,
  { rest: name, query }: RouteRequest,
  reply: (options: AgentPageOptions) => Reply,
): Reply {
  const agent = status.agents().find((each) => each.name === name);
  const record = agents.get(name);
  if (agent === undefined || record === undefined) return noSuchAgent(name);
  const search = (new URLSearchParams(query).get('series') ?? '').slice(0, 200);
  return reply({ agent, record, words: status.problems, search, nowMs: clock.nowMs() });
}

function chartsReply(agents: ReadonlyMap<string, AgentRecord>, name: string): Reply {
  const record = agents.get(name);
  return record === undefined ? noSuchAgent(name) : json(chartsOf(historyOf(record.host.window)));
}

/** The first route that matches answers. All are read-only. */
export function routed(
  routes: readonly Route[],
  { method, path, query = '' }: { readonly method: string; readonly path: string; readonly query?: string },
): Routed {
  for (const route of routes) {
    const rest = restOf(route.path, path);
    if (rest === undefined) continue;
    if (method !== 'GET' && method !== 'HEAD') return { route: route.path, kind: 'reply', reply: notAllowed(method) };
    if (route.answer === 'metrics') return { route: route.path, kind: 'metrics' };
    if (route.answer === 'archive') return { route: route.path, kind: 'archive', file: rest };
    if (route.answer === 'events') {
      const revision = Number(new URLSearchParams(query).get('revision'));
      return { route: route.path, kind: 'events', revision, query };
    }
    return { route: route.path, kind: 'reply', reply: route.answer({ rest, query }) };
  }
  return { route: 'other', kind: 'reply', reply: noSuchPage(path) };
}

export const noSuchPage = (path: string): Reply => text(404, `no such page: ${path.slice(0, 200)}\n`);

function restOf(routePath: string, path: string): string | undefined {
  if (!routePath.endsWith('*')) return path === routePath ? '' : undefined;
  const prefix = routePath.slice(0, -1);
  return path.startsWith(prefix) ? path.slice(prefix.length) : undefined;
}

const notAllowed = (method: string): Reply => ({
  ...text(405, `${method} is not allowed here, GET is\n`),
  headers: { Allow: 'GET, HEAD' },
});

/** Path and query of a request's target, which may be a whole URL. Not by `URL`, which throws for some. */
export function targetOf(url: string): { readonly path: string; readonly query: string } {
  const [path, query = ''] = url.replace(/^https?:\/\/[^/?]*/i, '').split(/\?(.*)/s);
  return { path: path || '/', query };
}

/**
 * Whether a Host header names this server: by an address, as localhost, or by one of its names. A page of another site
 * whose name suddenly resolves to this server's address could read everything here through its visitor's browser.
 */
export function isOurHost(host: string, names: ReadonlySet<string>): boolean {
  const [, bracketed, plain = ''] = /^(?:\[([^\]]*)\]|([^:]*))(?::\d*)?$/.exec(host) ?? [];
  if (bracketed !== undefined) return isIP(bracketed) === 6;
  const name = plain.toLowerCase().replace(/\.$/, '');
  return name === 'localhost' || isIP(name) === 4 || names.has(name);
}
