import assert from 'node:assert/strict';
import { test } from 'node:test';
import { addressesText, type Network, parseResolvConf, reachOf } from '../../src/server/reach.ts';

const network = (parts: Partial<Network> = {}): Network => ({
  hostName: 's',
  resolve: () => Promise.resolve([]),
  ownAddresses: new Set(['127.0.0.1', '10.77.0.11']),
  routeAddress: () => Promise.resolve('10.77.0.11'),
  ...parts,
});
const all = { address: '', port: 9732 };

async function reach(settings: Partial<Parameters<typeof reachOf>[0]>, parts?: Partial<Network>) {
  const { agents, notices } = await reachOf({ advertise: undefined, listen: all, ...settings }, network(parts));
  return [addressesText(agents), notices.join()] as const;
}

test('what is configured is what the line says', async () => {
  const unasked = { resolve: () => Promise.reject(new Error('asked')) };
  assert.deepEqual(await reach({ advertise: { host: 'srv.example', port: 1 } }, unasked), ['srv.example:1', '']);
  assert.deepEqual(await reach({ listen: { address: '2001:db8::7', port: 2 } }, unasked), ['[2001:db8::7]:2', '']);
});

test('a name that DNS has for this host needs nothing beside it', async () => {
  assert.deepEqual(await reach({}, { resolve: () => Promise.resolve(['10.77.0.11']) }), ['s:9732', '']);
});

test('a name that DNS does not have, or has for another host, has the address of the default route beside it', async () => {
  const [unknown, notice] = await reach({ listen: { address: '0.0.0.0', port: 9732 } });
  assert.equal(unknown, 's:9732,10.77.0.11:9732');
  assert.match(
    notice,
    /^DNS does not have the name 's', so the line names 10\.77\.0\.11:9732 too; set SYSMON_ADVERTISE=/,
  );
  const [others, why] = await reach({}, { resolve: () => Promise.resolve(['203.0.113.9']) });
  assert.equal(others, 's:9732,10.77.0.11:9732');
  assert.match(why, /^DNS has another host's address for 's'/);
});

test('an address that others cannot reach is said', async () => {
  const [line, notice] = await reach({ listen: { address: '127.0.0.1', port: 9732 } });
  assert.equal(line, '127.0.0.1:9732');
  assert.match(notice, /only this host reaches/);
  const [bare, why] = await reach({}, { routeAddress: () => Promise.resolve(undefined) });
  assert.equal(bare, 's:9732');
  assert.match(why, /no default route: set SYSMON_ADVERTISE=/);
});

test('resolv.conf', () => {
  assert.deepEqual(
    parseResolvConf('# x\nnameserver 10.0.0.1\nnameserver  fe80::1%eth0\ndomain a\nsearch b.lan  c .\n'),
    {
      servers: ['10.0.0.1', 'fe80::1%eth0'],
      domains: ['b.lan', 'c'],
    },
  );
  assert.deepEqual(parseResolvConf(''), { servers: [], domains: [] });
});
