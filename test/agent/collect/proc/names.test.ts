import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { areInDoubt, nameOf, pathOf, shownOf } from '../../../../src/agent/collect/proc/names.ts';

const utf8 = new TextDecoder('utf-8', { ignoreBOM: true });
const bytesOf = (name: string) => Buffer.from(pathOf(name));

test('a name in UTF-8 is itself, also with U+FFFD, halves of which it has none', () => {
  for (const name of ['', 'eth0', 'café', '\u{1f600}', 'a\ufffdb', '\ufeffx', '\udbff\udfff']) {
    assert.equal(nameOf(Buffer.from(name)), name);
    assert.equal(pathOf(name), name);
    assert.equal(shownOf(name), name);
  }
});

test('a byte that is no UTF-8 is half a pair in a name, and U+FFFD where it is shown', () => {
  for (const [bytes, name, shown] of [
    ['caf\xe9', 'caf\udce9', 'caf\ufffd'],
    ['\xe9b0', '\udce9b0', '\ufffdb0'],
    ['\xff\xfe', '\udcff\udcfe', '\ufffd\ufffd'],
    ['\xe2\x82', '\udce2\udc82', '\ufffd'],
    // What UTF-8 does not have: a half pair, a character that is too long, one beyond all.
    ['\xed\xb3\xa9', '\udced\udcb3\udca9', '\ufffd\ufffd\ufffd'],
    ['\xc0\xaf', '\udcc0\udcaf', '\ufffd\ufffd'],
    ['\xf5\x80\x80\x80', '\udcf5\udc80\udc80\udc80', '\ufffd\ufffd\ufffd\ufffd'],
    // Beside characters of two and four bytes, and U+FFFD itself.
    ['\xc3\xa9\xe9\xc3\xa9', 'é\udce9é', 'é\ufffdé'],
    ['\xf0\x9f\x98\x80\xe9', '\u{1f600}\udce9', '\u{1f600}\ufffd'],
    ['\xef\xbf\xbd\xe9', '\ufffd\udce9', '\ufffd\ufffd'],
  ] as const) {
    const given = Buffer.from(bytes, 'latin1');
    assert.equal(nameOf(given), name);
    assert.deepEqual(bytesOf(name), given);
    assert.equal(shownOf(name), shown);
  }
});

test('property: whatever the bytes, a name is the same bytes as a path, and is shown as UTF-8 shows them', () => {
  const bytes = fc.uint8Array({ maxLength: 40 });
  const text = fc
    .constantFrom('a', 'é', '\ufffd', '\u20ac', '\u{1f600}')
    .map((each) => new Uint8Array(Buffer.from(each)));
  fc.assert(
    fc.property(fc.array(fc.oneof(bytes, text), { maxLength: 4 }), (parts) => {
      const given = Buffer.concat(parts);
      const name = nameOf(given);
      assert.deepEqual(bytesOf(name), given);
      assert.equal(shownOf(name), utf8.decode(given));
      if (name !== utf8.decode(given)) assert.ok(areInDoubt(['eth0', utf8.decode(given), 'lo']));
    }),
  );
});
