import { createServer, type IncomingMessage, type RequestListener, type ServerResponse } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { TestContext } from 'node:test';
import type { Access } from '../../../src/server/prometheus/bounded-get.ts';
import { QueryApi } from '../../../src/server/prometheus/query-api.ts';

export const open: Access = { authorization: undefined, ca: undefined };

export type Answers = (request: IncomingMessage, response: ServerResponse, url: URL) => void;

export async function listen(context: TestContext, answers: Answers, secure?: { cert: string; key: string }) {
  const requests: { path: string; query: Record<string, string>; authorization: string | undefined }[] = [];
  const listener: RequestListener = (request, response) => {
    const url = new URL(request.url!, 'http://localhost');
    const { authorization } = request.headers;
    requests.push({ path: url.pathname, query: Object.fromEntries(url.searchParams), authorization });
    answers(request, response, url);
  };
  const server = secure === undefined ? createServer(listener) : createSecureServer(secure, listener);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  context.after(() => {
    server.close();
    server.closeAllConnections();
  });
  const { port } = server.address() as AddressInfo;
  return { requests, url: `${secure === undefined ? 'http' : 'https'}://127.0.0.1:${port}` };
}

export const success = (data: unknown): string => JSON.stringify({ status: 'success', data });

export const matrix = (...values: string[]): string =>
  success({
    resultType: 'matrix',
    result: [{ metric: {}, values: values.map((value, at) => [1_700_000_000 + at, value]) }],
  });

/** A Prometheus that has these numbers; `buildinfo` as 2.42 gives it. */
export const prometheus =
  (...numbers: string[]): Answers =>
  (_, response, { pathname }) => {
    if (pathname.endsWith('/status/buildinfo')) {
      response.end(success({ version: '2.42.0+ds', revision: '2.42.0+ds-5', goVersion: 'go1.19.8' }));
    } else response.end(matrix(...numbers));
  };

export function apiAt(context: TestContext, url: string, access = open): QueryApi {
  const api = new QueryApi(url, access);
  context.after(() => api.stop());
  return api;
}
