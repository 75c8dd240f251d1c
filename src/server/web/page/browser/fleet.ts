// The fleet's page while it is open: what has changed comes as events, and filters and sorting need no new page.

/** What the server sends: see live.ts. */
interface Changes {
  readonly revision: number;
  readonly cells: Readonly<Record<string, Readonly<Record<string, string>>>>;
  readonly problems?: string;
  readonly isOther: boolean;
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
/** Until when the page was up to date. */
let heardAt = new Date();

const section = (): HTMLElement => document.querySelector<HTMLElement>('#hosts')!;

function say(text: string): void {
  const place = document.querySelector('#live')!;
  // A screen reader reads out what is written, also where it was there already.
  if (place.textContent !== text) place.textContent = text;
}

/** Asks for what comes after the revision that is shown. */
function connect(): void {
  disconnect();
  const events = new EventSource(`/events?revision=${section().dataset['revision']}`);
  source = events;
  events.addEventListener('open', () => {
    retryMs = firstRetryMs;
    heard();
    say('Live.');
  });
  events.addEventListener('changes', (event) => {
    heard();
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

function heard(): void {
  heardAt = new Date();
  watchSilence();
}

/** A connection that nothing comes through any more may be one that nobody has ended. */
function watchSilence(): void {
  clearTimeout(silenceTimer);
  silenceTimer = setTimeout(retry, silentMsMax);
}

function retry(): void {
  disconnect();
  say(`Cut off from the server since ${heardAt.toLocaleTimeString()}; what is shown is older. Trying again.`);
  clearTimeout(retryTimer);
  retryTimer = setTimeout(() => void load(), retryMs);
  retryMs = Math.min(retryMsMax, retryMs * 2);
}

function apply({ revision, cells, problems, isOther }: Changes): void {
  if (isOther) return void load();
  section().dataset['revision'] = String(revision);
  if (problems !== undefined) document.querySelector('#problems')!.innerHTML = problems;
  for (const row of document.querySelectorAll<HTMLTableRowElement>('tr[data-host]')) {
    const changed = cells[row.dataset['host']!];
    if (changed === undefined) continue;
    for (const [column, html] of Object.entries(changed)) {
      const cell = row.cells[Number(column)];
      if (cell !== undefined) cell.innerHTML = html;
    }
  }
}

/** The page of this URL anew, but for the form, in which somebody may be typing. */
async function load(): Promise<void> {
  clearTimeout(retryTimer);
  disconnect();
  loading?.abort();
  const own = new AbortController();
  loading = own;
  try {
    const response = await fetch(location.href, { signal: own.signal });
    if (!response.ok) throw new Error(String(response.status));
    const fresh = new DOMParser().parseFromString(await response.text(), 'text/html');
    heardAt = new Date();
    document.title = fresh.title;
    for (const place of ['h1', '#problems']) document.querySelector(place)!.replaceWith(fresh.querySelector(place)!);
    const [old, next] = [section(), fresh.querySelector<HTMLElement>('#hosts')!];
    const form = old.querySelector('form');
    const focused = document.activeElement?.closest('th')?.cellIndex;
    const nextForm = next.querySelector('form');
    if (form !== null && nextForm !== null && form.contains(document.activeElement)) {
      // It stays where it is: an element that is moved loses the focus.
      old.dataset['revision'] = next.dataset['revision'];
      while (form.nextSibling !== null) form.nextSibling.remove();
      while (nextForm.nextSibling !== null) old.append(nextForm.nextSibling);
    } else old.replaceWith(next);
    if (focused !== undefined) next.querySelectorAll<HTMLElement>('thead a')[focused]?.focus();
    listen();
    connect();
  } catch {
    if (!own.signal.aborted) retry();
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

/** A browser has few connections to one server: a page that nobody sees needs none. */
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
addEventListener('visibilitychange', () => {
  if (document.hidden) rest();
  else void load();
});
addEventListener('pagehide', rest);
addEventListener('pageshow', (event) => {
  if (event.persisted) void load();
});
listen();
connect();
