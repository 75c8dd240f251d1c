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
const typingMs = 300;

let source: EventSource | undefined;
let retryMs = firstRetryMs;
let retryTimer: number | undefined;

const section = (): HTMLElement => document.querySelector<HTMLElement>('#hosts')!;

function say(text: string): void {
  document.querySelector('#live')!.textContent = text;
}

/** Asks for what comes after the revision that is shown. */
function connect(): void {
  source?.close();
  const events = new EventSource(`/events?revision=${section().dataset['revision']}`);
  source = events;
  events.addEventListener('open', () => {
    retryMs = firstRetryMs;
    say('Live.');
  });
  events.addEventListener('changes', (event) => apply(JSON.parse(event.data as string) as Changes));
  events.addEventListener('stale', () => void load());
  events.addEventListener('error', () => {
    events.close();
    if (source === events) retry();
  });
}

function retry(): void {
  say(`Cut off from the server since ${new Date().toLocaleTimeString()}; what is shown is older. Trying again.`);
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
  source?.close();
  source = undefined;
  try {
    const response = await fetch(location.href);
    if (!response.ok) throw new Error(String(response.status));
    const fresh = new DOMParser().parseFromString(await response.text(), 'text/html');
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
    retry();
  }
}

function go(url: string, { isNew }: { readonly isNew: boolean }): void {
  if (isNew) history.pushState(undefined, '', url);
  else history.replaceState(undefined, '', url);
  void load();
}

/** To what is in the section of hosts, which is replaced by every load. */
function listen(): void {
  const form = section().querySelector('form');
  if (form !== null && form.dataset['isHeard'] === undefined) {
    form.dataset['isHeard'] = '';
    let typing: number | undefined;
    const filter = (isNew: boolean) => {
      const filled = [...new FormData(form)].filter(([, value]) => value !== '' && value !== 'all') as [
        string,
        string,
      ][];
      go(`/?${new URLSearchParams(filled)}`, { isNew });
    };
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      clearTimeout(typing);
      filter(true);
    });
    form.addEventListener('input', () => {
      clearTimeout(typing);
      typing = setTimeout(() => filter(false), typingMs);
    });
  }
  for (const link of section().querySelectorAll<HTMLAnchorElement>('thead a')) {
    link.addEventListener('click', (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      go(link.href, { isNew: true });
    });
  }
}

addEventListener('popstate', () => {
  // The form is of the page before.
  (document.activeElement as HTMLElement | null)?.blur();
  void load();
});
// A browser has few connections to one server: a page that nobody sees needs none.
addEventListener('visibilitychange', () => {
  if (document.hidden) source?.close();
  else void load();
});
addEventListener('pagehide', () => source?.close());
addEventListener('pageshow', (event) => {
  if (event.persisted) void load();
});
listen();
connect();
