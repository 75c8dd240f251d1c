// systemd's manager, by D-Bus and by Varlink.
// https://www.freedesktop.org/software/systemd/man/latest/org.freedesktop.systemd1.html
// https://www.freedesktop.org/software/systemd/man/latest/systemd-report.html
//
//     at first         Subscribe, AddMatch, Version, Virtualization
//     each time        ListUnits, SystemState
//     once a unit      NRestarts of services, LastTriggerUSec of timers; from then on systemd says what has changed
//                      Type of services and mounts, as far as it is wanted
import { BusClient, type Call } from './client.ts';
import { BusError, type BusMessage, type BusValue } from './message.ts';
import { callMore } from './varlink.ts';

export interface SystemdUnit {
  readonly name: string;
  /** `loaded`, `not-found`, `masked` and others. */
  readonly loadState: string;
  /** `active`, `activating`, `deactivating`, `inactive`, `failed` and others. */
  readonly activeState: string;
}

export interface SystemdState {
  readonly units: readonly SystemdUnit[];
  /** Of services, by name. */
  readonly restarts: ReadonlyMap<string, number>;
  /** Of timers, by name: microseconds since 1970, 0 before the first time. */
  readonly lastTriggers: ReadonlyMap<string, number>;
  /** Of services and mounts, by name, as far as they were asked for: `simple`, `oneshot`, `ext4`. */
  readonly types: ReadonlyMap<string, string>;
  readonly version: string | undefined;
  readonly virtualization: string | undefined;
  /** `running`, `degraded` and others. */
  readonly systemState: string | undefined;
}

export interface SystemdPlaces {
  /** The socket of the bus, and that of the manager's report; undefined where there is none. */
  readonly bus: string | undefined;
  readonly report: string | undefined;
}

export interface SystemdManagerOptions {
  readonly uid: number;
  readonly timeoutMs: number;
  /** Whether the type of this service or mount is wanted, which is one more call, once. */
  readonly wantsType: (unit: SystemdUnit) => boolean;
}

const unitsMax = 20_000;
/** New units that are asked at a time: the others are asked the next time. */
const askedMax = 500;
const manager = { destination: 'org.freedesktop.systemd1', path: '/org/freedesktop/systemd1' };
const service = 'org.freedesktop.systemd1.Service';
const timer = 'org.freedesktop.systemd1.Timer';
const mount = 'org.freedesktop.systemd1.Mount';
const properties = 'org.freedesktop.DBus.Properties';

export class SystemdManager {
  readonly #options: SystemdManagerOptions;
  #bus: ManagerOnBus | undefined;

  constructor(options: SystemdManagerOptions) {
    this.#options = options;
  }

  /** Throws a BusError. One call at a time. */
  async poll({ bus, report }: SystemdPlaces): Promise<SystemdState> {
    const reported = report === undefined ? undefined : await this.#report(report, bus !== undefined);
    try {
      if (bus === undefined) throw new BusError('closed', 'there is no bus');
      this.#bus ??= await ManagerOnBus.connect(bus, this.#options);
      // What the report has is not asked for; timers are not in it.
      return { ...(await this.#bus.poll(reported?.units)), ...reported };
    } catch (error) {
      this.close();
      if (error instanceof BusError && reported !== undefined) return { ...nothing, ...reported };
      throw error;
    }
  }

  close(): void {
    this.#bus?.close();
    this.#bus = undefined;
  }

  async #report(path: string, hasBus: boolean): Promise<Report | undefined> {
    try {
      return await readReport(path, this.#options.timeoutMs);
    } catch (error) {
      if (error instanceof BusError && hasBus) return undefined;
      throw error;
    }
  }
}

const nothing: SystemdState = {
  ...{ units: [], restarts: new Map(), lastTriggers: new Map(), types: new Map() },
  ...{ version: undefined, virtualization: undefined, systemState: undefined },
};

interface KnownUnit {
  readonly name: string;
  /** NRestarts or LastTriggerUSec; undefined until it is known. */
  value: number | undefined;
  type: string | undefined;
}

interface ListedUnit extends SystemdUnit {
  readonly path: string;
}

class ManagerOnBus {
  readonly #options: SystemdManagerOptions;
  readonly #client: BusClient;
  /** Services and timers, by their path. */
  readonly #services = new Map<string, KnownUnit>();
  readonly #timers = new Map<string, KnownUnit>();
  /** Those whose type is wanted, and only while it is: it is another one when something else is mounted there. */
  readonly #mounts = new Map<string, KnownUnit>();
  readonly #version: string | undefined;
  readonly #virtualization: string | undefined;

  private constructor(
    client: BusClient,
    options: SystemdManagerOptions,
    { version, virtualization }: { readonly version: string | undefined; readonly virtualization: string | undefined },
  ) {
    this.#client = client;
    this.#options = options;
    this.#version = version;
    this.#virtualization = virtualization;
  }

  static async connect(path: string, options: SystemdManagerOptions): Promise<ManagerOnBus> {
    let onSignal = (_: BusMessage) => {};
    const client = await BusClient.connect({ ...options, path, onSignal: (message) => onSignal(message) });
    try {
      const [version, virtualization] = await Promise.all([
        get(client, manager.path, `${manager.destination}.Manager`, 'Version'),
        get(client, manager.path, `${manager.destination}.Manager`, 'Virtualization'),
        client.call({ ...manager, interface: `${manager.destination}.Manager`, member: 'Subscribe' }),
        ...[service, timer].map((of) => client.call(matchOf(of))),
      ]);
      const connected = new ManagerOnBus(client, options, {
        version: textOf(version),
        virtualization: textOf(virtualization),
      });
      onSignal = (message) => connected.#changed(message);
      return connected;
    } catch (error) {
      client.close();
      throw error;
    }
  }

  close(): void {
    this.#client.close();
  }

  /** `reported`: the units as they are known already, with the restarts of services. */
  async poll(reported: readonly SystemdUnit[] | undefined): Promise<SystemdState> {
    const [units, systemState] =
      reported === undefined
        ? await this.#list()
        : [reported.map((unit) => ({ ...unit, path: pathOf(unit.name) })), undefined];
    follow(this.#services, units, (unit) => reported === undefined && unit.name.endsWith('.service'));
    follow(this.#timers, units, (unit) => unit.name.endsWith('.timer'));
    const wants = (unit: SystemdUnit) => unit.name.endsWith('.mount') && this.#options.wantsType(unit);
    follow(this.#mounts, units, (unit) => reported === undefined && wants(unit));
    await this.#askNew(units);
    return {
      ...{ units, systemState, version: this.#version, virtualization: this.#virtualization },
      restarts: valuesOf(this.#services),
      lastTriggers: valuesOf(this.#timers),
      types: new Map(
        [...this.#services.values(), ...this.#mounts.values()].flatMap(({ name, type }) =>
          type === undefined ? [] : [[name, type]],
        ),
      ),
    };
  }

  async #list(): Promise<readonly [ListedUnit[], string | undefined]> {
    const [listed, systemState] = await Promise.all([
      this.#client.call({ ...manager, interface: `${manager.destination}.Manager`, member: 'ListUnits' }),
      get(this.#client, manager.path, `${manager.destination}.Manager`, 'SystemState'),
    ]);
    return [unitsOf(listed), textOf(systemState)];
  }

  async #askNew(units: readonly ListedUnit[]): Promise<void> {
    const asks: Promise<void>[] = [];
    const ask = (path: string, of: string, property: string, take: (value: BusValue | undefined) => void) => {
      if (asks.length < askedMax) asks.push(get(this.#client, path, of, property).then(take));
    };
    for (const [path, unit] of this.#services) {
      if (unit.value === undefined) ask(path, service, 'NRestarts', (value) => (unit.value ??= numberOf(value)));
    }
    for (const [path, unit] of this.#timers) {
      if (unit.value === undefined) ask(path, timer, 'LastTriggerUSec', (value) => (unit.value ??= numberOf(value)));
    }
    for (const unit of units) {
      const known = this.#services.get(unit.path);
      if (known === undefined || known.type !== undefined || !this.#options.wantsType(unit)) continue;
      ask(unit.path, service, 'Type', (value) => (known.type = textOf(value)));
    }
    for (const [path, unit] of this.#mounts) {
      if (unit.type === undefined) ask(path, mount, 'Type', (value) => (unit.type = textOf(value)));
    }
    await Promise.all(asks);
  }

  /** PropertiesChanged: an interface, its properties with their values, those without. */
  #changed({ path, member, body }: BusMessage): void {
    if (member !== 'PropertiesChanged' || path === undefined) return;
    const [of, changed] = body;
    const unit = of === service ? this.#services.get(path) : of === timer ? this.#timers.get(path) : undefined;
    if (unit === undefined || !Array.isArray(changed)) return;
    const property = of === service ? 'NRestarts' : 'LastTriggerUSec';
    for (const pair of changed as readonly BusValue[]) {
      if (!Array.isArray(pair) || pair[0] !== property) continue;
      const value = numberOf(pair[1] as BusValue);
      if (value !== undefined) unit.value = value;
    }
  }
}

function matchOf(of: string): Call {
  const rule = `type='signal',sender='${manager.destination}',interface='${properties}',member='PropertiesChanged',arg0='${of}'`;
  return {
    ...{ destination: 'org.freedesktop.DBus', path: '/org/freedesktop/DBus', interface: 'org.freedesktop.DBus' },
    ...{ member: 'AddMatch', arguments: [rule] },
  };
}

/** Undefined where the other side has no such unit or property: the unit has just gone, or systemd is older. */
async function get(client: BusClient, path: string, of: string, property: string): Promise<BusValue | undefined> {
  try {
    const call = {
      destination: manager.destination,
      path,
      interface: properties,
      member: 'Get',
      arguments: [of, property],
    };
    return (await client.call(call))[0];
  } catch (error) {
    if (error instanceof BusError && error.code === 'refused') return undefined;
    throw error;
  }
}

/** `a(ssssssouso)`: name, description, load state, active state, sub state, followed unit, path, job. */
function unitsOf([list]: readonly BusValue[]): ListedUnit[] {
  if (!Array.isArray(list)) throw new BusError('format', 'ListUnits gave no array');
  if (list.length > unitsMax) throw new BusError('limit', `${list.length} units, at most ${unitsMax} are read`);
  return (list as readonly BusValue[]).map((entry) => {
    const [name, , loadState, activeState, , , path] = Array.isArray(entry) ? (entry as readonly BusValue[]) : [];
    if (
      typeof name !== 'string' ||
      typeof loadState !== 'string' ||
      typeof activeState !== 'string' ||
      typeof path !== 'string'
    ) {
      throw new BusError('format', 'ListUnits gave a unit that is none');
    }
    return { name, loadState, activeState, path };
  });
}

/** The object of a unit: letters and digits are themselves, any other byte is its number in hexadecimal digits. */
function pathOf(unit: string): string {
  const escaped = unit.replaceAll(/[^A-Za-z0-9]|^\d/g, (one) => `_${one.charCodeAt(0).toString(16).padStart(2, '0')}`);
  return `/org/freedesktop/systemd1/unit/${escaped}`;
}

/** Adds the units that are new, and forgets those that are gone. */
function follow(
  known: Map<string, KnownUnit>,
  units: readonly ListedUnit[],
  isWanted: (unit: ListedUnit) => boolean,
): void {
  const wanted = new Map(
    units.filter((unit) => unit.loadState === 'loaded' && isWanted(unit)).map((unit) => [unit.path, unit]),
  );
  for (const path of known.keys()) if (!wanted.has(path)) known.delete(path);
  for (const [path, { name }] of wanted)
    if (!known.has(path)) known.set(path, { name, value: undefined, type: undefined });
}

function valuesOf(known: ReadonlyMap<string, KnownUnit>): Map<string, number> {
  return new Map(
    [...known.values()].flatMap(({ name, value }) => (value === undefined ? [] : [[name, value] as const])),
  );
}

function textOf(value: BusValue | undefined): string | undefined {
  return typeof value === 'string' ? value : undefined;
}

function numberOf(value: BusValue | undefined): number | undefined {
  return typeof value === 'number' ? value : undefined;
}

type Report = Pick<SystemdState, 'units' | 'restarts'> & { readonly systemState?: string; readonly version?: string };

/** Each metric is an answer of its own: `{"name":"io.systemd.Manager.NRestarts","object":"a.service","value":1}`. */
async function readReport(path: string, timeoutMs: number): Promise<Report> {
  const prefix = 'io.systemd.Manager.';
  const units = new Map<string, { name: string; loadState: string; activeState: string }>();
  const restarts = new Map<string, number>();
  const own: { systemState?: string; version?: string } = {};
  await callMore({ path, method: 'io.systemd.Metrics.List', timeoutMs }, (parameters) => {
    if (typeof parameters !== 'object' || parameters === null) return;
    const { name, object, value } = parameters as {
      readonly name?: unknown;
      readonly object?: unknown;
      readonly value?: unknown;
    };
    if (typeof name !== 'string' || !name.startsWith(prefix)) return;
    const what = name.slice(prefix.length);
    if (what === 'SystemState' && typeof value === 'string') own.systemState = value;
    if (what === 'SystemdVersion' && typeof value === 'string') own.version = value;
    if (typeof object !== 'string') return;
    if (what === 'NRestarts' && typeof value === 'number') restarts.set(object, value);
    if ((what !== 'UnitActiveState' && what !== 'UnitLoadState') || typeof value !== 'string') return;
    const unit = units.get(object) ?? { name: object, loadState: 'loaded', activeState: '' };
    unit[what === 'UnitActiveState' ? 'activeState' : 'loadState'] = value;
    units.set(object, unit);
    if (units.size > unitsMax) throw new BusError('limit', `more than ${unitsMax} units`);
  });
  if (units.size === 0) throw new BusError('format', 'the report names no unit');
  return { ...own, units: [...units.values()], restarts };
}
