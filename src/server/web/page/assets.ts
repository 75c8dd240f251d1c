import { readFileSync } from 'node:fs';
import { type Reply, text } from '../reply.ts';

/** What pages load beside themselves: text by name. */
export type Assets = Readonly<Record<string, string>>;

// scripts/compile.mjs puts them in its place; outside of the bundle they are a file beside it.
declare const SYSMON_ASSETS: Assets | undefined;

let read: Assets | undefined;

function assets(): Assets {
  if (typeof SYSMON_ASSETS === 'object') return SYSMON_ASSETS;
  read ??= JSON.parse(readFileSync(new URL('assets.json', import.meta.url), 'utf8')) as Assets;
  return read;
}

/** `/assets/NAME` */
export function assetReply(name: string): Reply {
  const body = Object.hasOwn(assets(), name) ? assets()[name] : undefined;
  if (body === undefined) return text(404, `no such page: /assets/${name.slice(0, 200)}\n`);
  const type = name.endsWith('.css') ? 'text/css' : 'text/javascript';
  // Another version of the server has others under the same names.
  return { code: 200, type, body, headers: { 'Cache-Control': 'no-cache' } };
}
