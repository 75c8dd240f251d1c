import { createHash } from 'node:crypto';
import type { Reply } from '../reply.ts';
import { escapeHtml } from './html.ts';

/** Of every page: light and dark, narrow and wide. */
export const style = `
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif; --paper: #fff; --ink: #16181d; --line: #8884; --soft: #5b6270; --up: #18794e; --down: #c62a2f; --warn: #ad5700; --chart: #2563eb; }
@media (prefers-color-scheme: dark) { :root { --paper: #121417; --ink: #e8eaed; --soft: #9aa4b2; --up: #4cc38a; --down: #ff6369; --warn: #f1a10d; --chart: #7aa2ff; } }
html { background: var(--paper); color: var(--ink); }
body { margin: 0 auto; padding: .5rem 1rem 3rem; max-width: 120rem; }
h1 { font-size: 1.3rem; margin: .5rem 0; } h2 { font-size: 1.05rem; margin: 1.4rem 0 .4rem; }
nav a { margin-right: 1rem; } a { color: inherit; } a:focus-visible, [tabindex]:focus-visible, summary:focus-visible, input:focus-visible, button:focus-visible, select:focus-visible { outline: 2px solid var(--chart); outline-offset: 2px; }
.wide { overflow-x: auto; font-size: .9rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .5rem; text-align: left; border-bottom: 1px solid var(--line); white-space: nowrap; vertical-align: top; }
thead th { font-weight: 600; } tbody th { font-weight: 400; }
.n, #hosts td { text-align: right; } #hosts td.t { text-align: left; } #hosts tr:has(.down) td { color: var(--soft); } .soft { color: var(--soft); }
.up { color: var(--up); } .down { color: var(--down); font-weight: 600; } .warn { color: var(--warn); font-weight: 600; }
.wrap { white-space: normal; min-width: 16rem; }
.wrong { padding: .5rem .8rem; border-left: 4px solid var(--down); background: #c62a2f14; } .calm { padding: .5rem .8rem; border-left: 4px solid var(--up); background: #18794e14; }
.wrong h2 { margin: .1rem 0 .3rem; } .wrong ul { margin: .2rem 0; padding-left: 1.2rem; } .wrong li { overflow-wrap: anywhere; }
form { display: flex; flex-wrap: wrap; gap: .5rem .8rem; align-items: end; margin: .6rem 0; } label { display: grid; font-size: .85rem; color: var(--soft); } input, select, button { font: inherit; color: inherit; background: transparent; border: 1px solid var(--soft); border-radius: 4px; padding: .2rem .4rem; max-width: 100%; }
select option { background: Canvas; color: CanvasText; }
svg.s { width: 60px; height: 16px; margin-left: .4rem; vertical-align: middle; } svg path { fill: none; stroke: var(--chart); stroke-width: 1.5; vector-effect: non-scaling-stroke; }
.charts { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 24rem), 1fr)); } figure { margin: 0; } figcaption { font-size: .9rem; } figure svg { width: 100%; height: 7rem; border-bottom: 1px solid var(--line); }
.u-legend { width: auto; min-height: 1.5em; margin: 0 0 0 70px; text-align: left; font-size: .8rem; color: var(--soft); } .u-legend th { display: none; } .u-legend td { border: 0; padding: 0 .5rem 0 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: .4rem 0; } dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
code { overflow-wrap: anywhere; }
@media (min-width: 70rem) { dl { grid-template-columns: max-content 1fr max-content 1fr; } }
@media (max-width: 30rem) { body { padding: .5rem; } dl { grid-template-columns: 1fr; } dd { margin-bottom: .4rem; } }
`;

const styleHash = `'sha256-${createHash('sha256').update(style).digest('base64')}'`;
/** Nothing but what this server gives: no frame, no image, no request to anywhere else. */
const policy = `default-src 'none'; style-src ${styleHash} 'self'; script-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'`;

export interface PageParts {
  readonly title: string;
  /** Of the links at the top, the one that is here. */
  readonly path: string;
  /** HTML. */
  readonly main: string;
  /** Names of assets. */
  readonly scripts: readonly string[];
  readonly styles?: readonly string[];
  readonly code?: number;
}

/** A whole page. */
export function page({ title, path, main, scripts, styles = [], code = 200 }: PageParts): Reply {
  const links = [
    ['/', 'Fleet'],
    ['/scrapers', 'Scrapers'],
    ['/metrics', 'Metrics'],
    ['/api/v1/agents', 'JSON'],
  ].map(([to, text]) => `<a href="${to}"${to === path ? ' aria-current=page' : ''}>${text}</a>`);
  const head = [
    ...styles.map((name) => `<link rel=stylesheet href="/assets/${name}">`),
    `<style>${style}</style>`,
    ...scripts.map((name) => `<script src="/assets/${name}" defer></script>`),
  ];
  return {
    code,
    type: 'text/html',
    body: `<!doctype html>
<html lang=en>
<meta charset=utf-8>
<meta name=viewport content="width=device-width, initial-scale=1">
<title>${escapeHtml(title)}</title>
${head.join('\n')}
<header><nav aria-label=Pages>${links.join(' ')}</nav></header>
<main>
${main}</main>
</html>
`,
    headers: {
      'Content-Security-Policy': policy,
      'Referrer-Policy': 'no-referrer',
      'X-Frame-Options': 'DENY',
      'Cache-Control': 'no-store',
    },
  };
}
