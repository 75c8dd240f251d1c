import { isIP } from 'node:net';
import type { Clock } from '../../runtime/clock.ts';
import { agentReply, agentsReply, type StatusView } from './api.ts';
import { type Joining, pageReply } from './page/page.ts';
import { type Reply, text } from './reply.ts';

/** A request as a route sees it. */
export interface RouteRequest {
  /** What follows the prefix; empty for an exact path. */
  readonly rest: string;
}

/** A path, or a prefix with a `*` at its end. Metrics and archives are streamed, everything else is a {@link Reply}. */
export interface Route {
  readonly path: string;
  readonly answer: ((request: RouteRequest) => Reply) | 'metrics' | 'archive';
}

export interface RoutesOptions {
  readonly clock: Clock;
  readonly status: StatusView;
  /** Agents connect without keys on an address that is not loopback: the page warns of it. */
  readonly plaintext: boolean;
  /** How a host becomes an agent, for the page. */
  readonly joining: Joining;
  /** Ready: the ports are open and the state is read. */
  isReady(): boolean;
}

/** Every path of this server. */
export const routesOf = ({ clock, status, plaintext, joining, isReady }: RoutesOptions): readonly Route[] => [
  { path: '/', answer: () => pageReply(status, { plaintext, joining, nowMs: clock.nowMs() }) },
  { path: '/metrics', answer: 'metrics' },
  { path: '/api/v1/agents', answer: () => agentsReply(status) },
  { path: '/api/v1/agents/*', answer: ({ rest }) => agentReply(status, rest) },
  { path: '/install/*', answer: 'archive' },
  { path: '/-/healthy', answer: () => text(200, 'healthy\n') },
  { path: '/-/ready', answer: () => (isReady() ? text(200, 'ready\n') : text(503, 'not ready yet\n')) },
];

/** The answer to a request. `route` is the path of the table, or `other`, for metrics. */
export type Routed = { readonly route: string } & (
  | { readonly kind: 'reply'; readonly reply: Reply }
  | { readonly kind: 'metrics' }
  | { readonly kind: 'archive'; readonly file: string }
);

/** The first route that matches answers. All are read-only. */
export function routed(routes: readonly Route[], { method, path }: { method: string; path: string }): Routed {
  for (const route of routes) {
    const rest = restOf(route.path, path);
    if (rest === undefined) continue;
    if (method !== 'GET' && method !== 'HEAD') return { route: route.path, kind: 'reply', reply: notAllowed(method) };
    if (route.answer === 'metrics') return { route: route.path, kind: 'metrics' };
    if (route.answer === 'archive') return { route: route.path, kind: 'archive', file: rest };
    return { route: route.path, kind: 'reply', reply: route.answer({ rest }) };
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
