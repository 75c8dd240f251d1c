import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type CollectError, FormatError } from '../../../../src/agent/collect/proc/errors.ts';
import { pathOf } from '../../../../src/agent/collect/proc/names.ts';
import { KernelText } from '../../../../src/agent/collect/proc/text.ts';

function textOf(content: string | Uint8Array): KernelText {
  const text = new KernelText('/proc/x');
  const bytes = typeof content === 'string' ? Buffer.from(content) : content;
  text.fill(bytes, bytes.length);
  return text;
}

function firstLine(content: string | Uint8Array): KernelText {
  const text = textOf(content);
  assert.ok(text.nextLine());
  return text;
}

function refused(read: (text: KernelText) => unknown, content: string, message: RegExp): void {
  assert.throws(
    () => read(firstLine(content)),
    (error) => error instanceof FormatError && error.path === '/proc/x' && message.test(error.message),
  );
}

test('lines, words and numbers in order', () => {
  const text = textOf('one  2\t3\n\n  four 5 six seven \n');
  assert.ok(text.nextLine());
  assert.equal(text.word('a'), 'one');
  assert.equal(text.unsigned('b'), 2);
  assert.equal(text.unsigned('c'), 3);
  assert.equal(text.more(), false);
  assert.ok(text.nextLine());
  assert.equal(text.more(), false);
  assert.equal(text.rest(), '');
  assert.ok(text.nextLine());
  assert.equal(text.skip('four'), false, 'spaces are not skipped by themselves');
  assert.ok(text.more());
  assert.ok(text.skip('four'));
  assert.equal(text.unsigned('d'), 5);
  assert.equal(text.rest(), 'six seven');
  assert.equal(text.nextLine(), false);
  assert.equal(text.nextLine(), false);
});

test('property: a whole number up to 2^64-1 is the double nearest to it', () => {
  const numbers = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
  const near = fc
    .tuple(fc.constantFrom(53n, 54n, 60n, 63n), fc.bigInt({ min: -3n, max: 3n }))
    .map(([e, d]) => 2n ** e + d);
  fc.assert(
    fc.property(fc.oneof(numbers, near), (number) => {
      assert.equal(firstLine(`${number} \n`).unsigned('n'), Number(number));
    }),
  );
  assert.equal(firstLine('18446744073709551615\n').unsigned('n'), 2 ** 64);
  assert.equal(firstLine('00000000000000000000000000000007\n').unsigned('n'), 7);
});

test('what is not a whole number is refused, with file, line and what it was', () => {
  refused(
    (text) => text.unsigned('the count'),
    '-1\n',
    /'\/proc\/x', line 1: the count is "-1", expected a whole number/,
  );
  refused((text) => text.unsigned('the count'), '1.5\n', /"1\.5"/);
  refused((text) => text.unsigned('the count'), '1x 2\n', /"1x"/);
  refused((text) => text.unsigned('the count'), '  \n', /the count is missing/);
  refused((text) => text.unsigned('the count'), '18446744073709560000\n', /expected at most 2\^64-1/);
  refused((text) => text.unsigned('the count'), `${'9'.repeat(400)}\n`, /"9{40}"…, expected at most/);
  refused((text) => text.unsigned('the count'), `${'x'.repeat(400)}\n`, /"x{40}"…, expected a whole number/);
});

test('hundredths are exact', () => {
  for (const [text, value] of [
    ['0.00', 0],
    ['0.07', 7],
    ['1.10', 110],
    ['123456.99', 12_345_699],
  ] as const) {
    assert.equal(firstLine(`${text} 1\n`).hundredths('load'), value);
  }
  for (const text of ['', '1', '1.2', '1.234', '.12', '1,23', '-1.00', '1.2x', 'x.00', `${'9'.repeat(30)}.00`]) {
    refused((line) => line.hundredths('the load'), `${text}\n`, /the load is (missing|".*", expected|".*"…, expected)/);
  }
});

test('keys end before a colon, and before the last one', () => {
  assert.equal(firstLine('Active(anon):  1 kB\n').key('k'), 'Active(anon)');
  assert.equal(firstLine('  eth0:1:22\n').key('k'), 'eth0');
  const text = firstLine('  eth0:1:22 3\n');
  assert.equal(text.keyToLastColon('k'), 'eth0:1');
  assert.equal(text.unsigned('n'), 22);
  refused((line) => line.key('the name'), 'eth0 1\n', /the name should end with a colon/);
  refused((line) => line.keyToLastColon('the name'), 'eth0 1\n', /the name should end with a colon/);
  refused((line) => line.keyToLastColon('the name'), '\n', /the name should end with a colon/);
});

test('property: keys are read as they are, whatever stood on the same line before', () => {
  const text = new KernelText('/proc/x');
  const key = fc.oneof(
    fc.constantFrom('a', 'ab', 'abc', 'b', 'ü', '\xfc', ''),
    fc.string({ unit: 'grapheme', maxLength: 3 }),
  );
  const bytes = fc.oneof(key.map(Buffer.from), fc.constant(Buffer.from([0xfc])));
  fc.assert(
    fc.property(fc.array(fc.array(bytes, { maxLength: 4 }), { maxLength: 4 }), (contents) => {
      for (const keys of contents) {
        fc.pre(!keys.some((given) => /[:\s]/.test(given.toString())));
        const content = Buffer.concat(keys.flatMap((given) => [given, Buffer.from(': 1\n')]));
        text.fill(content, content.length);
        for (const given of keys) {
          assert.ok(text.nextLine());
          assert.deepEqual(Buffer.from(pathOf(text.key('key'))), given);
          assert.equal(text.unsigned('n'), 1);
        }
      }
    }),
  );
});

test('the last line need not end with a newline', () => {
  const text = textOf('one\n2 3');
  assert.ok(text.nextLine());
  assert.ok(text.nextLine());
  assert.deepEqual([text.unsigned('a'), text.unsigned('b')], [2, 3]);
  assert.equal(text.more(), false);
  assert.equal(text.nextLine(), false);
  const shorter = Buffer.from('4');
  text.fill(shorter, shorter.length);
  text.firstLine();
  assert.equal(text.unsigned('n'), 4);
  assert.equal(text.nextLine(), false);
  text.fill(shorter, 0);
  assert.ok(text.isEmpty);
  assert.throws(() => text.firstLine(), /is empty/);
});

test('the first line is the first that is not blank', () => {
  const first = (content: string) => {
    const text = textOf(content);
    text.firstLine();
    return text.rest();
  };
  assert.equal(first('one\ntwo\n'), 'one');
  assert.equal(first('\n \t\n two\n'), 'two');
  assert.equal(first('\n'), '');
  assert.equal(first(' \n\n'), '');
  assert.throws(() => first(''), /'\/proc\/x' is empty/);
  assert.equal(first('on'), 'on');
});

/** The numbers of the lines that begin with `n`, and why others gave none. */
function numbersOf(content: string): { numbers: number[]; errors: string[] } {
  const parseErrors: CollectError[] = [];
  const text = new KernelText('/proc/x', undefined, parseErrors);
  text.fill(Buffer.from(content), content.length);
  const numbers: number[] = [];
  text.eachLine('an n', (line) => {
    if (!line.skip('n ')) return false;
    numbers.push(line.unsigned('the number'));
    return true;
  });
  return { numbers, errors: parseErrors.map(({ message }) => message) };
}

test('each line: blank and unknown ones are passed over, one that cannot be parsed costs itself alone', () => {
  assert.deepEqual(numbersOf('n 1\n\n  \t\nm 7\nn x\n  n 2\nn -3\nn 4'), {
    numbers: [1, 2, 4],
    errors: [
      `'/proc/x', line 5: the number is "x", expected a whole number`,
      `'/proc/x', line 7: the number is "-3", expected a whole number`,
    ],
  });
});

test('a file without any good line is refused, with the first reason that there is', () => {
  assert.throws(() => numbersOf(''), /^FormatError: '\/proc\/x' is empty$/);
  assert.throws(() => numbersOf('\nm 1\n'), /^FormatError: '\/proc\/x' has no line of an n$/);
  assert.throws(() => numbersOf('n x\nn y\n'), /line 1: the number is "x"/);
});

test('what is thrown for another reason is a bug, and comes out', () => {
  const text = textOf('one\ntwo\n');
  const bug = () => {
    throw new TypeError('a bug');
  };
  assert.throws(() => text.eachLine('a bug', bug), TypeError);
});

test('numbers behind the starts of lines, where all are there in this order', () => {
  const into: number[] = [];
  const text = textOf('first 1\nsecond 2\nnth 33\nlast 999999999999999\n');
  assert.ok(text.unsignedsBehind(['first ', 'nth ', 'last '], into));
  assert.deepEqual(into, [1, 33, 999_999_999_999_999]);
  assert.ok(text.unsignedsBehind(['second '], into));
  assert.equal(into[0], 2);
  assert.ok(textOf('a 1\nb 2').unsignedsBehind(['a ', 'b '], into));
  assert.deepEqual(into.slice(0, 2), [1, 2]);
  for (const [content, starts] of [
    ['a 1\nb 2\n', ['a ', 'c ']],
    ['a 1\nb 2\n', ['b ', 'a ']],
    ['xa 1\n', ['a ']],
    ['a 1\nb \n', ['a ', 'b ']],
    ['a 1\nb -2\n', ['a ', 'b ']],
    ['a 1\nb 2 3\n', ['a ', 'b ']],
    ['a 1\nb 1234567890123456\n', ['a ', 'b ']],
    ['', ['a ']],
  ] as const) {
    assert.equal(textOf(content).unsignedsBehind(starts, into), false, JSON.stringify(content));
  }
});

test('a row of numbers is read as far as there is room', () => {
  const into: number[] = [];
  assert.equal(firstLine('1 2\n').unsigneds(into, ['a', 'b', 'c']), 2);
  assert.equal(firstLine('\n').unsigneds(into, ['a', 'b', 'c']), 0);
  assert.equal(firstLine(' 7  8\t9 10\n').unsigneds(into, ['a', 'b', 'c']), 3);
  assert.deepEqual([...into], [7, 8, 9]);
  refused((text) => text.unsigneds(into, ['a', 'b', 'c']), '1 -2 3\n', /line 1: b is "-2", expected a whole number/);
});

test('numbers with a sign', () => {
  for (const [text, value] of [
    ['-1 x', -1],
    ['\t 7', 7],
    ['-0', 0],
    ['-9223372036854775808', -(2 ** 63)],
  ] as const) {
    assert.equal(firstLine(`${text}\n`).signed('n'), value);
  }
  for (const text of ['', '-', '- 1', '--1', '-x', '-1x', '+1']) {
    refused((line) => line.signed('n'), `${text}\n`, /n is (missing|"[^"]+", expected a whole number)/);
  }
});

test('hexadecimal numbers, and rows of them', () => {
  for (const [text, value] of [
    ['0', 0],
    ['002b0974 1', 0x2b0974],
    ['\tDEADbeef', 0xdeadbeef],
    ['0000001A:0000002B', 26],
    ['ffffffffffffffff', 2 ** 64],
  ] as const) {
    assert.equal(firstLine(`${text}\n`).hexadecimal('n'), value);
  }
  for (const text of ['', '-1', 'g', '1g', '0x1', '00000000000000000']) {
    refused((line) => line.hexadecimal('n'), `${text}\n`, /n is (missing|"[^"]+", expected a hexadecimal number)/);
  }
  const pair = firstLine('0000001A:0000002B 00\n');
  assert.deepEqual([pair.hexadecimal('a'), pair.skip(':'), pair.hexadecimal('b')], [26, true, 43]);
  const into: number[] = [];
  assert.equal(firstLine('a  b\n').hexadecimals(into, ['x', 'y', 'z']), 2);
  assert.equal(firstLine('1 2 3 4\n').hexadecimals(into, ['x', 'y', 'z']), 3);
  assert.deepEqual(into, [1, 2, 3]);
  refused((text) => text.hexadecimals(into, ['x', 'y']), '1 -2\n', /line 1: y is "-2", expected a hexadecimal/);
});

test('places in a line, its words and its columns', () => {
  const line = () => firstLine('some avg10=0.00  total=7 eth0 \n9\n');
  const past = line();
  assert.ok(past.skipPast('total='));
  assert.equal(past.unsigned('n'), 7);
  assert.equal(past.skipPast('9'), false, 'not in the next line');
  assert.equal(past.wordCount(), 1);
  assert.ok(past.skipWord());
  assert.equal(past.skipWord(), false);
  assert.equal(line().lastWord('w'), 'eth0');
  assert.equal(line().wordCount(), 4);
  refused((text) => text.lastWord('the device'), ' \n', /the device is missing/);
  assert.equal(firstLine('one\n').lastWord('w'), 'one');
  assert.equal(firstLine('Tcp: 1\n').keyIfThere(), 'Tcp');
  assert.equal(firstLine('Tcp 1\nUdp: 2\n').keyIfThere(), undefined);
  assert.deepEqual(
    [firstLine('7\n').isAtDigit(), firstLine('a\n').isAtDigit(), firstLine('a\n').isAtHexadecimal()],
    [true, false, true],
  );
  const into: number[] = [];
  assert.equal(firstLine('1 2 -3  4\n').columns(into, [0, 2, 3], ['a', 'c', 'd'], 'signed'), 3);
  assert.deepEqual(into, [1, -3, 4]);
  assert.equal(firstLine('1 2\n').columns(into, [1, 2], ['b', 'c'], 'unsigned'), 1);
  assert.equal(firstLine('1\n').columns(into, [3], ['d'], 'unsigned'), 0);
  refused((text) => text.columns(into, [1], ['b'], 'unsigned'), '1 -2\n', /b is "-2", expected a whole number/);
});

test('numbers with some digits behind their point', () => {
  assert.equal(firstLine('2445.406 x\n').decimal('MHz', 3), 2445406);
  refused((line) => line.decimal('MHz', 3), '2445.40\n', /MHz is "2445.40", expected a number with 3 digits behind/);
});

test('what was in the file before is not seen again', () => {
  const text = textOf('123456\n7\n');
  const shorter = Buffer.from('1\n');
  text.fill(shorter, shorter.length);
  assert.ok(text.nextLine());
  assert.equal(text.unsigned('n'), 1);
  assert.equal(text.nextLine(), false);
});

test('words: the same string for the same bytes; what is no UTF-8 can be its bytes again', () => {
  assert.equal(firstLine('über \n').word('w'), 'über');
  assert.equal(firstLine(Buffer.from([0x61, 0xff, 0x62, 0x0a])).word('w'), 'a\udcffb');
  assert.equal(firstLine('\ufeffx\n').word('w'), '\ufeffx', 'a byte order mark is a character like others');
});

test('property: whatever the words, each is read as it is, though hashes collide and the memory of words is full', () => {
  const text = new KernelText('/proc/x');
  const words = Array.from({ length: 20_000 }, (_, at) => `w${at.toString(36)}`);
  const readBack = (word: string) => {
    const bytes = Buffer.from(`${word}\n`);
    text.fill(bytes, bytes.length);
    text.nextLine();
    assert.equal(text.word('w'), word);
  };
  for (let round = 0; round < 2; round++) words.forEach(readBack);
  // With 31 as the factor these two have the same hash.
  for (const word of ['Aa', 'BB', 'Aa', 'BB']) readBack(word);
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme', minLength: 1 }), (word) => {
      fc.pre(!/[ \t\n]/.test(word));
      readBack(word);
    }),
  );
});

test('sizes in a unit are bytes', () => {
  const size = (content: string, options?: Parameters<KernelText['humanSize']>[1]) =>
    firstLine(content).humanSize('the size', options);
  assert.deepEqual(
    ['0', '512', '1k', '1K', '1.5k', '3.9G', '2T'].map((each) => size(`${each}\n`)),
    [...[0, 512, 1024, 1024, 1536], ...[Math.trunc(3.9 * 2 ** 30), 2 * 2 ** 40]],
  );
  assert.equal(size('-2M\n'), -2_097_152);
  assert.ok(Object.is(size('-0k\n'), 0), 'no minus zero');
  assert.equal(size('1.0M/sec\n', { after: '/sec' }), 1_048_576);
  // A driver may print a digit behind the point that is no tenth.
  assert.equal(size('1.512k\n', { fraction: (digits) => Number(digits) / 1024 }), 1536);
  const text = firstLine('4k 7\n');
  assert.deepEqual([text.humanSize('a'), text.unsigned('b')], [4096, 7]);
  for (const wrong of ['k', '1.k', '1x', '1kk', '.5k', '--1', '1.5k/s', '1234567890123456']) {
    refused((line) => line.humanSize('the size'), `${wrong}\n`, /the size is "[^"]*", expected a size such as 1\.5k$/);
  }
  refused((line) => line.humanSize('the size', { after: '/sec' }), '1k\n', /such as 1\.5k\/sec$/);
});

test('whole numbers in parentheses, at the end of a line', () => {
  const row = (content: string) => {
    const into: number[] = [];
    const count = firstLine(content).unsignedsInParentheses(into, 'the row');
    return into.slice(0, count);
  };
  assert.deepEqual(row('(0, 2946, 3922)\n'), [0, 2946, 3922]);
  assert.deepEqual(row('  (7) \n'), [7]);
  for (const wrong of ['', '()', '(1', '1, 2', '(1,)', '(1) 2', '(1;2)', '(-1)', '(1, x)', '(12345678901234567890)']) {
    refused(
      (line) => line.unsignedsInParentheses([], 'the row'),
      `.${wrong}\n`,
      /the row is ".*, expected whole numbers/,
    );
    assert.throws(() => row(` ${wrong}.\n`), FormatError, wrong);
  }
});

test('a part of a word that is a whole number', () => {
  const text = firstLine('a=-12\n');
  assert.deepEqual([text.wholeNumber('-12', 'a'), text.wholeNumber('007', 'a')], [-12, 7]);
  for (const wrong of ['', '-', '1.5', '0x1', ' 1', '1e3', '123456789012345678901']) {
    assert.throws(() => text.wholeNumber(wrong, 'a'), /line 1: a is ".*", expected a whole number$/);
  }
});

test('the last of several places in a line, and what is left of it', () => {
  const text = textOf('eth0: veth1: 5\nnext: 6\n');
  assert.ok(text.nextLine());
  assert.equal(text.peek(), 'eth0: veth1: 5');
  assert.ok(text.skipPastLast(': '));
  assert.equal(text.peek(), '5');
  assert.equal(text.skipPastLast(': '), false, 'it is behind that already');
  assert.equal(text.unsigned('n'), 5);
  assert.equal(text.skipPastLast('next'), false, 'that is another line');
  assert.ok(text.nextLine());
  assert.ok(text.skipPastLast('next:'));
});

test("the kernel's words for no value", () => {
  const says = (content: string) => firstLine(content).saysUnknown();
  assert.deepEqual(['<unknown>\n', '<unsupported>\n', '<other>\n', 'unknown\n', '5\n'].map(says), [
    ...[true, true, false, false, false],
  ]);
});

test('the content as it is, of the last read alone', () => {
  const text = textOf(Uint8Array.of(0, 255, 10, 128));
  assert.deepEqual([...text.content()], [0, 255, 10, 128]);
  text.fill(Uint8Array.of(7), 1);
  assert.deepEqual([...text.content()], [7]);
});
