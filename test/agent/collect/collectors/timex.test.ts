import assert from 'node:assert/strict';
import { test } from 'node:test';
import { expositionOf } from '../../../../src/agent/collect/exposition.ts';
import { CollectError } from '../../../../src/agent/collect/proc/errors.ts';
import { askedHost, contextOf, newCollector, OneCollector } from '../../../support/collect-fixture.ts';
import { FakeBus, type Typed } from '../../../support/fake-bus.ts';
import { FakeChrony } from '../../../support/fake-chrony.ts';
import { hostOf, makeTree } from '../../../support/fixture-proc.ts';
import { VirtualClock } from '../../../support/virtual-clock.ts';

const variant = (signature: string, value: unknown): Typed => ['v', [signature, value]];
const startUs = 1_719_833_400_000_000;
/** The server is 5 ms ahead; there and back took 40 ms, of which it needed 10. */
const message = (packets = 9): Typed =>
  variant('(uuuuittayttttbtt)', [
    ...[0, 4, 4, 2, -25, 30_000, 1000, [1, 2, 3, 4]],
    ...[startUs, startUs + 20_000, startUs + 30_000, startUs + 40_000, false, packets, 700],
  ]);

async function withBus(
  run: (bus: FakeBus, collect: () => Promise<readonly string[] | string>, clock: VirtualClock) => Promise<void>,
  // This host may have a chronyd.
  chronyPort = 0,
) {
  const tree = makeTree([]);
  const host = hostOf(tree, { system: new Map() });
  const clock = new VirtualClock();
  const collector = newCollector('timex', { ...contextOf(new Map([['timex.chrony-port', `${chronyPort}`]])), clock });
  const one = new OneCollector(collector);
  const bus = await FakeBus.listen(tree.path('root/run/dbus/system_bus_socket'));
  try {
    await run(
      bus,
      async () => {
        try {
          await collector.prepare!(host);
          return expositionOf(one.collect(host))
            .split('\n')
            .filter((line) => line !== '' && !line.startsWith('#'));
        } catch (error) {
          if (!(error instanceof CollectError)) throw error;
          return `${error.code}: ${error.message.replaceAll(tree.folder, '')}`;
        }
      },
      clock,
    );
  } finally {
    await bus.close();
    host.close();
    tree.remove();
  }
}

test('a host with systemd-timesyncd: once a minute, timedated once in five', () =>
  withBus(async (bus, collect, clock) => {
    bus.more.set('Get NTPSynchronized', variant('b', true));
    bus.more.set('NameHasOwner', ['b', true]);
    bus.more.set('Get NTPMessage', message());
    const expected = askedHost('timex')
      ?.expected?.split('\n')
      .filter((line) => line !== '' && !line.startsWith('#'));
    assert.deepEqual(await collect(), expected);
    for (let minute = 0; minute < 4; minute++) {
      await clock.advance(60_000);
      await collect();
    }
    assert.equal(bus.calls.get('Get NTPMessage'), 5);
    assert.equal(bus.calls.get('Get NTPSynchronized'), 1);
    bus.more.set('Get NTPSynchronized', variant('b', false));
    await clock.advance(60_000);
    assert.deepEqual(await collect(), [
      'node_timex_estimated_error_seconds 0.0007',
      'node_timex_maxerror_seconds 16',
      'node_timex_offset_seconds 0.005',
      'node_timex_sync_status 0',
    ]);
  }));

test('another program keeps the time; it has not heard from a server yet; or nobody says anything', () =>
  withBus(async (bus, collect, clock) => {
    bus.more.set('NameHasOwner', ['b', false]);
    assert.match(String(await collect()), /^no-data: .* knows neither systemd-timedated nor systemd-timesyncd$/);
    await clock.advance(300_000);
    bus.more.set('Get NTPSynchronized', variant('b', true));
    assert.deepEqual(await collect(), ['node_timex_sync_status 1']);
    assert.equal(bus.calls.get('Get NTPMessage'), undefined, 'the question would start it');
    bus.more.set('NameHasOwner', ['b', true]);
    bus.more.set('Get NTPMessage', message(0));
    await clock.advance(60_000);
    assert.deepEqual(await collect(), ['node_timex_sync_status 1']);
  }));

test('a host with chronyd: systemd-timedated says whether, chronyd how well', async (context) => {
  const tracking = { offset: 0.25, rootMeanSquare: 0.125, rootDelay: 0.5, rootDispersion: 0.0625 };
  const chrony = await FakeChrony.listen(context, { ...tracking, isSynchronized: true });
  const quality = [
    'node_timex_estimated_error_seconds 0.125',
    'node_timex_maxerror_seconds 0.3125',
    'node_timex_offset_seconds 0.25',
  ];
  await withBus(async (bus, collect, clock) => {
    bus.more.set('NameHasOwner', ['b', false]);
    bus.more.set('Get NTPSynchronized', variant('b', true));
    assert.deepEqual(await collect(), [...quality, 'node_timex_sync_status 1']);
    await collect();
    assert.equal(chrony.questions, 1, 'once a minute');

    // It does not answer for a while: what is known otherwise is there.
    chrony.tracking = undefined;
    chrony.before = [Buffer.from('what?')];
    await clock.advance(60_000);
    assert.deepEqual(await collect(), ['node_timex_sync_status 1']);
    chrony.before = [];

    bus.more.set('NameHasOwner', ['b', true]);
    bus.more.set('Get NTPMessage', message());
    await clock.advance(60_000);
    const { questions } = chrony;
    assert.equal((await collect()).length, 4);
    assert.equal(chrony.questions, questions, 'systemd-timesyncd has said all');
  }, chrony.port);
});

test('a host without systemd: chronyd alone, or nobody', async (context) => {
  const tracking = { offset: 0, rootMeanSquare: 0, rootDelay: 0, rootDispersion: 0, isSynchronized: false };
  const chrony = await FakeChrony.listen(context, tracking);
  const tree = makeTree([]);
  const host = hostOf(tree, { system: new Map() });
  const clock = new VirtualClock();
  const options = new Map([['timex.chrony-port', `${chrony.port}`]]);
  const collector = newCollector('timex', { ...contextOf(options), clock });
  const one = new OneCollector(collector);
  try {
    await collector.prepare!(host);
    const lines = expositionOf(one.collect(host)).split('\n');
    assert.deepEqual(
      lines.filter((line) => line !== '' && !line.startsWith('#')),
      ['node_timex_maxerror_seconds 16', 'node_timex_sync_status 0'],
    );
    await chrony.close();
    await clock.advance(60_000);
    await collector.prepare!(host);
    assert.throws(
      () => one.collect(host),
      (error) =>
        error instanceof CollectError &&
        error.code === 'no-data' &&
        error.message.endsWith(` does not exist, and no chronyd answers on port ${chrony.port}`),
    );
  } finally {
    host.close();
    tree.remove();
  }
});
