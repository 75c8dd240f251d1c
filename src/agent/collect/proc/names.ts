/**
 * Names of the host that need not be UTF-8: of files, mount points, interfaces, control groups, whatever bytes somebody chose. As a
 * string, a byte that is no UTF-8 is half a surrogate pair, U+DC80 to U+DCFF, which no UTF-8 gives. So a name is the same bytes again
 * when it is a path. https://peps.python.org/pep-0383/
 *
 *     caf\xe9   ──nameOf──▶   'caf\udce9'   ──pathOf──▶   caf\xe9
 *                                           ──shownOf─▶   'caf\ufffd', in a label or a message
 */

const replacement = '\ufffd';
const utf8 = new TextDecoder('utf-8', { ignoreBOM: true });

/** The name that these bytes are. */
export function nameOf(bytes: Uint8Array): string {
  const text = utf8.decode(bytes);
  return text.includes(replacement) ? escaped(bytes) : text;
}

/** What a system call takes: the name itself where its bytes are UTF-8, as nearly always. */
export function pathOf(name: string): string | Buffer {
  return name.isWellFormed() ? name : bytesOf(name);
}

/** What a person sees, in which every byte that is no UTF-8 is U+FFFD. */
export function shownOf(name: string): string {
  return name.isWellFormed() ? name : utf8.decode(bytesOf(name));
}

/** Whether one of these names, which were decoded as UTF-8, may have been other bytes. */
export function areInDoubt(names: readonly string[]): boolean {
  return names.join('/').includes(replacement);
}

function escaped(bytes: Uint8Array): string {
  let text = '';
  for (let at = 0; at < bytes.length; ) {
    const first = bytes[at]!;
    const character = bytes.subarray(at, at + lengthOf(first));
    const decoded = utf8.decode(character);
    if (Buffer.from(decoded).equals(character)) {
      text += decoded;
      at += character.length;
    } else {
      text += String.fromCharCode(halfPair | first);
      at++;
    }
  }
  return text;
}

/** Of a character, by its first byte. */
function lengthOf(first: number): number {
  if (first < 0xc0) return 1;
  if (first < 0xe0) return 2;
  return first < 0xf0 ? 3 : 4;
}

function bytesOf(name: string): Buffer {
  // With the flag u, half a pair does not match within a pair.
  const parts = name.split(/([\udc80-\udcff])/u);
  return Buffer.concat(
    parts.map((part, at) => (at % 2 === 0 ? Buffer.from(part) : Buffer.of(part.charCodeAt(0) & 0xff))),
  );
}

const halfPair = 0xdc00;
