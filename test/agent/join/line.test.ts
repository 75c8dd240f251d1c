import assert from 'node:assert/strict';
import { test } from 'node:test';
import { joinLineText, parseJoinLine } from '../../../src/agent/join/line.ts';
import { UsageError } from '../../../src/runtime/options.ts';

const hex = '0123456789abcdef'.repeat(4);
const line = `sysmon-join-v1 s:9732 web-9:3:5c9e0b3a ${hex}`;
const parsed = (text: string) => {
  const { servers, key } = parseJoinLine(text, 'web-2');
  return [servers.map(({ host, port }) => `${host} ${port}`), key.identity, key.agentName, key.key.toString('hex')];
};

test('a line, however it was copied', () => {
  const expected = [['s 9732'], 'web-9:3:5c9e0b3a', 'web-9', hex];
  for (const text of [
    line,
    `${line}\n`,
    `${line}\r\n`,
    `\uFEFF${line}\r\n\r\n`,
    `\n  \n\t${line.replace(/ /g, '  ')}  \n`,
    `${line}\r`,
    `Here it is:\n\n${line}\n\nRegards\n`,
    line.replace(/ /g, '\u00a0'),
  ]) {
    assert.deepEqual(parsed(text), expected, JSON.stringify(text));
  }
});

test('several addresses of the server', () => {
  const [servers] = parsed(line.replace('s:9732', 's.lan:9732,10.77.0.11:9732,[2001:db8::7]:1'));
  assert.deepEqual(servers, ['s.lan 9732', '10.77.0.11 9732', '2001:db8::7 1']);
});

test('what is wrong is said, and no key is shown', () => {
  for (const [text, expected] of [
    ['', /^no join line was given: run 'sudo sysmon-server enroll web-2' on the server/],
    ['web-2\n', /begins with another word than sysmon-join-v1/],
    [line.replace('v1', 'v2'), /begins with another word than sysmon-join-v1/],
    ['sysmon-join-v1 s:9732', /has 2 words: expected the 4/],
    [`${line} x`, /has 5 words/],
    [`${line}\n${line}`, /there are 2 join lines/],
    [line.slice(0, -1), /the key in the join line is not whole: expected 64 hexadecimal digits/],
    [`${line}0`, /not whole/],
    [line.replace('s:9732', 's'), /the server in the join line is 's': expected HOST:PORT/],
    [line.replace('s:9732', 's:9732,'), /the server in the join line is '': expected HOST:PORT/],
    [line.replace('s:9732', 's:0'), /the server in the join line is 's:0'/],
    [line.replace('s:9732', 's:1,'.repeat(9).slice(0, -1)), /has 9 servers: expected at most 8/],
    [line.replace('web-9:3', 'web 9:3'), /has 5 words/],
    [line.replace('web-9:3:5c9e0b3a', 'web-9'), /the identity in the join line is 'web-9': expected NAME:GENERATION/],
    [line.replace('web-9:', 'wéb:'), /the identity in the join line/],
  ] as const) {
    assert.throws(
      () => parseJoinLine(text, 'web-2'),
      (error) => {
        assert.ok(error instanceof UsageError);
        assert.match(error.message, expected, text);
        assert.doesNotMatch(error.message, /[0-9a-f]{32}/);
        return true;
      },
    );
  }
});

test('printed with the one address that works', () => {
  const { key } = parseJoinLine(line, 'web-2');
  assert.equal(joinLineText('10.77.0.11:9732', key), `${line.replace(' s:', ' 10.77.0.11:')}\n`);
});
