import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { FormatError } from '../../../../src/agent/collect/proc/errors.ts';
import { TimeZone, utc } from '../../../../src/agent/collect/proc/time-zone.ts';

const zones = '/usr/share/zoneinfo';
const skip = !existsSync(`${zones}/Europe/Berlin`) && `no ${zones}: install tzdata`;

function zoneOf(name: string): TimeZone {
  return new TimeZone(readFileSync(`${zones}/${name}`), `${zones}/${name}`);
}

/** `date` of the C library: abbreviation and offset of many instants. */
function dateSays(zone: string, times: readonly number[]): string[] {
  const { stdout, status } = spawnSync('date', ['-f', '-', '+%Z %z'], {
    input: times.map((time) => `@${time}\n`).join(''),
    env: { PATH: process.env.PATH, TZ: zone, LC_ALL: 'C' },
    encoding: 'utf8',
  });
  assert.equal(status, 0);
  return stdout.trimEnd().split('\n');
}

function offsetText(seconds: number): string {
  const minutes = Math.trunc(Math.abs(seconds) / 60);
  const pad = (number: number) => String(number).padStart(2, '0');
  return `${seconds < 0 ? '-' : '+'}${pad(Math.trunc(minutes / 60))}${pad(minutes % 60)}`;
}

// North and south, rules with days of the month and without, half hours, a rule with summer time backwards (Dublin),
// a change at a negative hour (Nuuk), names in brackets, none at all.
for (const zone of [
  'UTC',
  'Europe/Berlin',
  'Europe/Dublin',
  'America/New_York',
  'America/Nuuk',
  'America/Santiago',
  'Australia/Lord_Howe',
  'Asia/Kolkata',
  'Asia/Tehran',
  'Africa/Casablanca',
  'Pacific/Apia',
  'Pacific/Chatham',
  'Etc/GMT+12',
]) {
  test(`${zone} says what date says, from 1950 to 2100`, {
    skip: skip || (!existsSync(`${zones}/${zone}`) && 'no such zone'),
  }, () => {
    const times: number[] = [];
    for (let time = -631_152_000; time < 4_102_444_800; time += 86_400 * 11 + 12_345) times.push(time);
    // Each second around one change of this year and of a year that only the rule knows.
    for (const change of [Date.UTC(2024, 2, 31, 1), Date.UTC(2024, 9, 27, 1), Date.UTC(2061, 2, 27, 1)]) {
      for (let second = -2; second <= 2; second++) times.push(change / 1000 + second);
    }
    const says = dateSays(zone, times);
    const local = zoneOf(zone);
    times.forEach((time, at) => {
      const { abbreviation, offsetSeconds } = local.at(time);
      assert.equal(`${abbreviation} ${offsetText(offsetSeconds)}`, says[at], `at ${time}`);
    });
  });
}

/** A file of version 2 with nothing but a rule. */
function ruleOnly(rule: string): Uint8Array {
  const header = Buffer.concat([Buffer.from('TZif2'), Buffer.alloc(15), Buffer.alloc(24)]);
  header.writeUInt32BE(1, 36);
  header.writeUInt32BE(4, 40);
  const block = Buffer.concat([Buffer.alloc(6), Buffer.from('UTC\0')]);
  return Buffer.concat([header, block, header, block, Buffer.from(`\n${rule}\n`)]);
}

test('rules of every form', () => {
  const at = (rule: string, time: number) => {
    const { abbreviation, offsetSeconds } = new TimeZone(ruleOnly(rule), 'zone').at(time / 1000);
    return `${abbreviation} ${offsetSeconds / 60}`;
  };
  assert.equal(at('', Date.UTC(2024, 0, 1)), 'UTC 0');
  assert.equal(at('<+0330>-3:30', Date.UTC(2024, 0, 1)), '+0330 210');
  // Julian days never count 29 February: 60 is 1 March in each year.
  assert.equal(at('A0B,J60/0,J300/0', Date.UTC(2024, 2, 1)), 'B 60');
  assert.equal(at('A0B,J60/0,J300/0', Date.UTC(2024, 1, 29, 23)), 'A 0');
  assert.equal(at('A0B,J60/0,J300/0', Date.UTC(2023, 2, 1)), 'B 60');
  assert.equal(at('A0B,59/0,300/0', Date.UTC(2024, 1, 29)), 'B 60');
  assert.equal(at('A5B3:30,M3.2.0,M11.1.0', Date.UTC(2024, 6, 1)), 'B -210');
});

test('a file that is something else, or cut anywhere, is refused with its name', () => {
  assert.throws(
    () => new TimeZone(Buffer.from('nothing of the kind, but long enough to be one'), '/etc/localtime'),
    (error) =>
      error instanceof FormatError && /'\/etc\/localtime' is not a file of the zone database/.test(error.message),
  );
  const whole = ruleOnly('CET-1CEST,M3.5.0,M10.5.0/3');
  for (let length = 0; length < whole.length; length++) {
    assert.throws(() => new TimeZone(whole.subarray(0, length), 'zone'), FormatError, `cut at ${length}`);
  }
  for (const rule of ['CET', 'CET-1CEST', 'CET-1CEST,M3.5.0', 'A0B,X,Y', 'Ax']) {
    assert.throws(() => new TimeZone(ruleOnly(rule), 'zone'), FormatError, rule);
  }
});

test('a header that promises more than there is does not reserve it', () => {
  const bytes = Buffer.from(ruleOnly('UTC0'));
  bytes.writeUInt32BE(0xffff_ffff, 32);
  assert.throws(() => new TimeZone(bytes, 'zone'), /cut off/);
});

test('UTC where there is no zone', () => {
  assert.deepEqual(utc, { abbreviation: 'UTC', offsetSeconds: 0 });
});
