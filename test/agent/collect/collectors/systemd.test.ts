import assert from 'node:assert/strict';
import { mkdirSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { dirname } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { expositionOf } from '../../../../src/agent/collect/exposition.ts';
import { CollectError } from '../../../../src/agent/collect/proc/errors.ts';
import { askedHost, contextOf, newCollector, OneCollector } from '../../../support/collect-fixture.ts';
import { FakeBus } from '../../../support/fake-bus.ts';
import { hostOf, makeTree } from '../../../support/fixture-proc.ts';
import { VirtualClock } from '../../../support/virtual-clock.ts';

/** A host with a bus. */
class Bed {
  readonly tree = makeTree([]);
  readonly host = hostOf(this.tree, { system: new Map() });
  readonly clock = new VirtualClock();
  readonly #collector;
  readonly #one: OneCollector;
  bus!: FakeBus;
  /** Of the last collection. */
  text = '';

  constructor(options: Readonly<Record<string, string>> = {}) {
    const context = { ...contextOf(new Map(Object.entries(options))), clock: this.clock };
    this.#collector = newCollector('systemd', context);
    this.#one = new OneCollector(this.#collector);
  }

  async start(): Promise<void> {
    this.bus = await FakeBus.listen(this.tree.path('root/run/dbus/system_bus_socket'));
  }

  /** The samples, or the reason why there are none. */
  async collect(): Promise<readonly string[] | string> {
    try {
      await this.#collector.prepare!(this.host);
      this.text = expositionOf(this.#one.collect(this.host));
      return this.text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
    } catch (error) {
      if (!(error instanceof CollectError)) throw error;
      return `${error.code}: ${error.message.replaceAll(this.tree.folder, '')}`;
    }
  }

  /** Those of them that match. */
  async grep(pattern: RegExp): Promise<readonly string[]> {
    const lines = await this.collect();
    assert.ok(typeof lines !== 'string', String(lines));
    return lines.filter((line) => pattern.test(line));
  }

  later(): Promise<void> {
    return this.clock.advance(15_000);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.bus?.close();
    this.host.close();
    this.tree.remove();
  }
}

async function bedWithUnits(options?: Readonly<Record<string, string>>): Promise<Bed> {
  const bed = new Bed(options);
  await bed.start();
  bed.bus.units.set('a.service', { active: 'active', value: 2 });
  bed.bus.units.set('bad.service', { active: 'failed', type: 'oneshot' });
  bed.bus.units.set('never.service', { active: 'inactive' });
  bed.bus.units.set('gone.service', { active: 'inactive', load: 'not-found' });
  bed.bus.units.set('daily.timer', { active: 'active', value: 1719833400000000 });
  bed.bus.units.set('tmp.mount', { active: 'active' });
  return bed;
}

test('units by state, failed units by name, restarts, timers, version, state', async () => {
  await using bed = await bedWithUnits();
  assert.notEqual(typeof (await bed.collect()), 'string');
  assert.equal(bed.text, askedHost('systemd')?.expected);
});

test('every state of every unit, by an option', async () => {
  await using bed = await bedWithUnits({ 'systemd.unit-state': 'true', 'systemd.unit-include': '(a|tmp|daily).*' });
  assert.deepEqual(await bed.grep(/unit_state/), [
    ...['active', 'activating', 'deactivating', 'inactive', 'failed'].map(
      (state) =>
        `node_systemd_unit_state{name="a.service",state="${state}",type="simple"} ${state === 'active' ? 1 : 0}`,
    ),
    ...['active', 'activating', 'deactivating', 'inactive', 'failed'].map(
      (state) => `node_systemd_unit_state{name="daily.timer",state="${state}"} ${state === 'active' ? 1 : 0}`,
    ),
  ]);
});

/** A unit of every type that has failed, one whose file is gone, and one that reloads. */
async function bedWithFailures(options?: Readonly<Record<string, string>>): Promise<Bed> {
  const bed = await bedWithUnits(options);
  bed.bus.units.set('mnt-data.mount', { active: 'failed', type: 'ext4' });
  for (const name of ['x.scope', 'dev-sdb1.swap', 'a\\x2db.socket', 'a@b.service']) {
    bed.bus.units.set(name, { active: 'failed' });
  }
  bed.bus.units.set('-.mount', { active: 'failed', type: 'auto' });
  bed.bus.units.set('gone.service', { active: 'failed', load: 'not-found' });
  bed.bus.units.set('reload.service', { active: 'reloading' });
  return bed;
}

const failedNames = (lines: readonly string[]) => lines.map((line) => /name="(.*?)"/.exec(line)![1]).sort();

test('a unit that has failed is named whatever its type, also without a file; each state that occurs is counted', async () => {
  await using bed = await bedWithFailures();
  const counts = Object.fromEntries((await bed.grep(/^node_systemd_units/)).map((line) => line.split(' ')));
  assert.deepEqual(counts, {
    ...{ 'node_systemd_units{state="active"}': '3', 'node_systemd_units{state="inactive"}': '1' },
    ...{ 'node_systemd_units{state="activating"}': '0', 'node_systemd_units{state="deactivating"}': '0' },
    ...{ 'node_systemd_units{state="failed"}': '8', 'node_systemd_units{state="reloading"}': '1' },
  });
  const named = await bed.grep(/unit_state/);
  for (const line of named) assert.match(line, /,state="failed".*\} 1$/);
  assert.ok(named.includes('node_systemd_unit_state{name="mnt-data.mount",state="failed",type="ext4"} 1'));
  assert.equal(bed.bus.calls.get('Get Type'), 4, 'of two services and two mounts');
  assert.deepEqual(
    failedNames(named),
    [
      ...['-.mount', 'a@b.service', 'a\\\\x2db.socket', 'bad.service', 'dev-sdb1.swap'],
      ...['gone.service', 'mnt-data.mount', 'x.scope'],
    ].sort(),
  );
});

test('with every state of every unit, those that are left out by default are named where they have failed', async () => {
  await using bed = await bedWithFailures({ 'systemd.unit-state': 'true' });
  const lines = await bed.grep(/unit_state/);
  const of = (name: string) => lines.filter((line) => line.includes(`name="${name}"`));
  assert.deepEqual(of('mnt-data.mount'), [
    'node_systemd_unit_state{name="mnt-data.mount",state="failed",type="ext4"} 1',
  ]);
  assert.deepEqual(of('gone.service'), ['node_systemd_unit_state{name="gone.service",state="failed"} 1']);
  assert.deepEqual(of('tmp.mount'), []);
  assert.equal(of('dev-sdb1.swap').length, 5);
});

test('a pattern that was given leaves out units that have failed; an empty one leaves out none', async () => {
  await using quiet = await bedWithFailures({
    'systemd.unit-exclude': '.*\\.(mount|scope|swap|socket)',
    'systemd.unit-include': '[a-g].*',
  });
  assert.deepEqual(failedNames(await quiet.grep(/unit_state/)), ['a@b.service', 'bad.service', 'gone.service']);
  assert.match((await quiet.grep(/units\{state="failed"/))[0]!, / 8$/, 'they are counted');
  await using all = await bedWithFailures({ 'systemd.unit-state': 'true', 'systemd.unit-exclude': '' });
  assert.equal((await all.grep(/unit_state\{name="tmp.mount"/)).length, 5);
});

test('one ListUnits a quarter of a minute, and a call a unit only when it is new: what changes is said by itself', async () => {
  await using bed = await bedWithUnits();
  for (let tick = 0; tick < 12; tick++) {
    await bed.collect();
    await bed.clock.advance(5000);
  }
  const { calls } = bed.bus;
  assert.equal(calls.get('ListUnits'), 4);
  assert.equal(calls.get('Get NRestarts'), 3, 'of three services that are loaded');
  assert.equal(calls.get('Get LastTriggerUSec'), 1);
  assert.equal(calls.get('Get Type'), 1, 'of the one that has failed');
  assert.equal(bed.bus.connections, 1);
  bed.bus.change('a.service', 3);
  bed.bus.change('daily.timer', 1719833460000000);
  await delay(50);
  bed.bus.units.set('new.service', { active: 'activating', value: 7 });
  await bed.later();
  assert.deepEqual(await bed.grep(/restart|trigger/), [
    'node_systemd_service_restart_total{name="a.service"} 3',
    'node_systemd_service_restart_total{name="bad.service"} 0',
    'node_systemd_service_restart_total{name="new.service"} 7',
    'node_systemd_timer_last_trigger_seconds{name="daily.timer"} 1719833460',
  ]);
  assert.equal(calls.get('Get NRestarts'), 4);
});

test('a bus that restarts is connected to again; one that does not answer costs no collection, and after a minute the series', async () => {
  await using bed = await bedWithUnits();
  const whole = await bed.collect();
  bed.bus.hangUp();
  await delay(20);
  await bed.later();
  assert.deepEqual(await bed.collect(), whole, 'what was said last is kept');
  await bed.later();
  assert.deepEqual(await bed.collect(), whole);
  assert.equal(bed.bus.connections, 2);
  bed.bus.mood = 'silent';
  await bed.later();
  const startMs = performance.now();
  assert.deepEqual(await bed.collect(), whole);
  assert.ok(performance.now() - startMs < 1500, 'it waits a quarter of a second');
  await bed.clock.advance(61_000);
  assert.match(
    String(await bed.collect()),
    /^unreadable: '\/root\/run\/dbus\/system_bus_socket' cannot be asked about systemd: /,
  );
});

test('systemd that refuses, and a bus that says what is no message', async () => {
  await using bed = await bedWithUnits();
  bed.bus.mood = 'refuses';
  assert.match(
    String(await bed.collect()),
    /cannot be asked about systemd: Hello: org\.freedesktop\.DBus\.Error\.AccessDenied: no$/,
  );
  bed.bus.mood = 'garbage';
  await bed.later();
  assert.match(String(await bed.collect()), /cannot be asked about systemd: the protocol version is 115/);
  bed.bus.mood = 'well';
  await bed.later();
  assert.notEqual(typeof (await bed.collect()), 'string');
});

test('no bus: nothing of the kind on this host', async () => {
  await using bed = new Bed();
  assert.equal(
    await bed.collect(),
    "no-data: '/root/run/dbus/system_bus_socket' does not exist, and systemd cannot be asked without it",
  );
});

test('systemd 260: units, restarts and states come by Varlink, timers by D-Bus where there is one', async () => {
  await using bed = await bedWithUnits();
  const path = bed.tree.path('root/run/systemd/report/io.systemd.Manager');
  mkdirSync(dirname(path), { recursive: true });
  const metric = (name: string, value: unknown, object?: string) => ({
    parameters: { name: `io.systemd.Manager.${name}`, ...(object && { object }), value },
    continues: true,
  });
  const metrics = [
    metric('UnitActiveState', 'active', 'x.service'),
    metric('UnitActiveState', 'failed', 'y.service'),
    metric('UnitActiveState', 'active', 'daily.timer'),
    metric('UnitLoadState', 'loaded', 'x.service'),
    metric('NRestarts', 5, 'x.service'),
    metric('SystemState', 'degraded'),
    { ...metric('SomethingNew', 1), continues: false },
  ];
  const server = createServer((socket) =>
    socket.on('data', () => socket.write(metrics.map((each) => `${JSON.stringify(each)}\0`).join(''))),
  );
  await new Promise<void>((resolve) => server.listen(path, resolve));
  try {
    assert.deepEqual(await bed.grep(/restart|trigger|unit_state|system_running|version/), [
      'node_systemd_service_restart_total{name="x.service"} 5',
      'node_systemd_system_running 0',
      'node_systemd_timer_last_trigger_seconds{name="daily.timer"} 1719833400',
      'node_systemd_unit_state{name="y.service",state="failed"} 1',
      'node_systemd_version{version="252.39-1~deb12u2"} 252.39',
    ]);
    assert.equal(bed.bus.calls.get('Get NRestarts'), undefined);
    await bed.bus.close();
    await bed.later();
    await bed.later();
    assert.deepEqual(await bed.grep(/restart|trigger/), ['node_systemd_service_restart_total{name="x.service"} 5']);
  } finally {
    server.close();
    rmSync(path, { force: true });
  }
});
