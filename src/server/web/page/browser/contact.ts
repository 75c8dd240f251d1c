// How a page stands with its server, and what it asks of it.

// What has not answered by then will not.
const answerMsMax = 20_000;

/** Until when what is shown was up to date. */
let heardAt = new Date();

/** Something came, and all that is shown is of now. */
export function heard(): void {
  heardAt = new Date();
}

export function say(text: string): void {
  const place = document.querySelector('#live')!;
  // A screen reader reads out what is written, also where it was there already.
  if (place.textContent !== text) place.textContent = text;
}

/** Why nothing comes, and since when. */
export function sayLost(error?: unknown): void {
  const what = error instanceof AnswerError ? `The server answers ${error.message}` : 'Cut off from the server';
  say(`${what} since ${heardAt.toLocaleTimeString()}; what is shown is older. Trying again.`);
}

/** It answers, but not with what was asked for. */
class AnswerError extends Error {}

/** What the server answers at a path, in time. */
export async function textAt(path: string, signal: AbortSignal): Promise<string> {
  const response = await fetch(path, { signal: AbortSignal.any([signal, AbortSignal.timeout(answerMsMax)]) });
  if (!response.ok) throw new AnswerError(`${response.status} ${response.statusText}`.trim());
  return await response.text();
}

/** Keeps a page up to date while it is seen. `load` gets what is new, and shows it. */
export function keepFresh(load: (signal: AbortSignal) => Promise<void>, everyMs: number): void {
  let timer: number | undefined;
  let loading: AbortController | undefined;
  const rest = () => {
    clearTimeout(timer);
    loading?.abort();
  };
  const again = async () => {
    rest();
    if (document.hidden) return;
    const own = new AbortController();
    loading = own;
    try {
      await load(own.signal);
      heard();
      say('Live.');
    } catch (error) {
      if (own.signal.aborted) return;
      sayLost(error);
    }
    timer = setTimeout(() => void again(), everyMs);
  };
  onSeen(() => void again(), rest);
  void again();
}

/** A page that nobody sees asks for nothing: a browser has few connections to one server. */
export function onSeen(seen: () => void, hidden: () => void): void {
  addEventListener('visibilitychange', () => {
    if (document.hidden) hidden();
    else seen();
  });
  addEventListener('pagehide', hidden);
  addEventListener('pageshow', (event) => {
    if (event.persisted) seen();
  });
}
