// The fleet's page while it is open: what has changed comes as events, and filters and sorting need no new page.

import { heard, onSeen, say, sayLost, textAt } from './contact.ts';
import { follow, followHtml } from './follow.ts';

/** What the server sends: see live.ts. */
interface Changes {
  readonly revision: number;
  readonly cells: Readonly<Record<string, Readonly<Record<string, string>>>>;
  readonly parts: Readonly<Record<string, string>>;
  readonly table?: Table;
}

interface Table {
  readonly names: readonly string[];
  readonly of: number;
  readonly rows: Readonly<Record<string, string>>;
}

const firstRetryMs = 1000;
const retryMsMax = 30_000;
// The server sends something every 5 s.
const silentMsMax = 20_000;
const typingMs = 300;

let source: EventSource | undefined;
let retryMs = firstRetryMs;
let retryTimer: number | undefined;
let silenceTimer: number | undefined;
let typingTimer: number | undefined;
/** The load that is under way: only the last one is shown. */
let loading: AbortController | undefined;

const section = (): HTMLElement => document.querySelector<HTMLElement>('#hosts')!;

/** Asks for what comes after the revision that is shown. */
function connect(): void {
  disconnect();
  const parameters = new URLSearchParams(location.search);
  parameters.set('revision', section().dataset['revision']!);
  const events = new EventSource(`/events?${parameters}`);
  source = events;
  events.addEventListener('open', () => {
    retryMs = firstRetryMs;
    listened();
    say('Live.');
  });
  events.addEventListener('changes', (event) => {
    listened();
    apply(JSON.parse(event.data as string) as Changes);
  });
  events.addEventListener('stale', () => void load());
  events.addEventListener('error', () => {
    if (source === events) retry();
  });
  watchSilence();
}

function disconnect(): void {
  clearTimeout(silenceTimer);
  source?.close();
  source = undefined;
}

function listened(): void {
  heard();
  watchSilence();
}

/** A connection that nothing comes through any more may be one that nobody has ended. */
function watchSilence(): void {
  clearTimeout(silenceTimer);
  silenceTimer = setTimeout(() => retry(), silentMsMax);
}

function retry(error?: unknown): void {
  disconnect();
  sayLost(error);
  clearTimeout(retryTimer);
  retryTimer = setTimeout(() => void load(), retryMs);
  retryMs = Math.min(retryMsMax, retryMs * 2);
}

function apply({ revision, cells, parts, table }: Changes): void {
  section().dataset['revision'] = String(revision);
  for (const [id, html] of Object.entries(parts)) followHtml(document.getElementById(id)!, html);
  document.title = document.querySelector('#headline')!.textContent!;
  for (const row of document.querySelectorAll<HTMLTableRowElement>('tr[data-host]')) {
    const changed = cells[row.dataset['host']!];
    if (changed === undefined) continue;
    for (const [column, html] of Object.entries(changed)) {
      const cell = row.cells[Number(column)];
      if (cell !== undefined) cell.innerHTML = html;
    }
  }
  if (table !== undefined && !arrange(table)) void load();
}

/** Puts the rows in this order. False where they are not all known: the page is another one. */
function arrange({ names, of, rows }: Table): boolean {
  const body = section().querySelector('tbody');
  if (body === null) return names.length === 0 && section().dataset['of'] === String(of);
  const known = new Map([...body.rows].map((row) => [row.dataset['host']!, row]));
  const fresh = document.createElement('tbody');
  fresh.innerHTML = Object.values(rows).join('');
  for (const row of fresh.rows) known.set(row.dataset['host']!, row);
  if (names.length === 0 || names.some((name) => !known.has(name))) return false;
  const kept = new Set(names);
  for (const row of [...body.rows]) if (!kept.has(row.dataset['host']!)) row.remove();
  const focused = document.activeElement;
  let next = body.rows[0] ?? null;
  for (const name of names) {
    const row = known.get(name)!;
    if (row === next) next = row.nextElementSibling as HTMLTableRowElement | null;
    else body.insertBefore(row, next);
  }
  // A row that is moved loses the focus.
  if (focused instanceof HTMLElement && body.contains(focused)) focused.focus({ preventScroll: true });
  section().dataset['of'] = String(of);
  return true;
}

/** The page of this URL anew, but for the form, in which somebody may be typing. */
async function load(): Promise<void> {
  clearTimeout(retryTimer);
  disconnect();
  loading?.abort();
  const own = new AbortController();
  loading = own;
  try {
    const fresh = new DOMParser().parseFromString(await textAt(location.href, own.signal), 'text/html');
    heard();
    document.title = fresh.title;
    for (const place of ['#headline', '#about', '#problems']) {
      follow(document.querySelector(place)!, fresh.querySelector(place)!);
    }
    const [old, next] = [section(), fresh.querySelector<HTMLElement>('#hosts')!];
    const form = old.querySelector('form');
    const focused = document.activeElement?.closest('th')?.cellIndex;
    const nextForm = next.querySelector('form');
    if (form !== null && nextForm !== null && form.contains(document.activeElement)) {
      // It stays where it is: an element that is moved loses the focus.
      for (const name of ['revision', 'of']) old.dataset[name] = next.dataset[name];
      while (form.nextSibling !== null) form.nextSibling.remove();
      while (nextForm.nextSibling !== null) old.append(nextForm.nextSibling);
    } else old.replaceWith(next);
    if (focused !== undefined) next.querySelectorAll<HTMLElement>('thead a')[focused]?.focus();
    listen();
    connect();
  } catch (error) {
    if (!own.signal.aborted) retry(error);
  }
}

function go(url: string, { isNew }: { readonly isNew: boolean }): void {
  clearTimeout(typingTimer);
  if (isNew) history.pushState(undefined, '', url);
  else history.replaceState(undefined, '', url);
  void load();
}

/** The URL of what the form has, sorted as it says or as this link does. */
function urlOf(form: HTMLFormElement, link?: HTMLAnchorElement): string {
  const parameters = new URLSearchParams();
  for (const [name, value] of new FormData(form)) {
    if (value !== '' && !(name === 'state' && value === 'all')) parameters.set(name, String(value));
  }
  if (link !== undefined) {
    for (const [name, value] of new URL(link.href).searchParams) {
      if (name === 'sort' || name === 'order') parameters.set(name, value);
    }
  }
  return `/?${parameters}`;
}

/** To what is in the section of hosts, which is replaced by every load. */
function listen(): void {
  const form = section().querySelector('form');
  if (form === null) return;
  if (form.dataset['isHeard'] === undefined) {
    form.dataset['isHeard'] = '';
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      go(urlOf(form), { isNew: true });
    });
    form.addEventListener('input', () => {
      clearTimeout(typingTimer);
      typingTimer = setTimeout(() => go(urlOf(form), { isNew: false }), typingMs);
    });
  }
  for (const link of section().querySelectorAll<HTMLAnchorElement>('thead a')) {
    link.addEventListener('click', (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      // Also what was typed a moment ago.
      go(urlOf(form, link), { isNew: true });
    });
  }
}

function rest(): void {
  clearTimeout(retryTimer);
  loading?.abort();
  disconnect();
}

addEventListener('popstate', () => {
  clearTimeout(typingTimer);
  // The form is of the page before.
  (document.activeElement as HTMLElement | null)?.blur();
  void load();
});
onSeen(() => void load(), rest);
listen();
if (!document.hidden) connect();
