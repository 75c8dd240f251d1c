/**
 * Makes an element what another one is, which is taken apart for it. What is the same stays where it is, with the focus, what is
 * selected, and what was typed; the rows of a table and the items of a list are known by what they begin with.
 */
export function follow(old: Element, fresh: Element): void {
  const focused = document.activeElement;
  followElement(old, fresh);
  // What is moved loses the focus.
  if (focused instanceof HTMLElement && focused !== document.activeElement && old.contains(focused)) {
    focused.focus({ preventScroll: true });
  }
}

/** The same of what is in an element: HTML of this server. */
export function followHtml(old: Element, html: string): void {
  const fresh = old.cloneNode(false) as Element;
  fresh.innerHTML = html;
  follow(old, fresh);
}

function followElement(old: Element, fresh: Element): void {
  if (old.isEqualNode(fresh)) return;
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  const known = new Map<string, Element>();
  for (const child of old.children) {
    const key = keyOf(child);
    if (key !== undefined && !known.has(key)) known.set(key, child);
  }
  let next: ChildNode | null = old.firstChild;
  for (const child of [...fresh.childNodes]) {
    const key = child instanceof Element ? keyOf(child) : undefined;
    const match: ChildNode | undefined | null =
      key === undefined ? (next !== null && isAlike(next, child) ? next : undefined) : known.get(key);
    if (key !== undefined) known.delete(key);
    if (match === undefined || match === null) {
      old.insertBefore(child, next);
      continue;
    }
    if (match === next) next = match.nextSibling;
    else old.insertBefore(match, next);
    if (match instanceof Element) followElement(match, child as Element);
    else if (match.nodeValue !== child.nodeValue) match.nodeValue = child.nodeValue;
  }
  while (next !== null) {
    const gone: ChildNode = next;
    next = gone.nextSibling;
    gone.remove();
  }
}

/** What a row or an item is of; undefined for what is known by its place. */
function keyOf(element: Element): string | undefined {
  if (element instanceof HTMLTableRowElement) return element.cells[0]?.textContent ?? undefined;
  if (element instanceof HTMLLIElement) return element.firstElementChild?.textContent ?? undefined;
  return undefined;
}

function isAlike(a: ChildNode, b: ChildNode): boolean {
  if (a instanceof Element) return b instanceof Element && a.tagName === b.tagName && keyOf(a) === undefined;
  return a.nodeType === b.nodeType;
}
