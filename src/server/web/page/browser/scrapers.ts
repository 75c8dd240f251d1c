// The page of scrapers, kept up to date.
import { keepFresh, textAt } from './contact.ts';
import { follow } from './follow.ts';

const everyMs = 10_000;

keepFresh(async (signal) => {
  const fresh = new DOMParser().parseFromString(await textAt('/scrapers', signal), 'text/html');
  follow(document.querySelector('#scrapers')!, fresh.querySelector('#scrapers')!);
}, everyMs);
