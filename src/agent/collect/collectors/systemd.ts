// What systemd says of its units, by D-Bus at /run/dbus/system_bus_socket, or where systemd is 260 or newer by Varlink at
// /run/systemd/report/io.systemd.Manager. https://www.freedesktop.org/wiki/Software/systemd/dbus/
// At most four times a minute, whatever the interval: it is work for the host's first process.
import { type OptionRow, optional, regexp } from '../../../runtime/options.ts';
import { Asked } from '../bus/asked.ts';
import { SystemdManager, type SystemdState, type SystemdUnit } from '../bus/systemd-manager.ts';
import { NoDataError, UnreadableError } from '../proc/errors.ts';
import type { Host } from '../proc/host.ts';
import {
  type Collector,
  type CollectorContext,
  type CollectorRow,
  counter,
  gauge,
  NameFilter,
  patternOption,
  type Samples,
  switchOption,
  whole,
} from './collector.ts';

const include = patternOption('systemd.unit-include', '', 'Units to name, matched as a whole. Empty: all.');
/** node_exporter's default, whose `systemd.unit-state` is always on: it keeps devices and mounts, which are many, out of that. */
const excludedOfAll = '.+\\.(automount|device|mount|scope|slice)';
const nothing = /(?!)/;
const exclude: OptionRow<RegExp | undefined> = {
  ...optional({
    name: 'systemd.unit-exclude',
    placeholder: 'REGEXP',
    parse: regexp,
    defaultHelp: `\`${excludedOfAll}\` with --systemd.unit-state, otherwise none`,
    help: 'Units to leave out, matched as a whole. Empty: none.',
  }),
  // Undefined only where it was not given: an empty text is not the default.
  toValue: ([text]) => (text === undefined ? undefined : text === '' ? nothing : regexp(text)),
};
const unitState = switchOption(
  'systemd.unit-state',
  'false',
  'Collect the state of each unit, five series a unit; otherwise only units that have failed are named, of whatever type.',
);

export const systemd: CollectorRow = {
  name: 'systemd',
  enabled: 'by default',
  description: 'units by state, failed units, restarts of services, timers, the state of the system, from systemd',
  options: [include, exclude, unitState],
  missing: [
    {
      families: ['node_systemd_unit_start_time_seconds', 'node_systemd_socket_*'],
      reason: 'it would be a call for each unit, to the first process of the host',
    },
  ],
  create: (context) => new Systemd(context),
};

const unitStates = ['active', 'activating', 'deactivating', 'inactive', 'failed'] as const;
const failedOnly = ['failed'] as const;
const systemStates = ['initializing', 'starting', 'running', 'degraded', 'maintenance', 'stopping', 'offline'] as const;

const units = gauge('node_systemd_units', 'How many units are in each state.', { labels: ['state'] });
const stateOfUnit = gauge('node_systemd_unit_state', 'Whether a unit is in a state: 1, or 0.', {
  labels: ['name', 'state', 'type'],
});
const restarts = counter('node_systemd_service_restart_total', 'How often systemd has restarted a service by itself.', {
  labels: ['name'],
});
const lastTrigger = gauge(
  'node_systemd_timer_last_trigger_seconds',
  'When a timer last triggered, in seconds since 1970.',
  {
    labels: ['name'],
    divisor: 1_000_000,
  },
);
const version = gauge('node_systemd_version', "systemd's version.", { labels: ['version'] });
const running = gauge('node_systemd_system_running', 'Whether the system is running and no unit has failed: 1, or 0.');
const systemState = gauge(
  'node_systemd_system_state',
  "systemd's word for the state of the system: 1 for the present one.",
  {
    labels: ['state'],
  },
);
const virtualization = gauge(
  'node_systemd_virtualization_info',
  'Always 1, with what the host runs on; none on hardware.',
  {
    labels: ['virtualization_type'],
  },
);

const busPath = 'root/run/dbus/system_bus_socket';
const reportPath = 'root/run/systemd/report/io.systemd.Manager';
// Collections come at multiples of the interval, a little early or late.
const everyMs = 14_500;
const timeoutMs = 5000;
const validMs = 60_000;

class Systemd implements Collector {
  /** What may be named at all. */
  readonly #filter: NameFilter;
  /** What of that has all its states, with --systemd.unit-state. */
  readonly #all: NameFilter | undefined;
  readonly #manager: SystemdManager;
  readonly #asked: Asked<SystemdState>;
  readonly #labels = new Map<string, readonly string[]>();

  constructor(context: CollectorContext) {
    this.#asked = new Asked({ clock: context.clock, everyMs, validMs });
    const excluded = context.option(exclude);
    this.#filter = new NameFilter(whole(context.option(include)), whole(excluded));
    if (context.option(unitState)) this.#all = new NameFilter(undefined, whole(excluded ?? new RegExp(excludedOfAll)));
    const wantsType = (unit: SystemdUnit) =>
      this.#filter.keeps(unit.name) && (this.#all !== undefined || unit.activeState === 'failed');
    this.#manager = new SystemdManager({ uid: process.getuid?.() ?? 0, timeoutMs, wantsType });
  }

  async prepare(host: Host): Promise<void> {
    await this.#asked.update(() => {
      const [bus, report] = [busPath, reportPath].map((path) => (host.exists(path) ? host.path(path) : undefined));
      if (bus === undefined && report === undefined) {
        throw new NoDataError(host.path(busPath), ' does not exist, and systemd cannot be asked without it');
      }
      return this.#manager.poll({ bus, report });
    });
  }

  collect(host: Host, out: Samples): void {
    const state = this.#asked.answer;
    if (state !== undefined) return this.#sample(state, out);
    const reason = ` cannot be asked about systemd: ${this.#asked.reason}`;
    throw new UnreadableError(host.path(busPath), { errno: 'bus', reason });
  }

  #sample(state: SystemdState, out: Samples): void {
    this.#sampleCounts(state, out);
    const kept = state.units.filter(({ name }) => this.#filter.keeps(name));
    for (const unit of kept) this.#sampleState(unit, state, out);
    const named = kept.filter(({ loadState }) => loadState === 'loaded');
    for (const { name, activeState } of named) {
      const count = state.restarts.get(name);
      // A service that does not run and never did again is not worth a series.
      if (count !== undefined && (count > 0 || activeState !== 'inactive')) out.sample(restarts, count, name);
    }
    for (const { name } of named) {
      const time = state.lastTriggers.get(name);
      if (time !== undefined) out.sample(lastTrigger, time, name);
    }
    if (state.version !== undefined) {
      const [number] = /\d{3,}(?:\.\d+)?/.exec(state.version) ?? [];
      if (number !== undefined) out.sample(version, Number(number), state.version);
    }
    if (state.virtualization !== undefined)
      out.sample(virtualization, 1, state.virtualization === '' ? 'none' : state.virtualization);
    if (state.systemState === undefined) return;
    out.sample(running, state.systemState === 'running' ? 1 : 0);
    for (const each of systemStates) out.sample(systemState, state.systemState === each ? 1 : 0, each);
  }

  /** The five states always, others (`reloading`, `maintenance`, `refreshing`) where a unit is in one, as node_exporter has it. */
  #sampleCounts(state: SystemdState, out: Samples): void {
    const counts = new Map<string, number>(unitStates.map((each) => [each, 0]));
    for (const { activeState } of state.units) {
      if (activeState !== '') counts.set(activeState, (counts.get(activeState) ?? 0) + 1);
    }
    for (const [each, count] of counts) out.sample(units, count, each);
  }

  /**
   * A unit that has failed is named whatever its type is, and also where its file has gone meanwhile (`not-found`): all of
   * them make the system `degraded`.
   */
  #sampleState({ name, loadState, activeState }: SystemdUnit, { types }: SystemdState, out: Samples): void {
    const hasAll = loadState === 'loaded' && this.#all?.keeps(name);
    if (!hasAll && activeState !== 'failed') return;
    const type = types.get(name) ?? '';
    for (const each of hasAll ? unitStates : failedOnly) {
      out.sampleLabels(stateOfUnit, activeState === each ? 1 : 0, this.#labelsOf(name, each, type));
    }
  }

  /** The same array each time, which the recorder compares at once. */
  #labelsOf(name: string, state: string, type: string): readonly string[] {
    const key = `${name} ${state} ${type}`;
    let labels = this.#labels.get(key);
    if (labels === undefined) {
      if (this.#labels.size > labelsMax) this.#labels.clear();
      labels = [name, state, type];
      this.#labels.set(key, labels);
    }
    return labels;
  }
}

const labelsMax = 100_000;
