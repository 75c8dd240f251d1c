import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  addressText,
  boolean,
  bytes,
  choice,
  duration,
  hostPort,
  integer,
  isLoopback,
  listenAddress,
  type Parser,
  path,
  regexp,
  text,
} from '../../src/runtime/options.ts';
import { bytesText, durationText } from '../../src/runtime/words.ts';

function takes<T>(parse: Parser<T>, cases: readonly (readonly [string, T])[]) {
  for (const [given, expected] of cases) assert.deepEqual(parse(given), expected, `'${given}'`);
}

function refuses(parse: Parser<unknown>, cases: readonly string[]) {
  for (const given of cases) assert.throws(() => parse(given), /^Error: expected /, `'${given}'`);
}

test('durations', () => {
  takes(duration(), [
    ['5s', 5000],
    ['1m30s', 90_000],
    ['24h', 86_400_000],
    ['500ms', 500],
    ['1w2d', 777_600_000],
    ['1h0m5s', 3_605_000],
    ['0', 0],
    ['0s', 0],
    ['90m', 5_400_000],
  ]);
  refuses(duration(), ['', '5', 's', '-5s', '5s1m', '1.5s', ' 5s', '5 s', '5S', '5s5s', '1e3s', '9'.repeat(16)]);
  refuses(duration({ minMs: 1000, maxMs: 60_000 }), ['999ms', '61s', `${'9'.repeat(15)}w`]);
  takes(duration({ minMs: 1000, maxMs: 60_000 }), [
    ['1s', 1000],
    ['1m', 60_000],
  ]);
});

test('a duration is read as it is written', () => {
  fc.assert(fc.property(fc.nat({ max: 10_000_000_000 }), (ms) => duration()(durationText(ms)) === ms));
});

test('bytes', () => {
  takes(bytes(), [
    ['0', 0],
    ['65536', 65_536],
    ['100B', 100],
    ['64MiB', 67_108_864],
    ['1GiB', 1_073_741_824],
    ['2TiB', 2_199_023_255_552],
    ['3KiB', 3072],
  ]);
  refuses(bytes(), ['', '64MB', '64M', '64 MiB', '-1', '1.5GiB', 'MiB', '1iB', `${'9'.repeat(15)}TiB`]);
  refuses(bytes({ min: 1024, max: 2048 }), ['1023', '2049', '1MiB']);
  fc.assert(fc.property(fc.nat(), (value) => bytes()(bytesText(value)) === value));
});

test('whole numbers', () => {
  const parse = integer({ min: -5, max: 100 });
  takes(parse, [
    ['0', 0],
    ['-5', -5],
    ['100', 100],
  ]);
  refuses(parse, ['', '-6', '101', '1.0', '0x1', '1e1', ' 1', 'NaN']);
});

test('choices, truth, paths, texts', () => {
  takes(choice(['a', 'b']), [['b', 'b']]);
  refuses(choice(['a', 'b']), ['', 'A', 'ab']);
  takes(boolean, [
    ['true', true],
    ['0', false],
    ['on', true],
    ['no', false],
  ]);
  refuses(boolean, ['', 'TRUE', '2']);
  takes(path, [['/a b', '/a b']]);
  refuses(path, ['', 'a\0b']);
  takes(text(/^x/, 'an x'), [['xy', 'xy']]);
  refuses(text(/^x/, 'an x'), ['y']);
  refuses(text(), ['']);
});

test('regular expressions', () => {
  assert.equal(regexp('^eth\\d+$').test('eth0'), true);
  refuses(regexp, ['(', '[']);
});

test('hosts with ports', () => {
  takes(hostPort(9732), [
    ['relay.example', { host: 'relay.example', port: 9732 }],
    ['relay.example:1', { host: 'relay.example', port: 1 }],
    ['192.0.2.7:65535', { host: '192.0.2.7', port: 65_535 }],
    ['[2001:db8::7]:80', { host: '2001:db8::7', port: 80 }],
    ['[fe80::1%eth0]:80', { host: 'fe80::1%eth0', port: 80 }],
    ['[::1]', { host: '::1', port: 9732 }],
  ]);
  refuses(hostPort(9732), ['', ':1', 'a:', 'a:0', 'a:65536', '::1', '::1:80', 'a b:1', 'http://a:1', 'a:b', '[x]:1']);
  refuses(hostPort(), ['relay.example']);
});

test('addresses to listen on', () => {
  takes(listenAddress, [
    [':9732', { address: '', port: 9732 }],
    ['127.0.0.1:0', { address: '127.0.0.1', port: 0 }],
    ['[::]:9732', { address: '::', port: 9732 }],
    ['localhost:1', { address: 'localhost', port: 1 }],
  ]);
  refuses(listenAddress, ['', '9732:', '127.0.0.1', '::1:9732', ':99999', ':']);
  for (const given of [':9732', '[::1]:5', '10.0.0.1:80']) {
    const { address, port } = listenAddress(given);
    assert.equal(addressText(address, port), given);
  }
});

test('loopback', () => {
  for (const address of ['127.0.0.1', '127.8.9.10', '::1', 'localhost', '::ffff:127.0.0.1']) {
    assert.equal(isLoopback(address), true, address);
  }
  for (const address of ['', '0.0.0.0', '::', '128.0.0.1', '1127.0.0.1', '127.0.0.1.example', '10.0.0.1']) {
    assert.equal(isLoopback(address), false, address);
  }
});
