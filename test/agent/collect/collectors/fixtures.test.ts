import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { collectorRows } from '../../../../src/agent/collect/collectors/index.ts';
import { expectedOf } from '../../../support/collect-fixture.ts';
import { fixtureFile } from '../../../support/files.ts';
import { parseFixture, printFixture } from '../../../support/fixture-proc.ts';

// Each collector over the kernel files of its fixture. UPDATE=1 rewrites what is expected: read the difference.
for (const { name } of collectorRows) {
  const path = fixtureFile(`collectors/${name}.txt`);
  const fixture = parseFixture(readFileSync(path, 'utf8'));
  if (process.env.UPDATE === '1') {
    const hosts = fixture.hosts.map((host) => ({ ...host, expected: expectedOf(name, host) }));
    writeFileSync(path, printFixture({ ...fixture, hosts }));
  } else {
    for (const host of fixture.hosts) {
      test(`${name}: ${host.title}`, () => {
        assert.equal(expectedOf(name, host), host.expected);
      });
    }
  }
}

test('a fixture file is read as it is printed', () => {
  const text = readFileSync(fixtureFile('collectors/stat.txt'), 'utf8');
  assert.equal(printFixture(parseFixture(text)), text);
});
