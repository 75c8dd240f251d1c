// The documents as they lie beside an installed program: in one folder, each link to what is there too.
import { readFileSync } from 'node:fs';
import { basename, join, posix } from 'node:path';
import { filesBelow, root } from './lib.mjs';

// For those who change the program, or look at it before they install it.
const notInstalled = /^docs\/(?:developing|report(?:\.\w+)?)\.md$/;

/** Their paths in the clone. */
export function installedDocuments() {
  const docs = filesBelow('docs', (path) => path.endsWith('.md') && !notInstalled.test(path));
  return ['CHANGELOG.md', 'README.md', 'SECURITY.md', ...docs];
}

/**
 * Name and text of each document. `placeOf` says where another file of the clone is, as seen from that folder; undefined: it
 * is not installed, and of a link to it only the words stay.
 */
export function installedTexts(placeOf) {
  const documents = installedDocuments();
  return documents.map((path) => {
    const place = (target) => {
      const file = posix.join(posix.dirname(path), target);
      return documents.includes(file) ? basename(file) : placeOf(file);
    };
    return { name: basename(path), text: withLinks(readFileSync(join(root, path), 'utf8'), place) };
  });
}

function withLinks(text, place) {
  return text.replace(/(!?)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)/g, (link, image, words, target, anchor = '') => {
    if (/^[a-z]+:/.test(target)) return link;
    const file = place(target);
    if (file !== undefined) return `${image}[${words}](${file}${anchor})`;
    return image === '' ? words : '';
  });
}
