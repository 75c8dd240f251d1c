import type { Recording } from '../../src/model/recording.ts';
import { Schema } from '../../src/model/schema.ts';
import { groupOf } from '../../test/support/groups.ts';

/** A host as the pages show one: how busy and how full it is. */
export interface HostPlan {
  readonly name: string;
  readonly labels: readonly (readonly [string, string])[];
  readonly cpus: number;
  readonly memoryGiB: number;
  /** Share of the processors' time, on average. */
  readonly cpu: number;
  /** Shares in use. */
  readonly memory: number;
  readonly root: number;
  /** A second file system and the share in use. */
  readonly data?: readonly [mountpoint: string, sizeGiB: number, share: number];
  readonly megabytesASecond: number;
  readonly uptimeDays: number;
  readonly celsius: number;
  readonly services: readonly string[];
  readonly failed?: string;
  /** Minutes ago. */
  readonly outOfMemoryAgo?: number;
  readonly goesDown?: true;
}

/** A small company's: one with a full disk, one with a failed service, one that went down. */
export const hostPlans: readonly HostPlan[] = [
  {
    ...{ name: 'web-1', cpus: 4, memoryGiB: 16, cpu: 0.34, memory: 0.52, root: 0.41, megabytesASecond: 3.2 },
    ...{ labels: pairs('role=web site=north'), uptimeDays: 41, celsius: 52, services: ['nginx', 'php-fpm', 'cron'] },
  },
  {
    ...{ name: 'web-2', cpus: 4, memoryGiB: 16, cpu: 0.29, memory: 0.49, root: 0.38, megabytesASecond: 2.9 },
    ...{ labels: pairs('role=web site=south'), uptimeDays: 41, celsius: 50, services: ['nginx', 'php-fpm', 'cron'] },
    failed: 'certbot.service',
  },
  {
    ...{ name: 'db-1', cpus: 8, memoryGiB: 64, cpu: 0.22, memory: 0.81, root: 0.35, megabytesASecond: 1.4 },
    ...{ labels: pairs('role=db site=north'), uptimeDays: 213, celsius: 47, services: ['postgresql', 'cron'] },
    data: ['/srv/data', 1800, 0.93],
  },
  {
    ...{ name: 'db-2', cpus: 8, memoryGiB: 64, cpu: 0.11, memory: 0.74, root: 0.33, megabytesASecond: 1.1 },
    ...{ labels: pairs('role=db site=south'), uptimeDays: 97, celsius: 45, services: ['postgresql', 'cron'] },
    data: ['/srv/data', 1800, 0.71],
  },
  {
    ...{ name: 'build-1', cpus: 16, memoryGiB: 32, cpu: 0.86, memory: 0.88, root: 0.64, megabytesASecond: 0.6 },
    ...{ labels: pairs('role=build site=north'), uptimeDays: 6, celsius: 78, services: ['runner', 'cron'] },
    outOfMemoryAgo: 17,
  },
  {
    ...{ name: 'files-1', cpus: 2, memoryGiB: 8, cpu: 0.07, memory: 0.31, root: 0.22, megabytesASecond: 11 },
    ...{ labels: pairs('role=files site=south'), uptimeDays: 154, celsius: 41, services: ['smbd', 'cron'] },
    data: ['/srv/files', 7200, 0.66],
  },
  {
    ...{ name: 'mail-1', cpus: 2, memoryGiB: 4, cpu: 0.05, memory: 0.58, root: 0.47, megabytesASecond: 0.1 },
    ...{ labels: pairs('role=mail site=south'), uptimeDays: 12, celsius: 39, services: ['postfix', 'dovecot', 'cron'] },
    goesDown: true,
  },
];

/** `role=web site=north` */
function pairs(text: string): [string, string][] {
  return text.split(' ').map((pair) => pair.split('=') as [string, string]);
}

/** Reports that wander around a plan, with the families that the pages ask for. The same for the same seed. */
export class VariedHost {
  readonly #plan: HostPlan;
  readonly #schema = new Schema();
  readonly #read: ((host: VariedHost) => number)[] = [];
  readonly #counts = new Map<string, number>();
  readonly #random: () => number;
  readonly #intervalMs: number;
  readonly #nowMs = Date.now();
  #timeMs = this.#nowMs;
  /** Share of the processors' time at present. */
  #cpu: number;

  constructor(plan: HostPlan, { seed, intervalMs }: { readonly seed: number; readonly intervalMs: number }) {
    this.#plan = plan;
    this.#cpu = plan.cpu;
    this.#intervalMs = intervalMs;
    this.#random = randomFrom(seed);
    this.#declare();
  }

  /** The next report, an interval after the one before it. */
  next(timeMs: number): Recording {
    this.#timeMs = timeMs;
    const { cpu } = this.#plan;
    const pulled = this.#cpu + (cpu - this.#cpu) * 0.04 + (this.#random() - 0.5) * 0.22 * Math.sqrt(cpu * (1 - cpu));
    this.#cpu = Math.min(0.98, Math.max(0.01, pulled));
    const sums = Float64Array.from(this.#read, (read) => Math.round(read(this)));
    return { schema: this.#schema, sums, present: new Uint8Array(sums.length).fill(1) };
  }

  /** A counter that rises by so much a second, give or take a third. */
  #counter(key: string, perSecond: number, first = 1e4): number {
    const rise = (perSecond * this.#intervalMs * (0.67 + 0.66 * this.#random())) / 1000;
    const count = (this.#counts.get(key) ?? first) + rise;
    this.#counts.set(key, count);
    return count;
  }

  #declare(): void {
    const { plan, add } = { plan: this.#plan, add: this.#add.bind(this) };
    const counter = (key: string, perSecond: (host: VariedHost) => number, first?: number) => (host: VariedHost) =>
      host.#counter(key, perSecond(host), first);
    const busy: readonly (readonly [mode: string, share: number])[] = [
      ...([['iowait', 0.02] as const, ['nice', 0] as const, ['softirq', 0.04] as const] as const),
      ...([['steal', 0] as const, ['system', 0.24] as const, ['user', 0.7] as const] as const),
    ];
    const cpuSeries = Array.from({ length: plan.cpus }, (_, cpu) => [
      [[`${cpu}`, 'idle'], counter(`idle ${cpu}`, (host) => 100 * (1 - host.#cpu), 1e8)] as const,
      ...busy.map(
        ([mode, share]) =>
          [[`${cpu}`, mode], counter(`${mode} ${cpu}`, (host) => 100 * host.#cpu * share, 1e6)] as const,
      ),
    ]).flat();
    add('node_cpu_seconds_total', 'counter', 'Seconds the CPUs spent in each mode.', 100, ['cpu', 'mode'], cpuSeries);
    for (const [minutes, factor] of [
      [1, 1.05],
      [5, 1],
      [15, 0.95],
    ] as const) {
      add(`node_load${minutes}`, 'gauge', `${minutes}m load average.`, 100, [], (host) => {
        return 100 * host.#cpu * plan.cpus * factor;
      });
    }
    const memory = plan.memoryGiB * 2 ** 30;
    const used = () => memory * plan.memory * (1 + 0.02 * this.#random());
    add('node_memory_MemTotal_bytes', 'gauge', 'Memory information field MemTotal_bytes.', 1, [], () => memory);
    add('node_memory_MemAvailable_bytes', 'gauge', 'Memory information field MemAvailable_bytes.', 1, [], () => {
      return memory - used();
    });
    const gibibyte = 2 ** 30;
    const systems: readonly (readonly [string, string, string, number, number])[] = [
      ['/dev/sda2', 'ext4', '/', 40, plan.root],
      ['/dev/sda1', 'vfat', '/boot/efi', 0.5, 0.02],
      ...(plan.data === undefined ? [] : [['/dev/sdb1', 'xfs', ...plan.data] as const]),
    ];
    for (const field of ['size', 'avail', 'free']) {
      add(
        ...([`node_filesystem_${field}_bytes`, 'gauge', `Filesystem ${field} in bytes.`, 1] as const),
        ['device', 'fstype', 'mountpoint'],
        systems.map(
          ([device, fstype, mountpoint, size, share]) =>
            [[device, fstype, mountpoint], () => gibibyte * size * (field === 'size' ? 1 : 1 - share)] as const,
        ),
      );
    }
    const disks = plan.data === undefined ? ['sda'] : ['sda', 'sdb'];
    for (const [field, factor] of [
      ['read', 0.3],
      ['written', 0.8],
    ] as const) {
      add(
        ...([`node_disk_${field}_bytes_total`, 'counter', `The total number of bytes ${field}.`, 1] as const),
        ['device'],
        disks.map((disk, at) => [
          [disk],
          counter(`${field} ${disk}`, (host) => (1 + 3 * at) * factor * 4e6 * host.#cpu),
        ]),
      );
    }
    for (const [direction, factor] of [
      ['receive', 0.3],
      ['transmit', 1],
    ] as const) {
      for (const field of ['bytes', 'errs', 'drop']) {
        add(
          `node_network_${direction}_${field}_total`,
          'counter',
          `Network device statistic ${direction}_${field}.`,
          1,
          ['device'],
          ['eth0', 'lo'].map((device) => {
            const share = device === 'lo' ? 0.1 : 1;
            const bytes = () => 1e6 * plan.megabytesASecond * factor * share;
            return [[device], field === 'bytes' ? counter(`${direction} ${device}`, bytes, 1e10) : () => 0];
          }),
        );
      }
    }
    for (const [resource, factor] of [
      ['cpu', 0.3],
      ['memory', 0.01],
      ['io', 0.06],
    ] as const) {
      const name = `node_pressure_${resource}_waiting_seconds_total`;
      const help = `Total time in seconds that processes have waited for ${resource}.`;
      add(
        name,
        'counter',
        help,
        1e6,
        [],
        counter(name, (host) => 1e6 * factor * host.#cpu ** 2),
      );
    }
    const sensors = Array.from(
      { length: Math.min(plan.cpus, 4) },
      (_, core) =>
        [
          ['platform_coretemp_0', `temp${core + 1}`],
          (host: VariedHost) => 1000 * (plan.celsius + 10 * (host.#cpu - plan.cpu) - core),
        ] as const,
    );
    add('node_hwmon_temp_celsius', 'gauge', 'Hardware monitor for temperature.', 1000, ['chip', 'sensor'], sensors);
    const units = plan.services.map((service) => `${service}.service`);
    // As an agent has it: how many are in each state, and by name those alone that have failed.
    const { failed } = plan;
    const unitCounts = {
      active: 140,
      activating: 0,
      deactivating: 0,
      failed: failed === undefined ? 0 : 1,
      inactive: 60,
    };
    add(
      ...(['node_systemd_units', 'gauge', 'How many units are in each state.', 1] as const),
      ['state'],
      Object.entries(unitCounts).map(([state, count]) => [[state], () => count]),
    );
    if (failed !== undefined) {
      add(
        ...(['node_systemd_unit_state', 'gauge', 'Whether a unit is in a state: 1, or 0.', 1] as const),
        ['name', 'state', 'type'],
        [[[failed, 'failed', 'oneshot'], () => 1]],
      );
    }
    add(
      ...(['node_systemd_unit_cpu_seconds_total', 'counter', 'Seconds that the unit used CPUs.', 1e6] as const),
      ['mode', 'name'],
      units.map((unit, at) => [
        ['user', unit],
        counter(unit, (host) => (1e6 * host.#cpu * plan.cpus * 0.8) / 4 ** at, 1e9),
      ]),
    );
    add(
      ...(['node_systemd_unit_memory_current_bytes', 'gauge', 'Memory that the unit has.', 1] as const),
      ['name'],
      units.map((unit, at) => [[unit], () => (used() * 0.7) / 5 ** at]),
    );
    add('node_boot_time_seconds', 'gauge', 'Node boot time, in unixtime.', 1, [], () => {
      return Math.floor(this.#nowMs / 1000) - plan.uptimeDays * 86_400;
    });
    add('node_time_seconds', 'gauge', 'System time in seconds since epoch (1970).', 1000, [], () => this.#timeMs);
    add('sysmon_agent_spool_reports', 'gauge', 'Unacknowledged reports in the spool.', 1, [], () => 1);
    const killedMs = plan.outOfMemoryAgo === undefined ? undefined : this.#nowMs - plan.outOfMemoryAgo * 60_000;
    add('node_vmstat_oom_kill', 'untyped', '/proc/vmstat information field oom_kill.', 1, [], () => {
      return killedMs !== undefined && this.#timeMs > killedMs ? 1 : 0;
    });
    const collectors = ['cpu', 'diskstats', 'filesystem', 'hwmon', 'loadavg', 'meminfo', 'netdev', 'pressure']
      .concat(['stat', 'systemd', 'systemd-unit', 'vmstat'])
      .map((collector) => [collector]);
    add(
      ...(['node_scrape_collector_duration_seconds', 'gauge', 'Duration of a collector.', 1e6] as const),
      ['collector'],
      collectors.map((labels) => [labels, () => 20 + 90 * this.#random()]),
    );
    add(
      ...(['node_scrape_collector_success', 'gauge', 'Whether a collector succeeded.', 1] as const),
      ['collector'],
      collectors.map((labels) => [labels, () => 1]),
    );
  }

  #add(
    ...[name, type, help, divisor, labelNames, series]: [
      name: string,
      type: 'counter' | 'gauge' | 'untyped',
      help: string,
      divisor: number,
      labelNames: readonly string[],
      series:
        | ((host: VariedHost) => number)
        | readonly (readonly [labels: readonly string[], read: (host: VariedHost) => number])[],
    ]
  ): void {
    const each = typeof series === 'function' ? [[[] as string[], series] as const] : series;
    this.#schema.add(
      groupOf(
        { name, type, help, divisor, labelNames },
        each.flatMap(([labels]) => labels),
      ),
    );
    for (const [, read] of each) this.#read.push(read);
  }
}

/** The same numbers for the same seed. https://en.wikipedia.org/wiki/Linear_congruential_generator */
function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}
