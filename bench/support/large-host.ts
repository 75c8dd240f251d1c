import { mkdirSync, writeFileSync } from 'node:fs';
import { wholeHost } from '../../test/support/collect-fixture.ts';
import type { FixtureTree } from '../../test/support/fixture-proc.ts';

const cpuCount = 256;
const interfaceCount = 500;
const diskCount = 200;
const mountCount = 1000;
const serviceCount = 300;

/** A host made of files, some of which `move` writes anew. */
export interface LargeHost {
  readonly tree: FixtureTree;
  /** What happens on a host between two collections: `round` counts them. */
  move(round: number): void;
}

/**
 * The whole host of the collectors' fixtures, with as many CPUs, interfaces, disks, mounts and services as a large server
 * has, and every file that the kernel gives of each. In a round all CPUs count on; a quarter of the interfaces, half of
 * the disks and a third of the services have something to do.
 */
export function makeLargeHost(): LargeHost {
  const tree = wholeHost('Linux 6.18');
  for (const [path, content] of unmoved()) tree.write(path, content);
  for (const [path, contentOf] of moved) tree.write(path, contentOf(0));
  for (let at = 0; at < mountCount; at++) mkdirSync(tree.path(`root${mountPoint(at)}`), { recursive: true });
  return {
    tree,
    move(round) {
      for (const [path, contentOf] of moved) writeFileSync(tree.path(path), contentOf(round));
    },
  };
}

type Files = [path: string, content: string][];

function unmoved(): Files {
  return [
    ...range(cpuCount).flatMap(cpuFiles),
    ...range(interfaceCount).flatMap(interfaceFiles),
    ...range(diskCount).flatMap(diskFiles),
    ...range(serviceCount).flatMap(serviceFiles),
    ['sys/fs/cgroup/cgroup.stat', `nr_descendants ${serviceCount + 1}\nnr_dying_descendants 0\n`],
    ...within('sys/fs/cgroup/system.slice', controlFiles(serviceCount)),
    ...mountFiles(),
  ];
}

/** Path → its content in a round. */
const moved: readonly [path: string, contentOf: (round: number) => string][] = [
  ['proc/stat', statText],
  ['proc/schedstat', schedstatText],
  ['proc/net/softnet_stat', softnetText],
  ['proc/net/dev', netDevText],
  ['proc/diskstats', diskstatsText],
  ...range(cpuCount).map((cpu): [string, (round: number) => string] => [
    `${cpuFolder(cpu)}/cpufreq/scaling_cur_freq`,
    (round) => `${1_500_000 + ((cpu * 7919 + round * 104_729) % 2_000_000)}\n`,
  ]),
  ...range(serviceCount)
    .filter((service) => service % 3 === 0)
    .flatMap((service) =>
      within(serviceFolder(service), [
        ['cpu.stat', (round: number) => cpuStatText(service, round)],
        ['memory.current', (round: number) => `${4096 * (10_000 + service * 13 + ((round * 31) % 500))}\n`],
        ['io.stat', (round: number) => ioStatText(service, round)],
        ['cpu.pressure', (round: number) => pressureText(service * 1009 + round * 41)],
      ]),
    ),
];

function cpuFolder(cpu: number): string {
  return `sys/devices/system/cpu/cpu${cpu}`;
}

function cpuFiles(cpu: number): Files {
  return within(cpuFolder(cpu), [
    ['topology/core_id', `${cpu % 64}\n`],
    ['topology/physical_package_id', `${Math.floor(cpu / 128)}\n`],
    ['thermal_throttle/core_throttle_count', '0\n'],
    ['thermal_throttle/package_throttle_count', '0\n'],
    ['cpufreq/cpuinfo_max_freq', '3700000\n'],
    ['cpufreq/cpuinfo_min_freq', '1500000\n'],
    ['cpufreq/cpuinfo_transition_latency', '1000\n'],
    ['cpufreq/related_cpus', `${cpu}\n`],
    ['cpufreq/scaling_available_governors', 'performance schedutil\n'],
    ['cpufreq/scaling_driver', 'acpi-cpufreq\n'],
    ['cpufreq/scaling_governor', 'schedutil\n'],
    ['cpufreq/scaling_max_freq', '3700000\n'],
    ['cpufreq/scaling_min_freq', '1500000\n'],
    ['cpufreq/scaling_setspeed', '<unsupported>\n'],
  ]);
}

function statText(round: number): string {
  const lines = range(cpuCount).map((cpu) => {
    const busy = round * (20 + (cpu % 400));
    return ` ${4_000_000 + cpu * 991 + busy} 1203 ${900_000 + cpu * 331 + (busy >> 2)} ${90_000_000 + round * 500 - busy} ${2000 + cpu} 0 ${700 + cpu + round} 0 0 0\n`;
  });
  const interrupts = range(2048).map((at) => ` ${at % 9 === 0 ? at * 1013 : 0}`);
  return `cpu ${lines[0]}${lines.map((line, cpu) => `cpu${cpu}${line}`).join('')}intr ${912_345_678 + round * 51_234}${interrupts.join('')}
ctxt ${1_912_345_678 + round * 81_234}
btime 1750000000
processes ${4_123_456 + round * 91}
procs_running ${3 + (round % 40)}
procs_blocked ${round % 3}
softirq ${712_345_678 + round * 41_234} 3 ${round * 9000} 9 ${round * 8000} 0 0 7 ${round * 7000} 0 ${round * 6000}
`;
}

/** https://docs.kernel.org/scheduler/sched-stats.html, version 15. */
function schedstatText(round: number): string {
  const zeros = ' 0'.repeat(36);
  const mask = 'ffffffff,'.repeat(cpuCount / 32).slice(0, -1);
  const lines = range(cpuCount).map((cpu) => {
    const times = `${(912_345 + cpu) * 1_000_003 + round * 131_071_003} ${(12_345 + cpu) * 1_000_033 + round * 1_071_003}`;
    const slices = 812_345 + cpu * 17 + round * (100 + cpu);
    return `cpu${cpu} 0 0 0 0 0 0 ${times} ${slices}\ndomain0 ${mask}${zeros}\ndomain1 ${mask}${zeros}\n`;
  });
  return `version 15\ntimestamp ${4_300_000_000 + round * 1250}\n${lines.join('')}`;
}

function softnetText(round: number): string {
  const lines = range(cpuCount).map((cpu) => {
    const counts = [50_000 + cpu * 71 + round * (10 + cpu), 0, cpu % 7, 0, 0, 0, 0, 0, 0, round * (cpu % 5), 0, 0, cpu];
    return `${[...counts, 0, 0].map((count) => count.toString(16).padStart(8, '0')).join(' ')}\n`;
  });
  return lines.join('');
}

function interfaceName(at: number): string {
  return at < 4 ? `ens${at}f0np0` : `veth${((at * 2_654_435_761) % 2 ** 32).toString(16).padStart(8, '0')}`;
}

function interfaceFiles(at: number): Files {
  const mac = `02:42:ac:11:${(at >> 8).toString(16).padStart(2, '0')}:${(at & 255).toString(16).padStart(2, '0')}`;
  return within(`sys/class/net/${interfaceName(at)}`, [
    ['addr_assign_type', '3\n'],
    ['addr_len', '6\n'],
    ['address', `${mac}\n`],
    ['broadcast', 'ff:ff:ff:ff:ff:ff\n'],
    ['carrier', '1\n'],
    ['carrier_changes', '2\n'],
    ['carrier_down_count', '1\n'],
    ['carrier_up_count', '1\n'],
    ['dev_id', '0x0\n'],
    ['dev_port', '0\n'],
    ['dormant', '0\n'],
    ['duplex', 'full\n'],
    ['flags', '0x1003\n'],
    ['gro_flush_timeout', '0\n'],
    ['ifalias', '\n'],
    ['ifindex', `${at + 2}\n`],
    ['iflink', `${at + 2}\n`],
    ['link_mode', '0\n'],
    ['mtu', '1500\n'],
    ['name_assign_type', '4\n'],
    ['napi_defer_hard_irqs', '0\n'],
    ['netdev_group', '0\n'],
    ['operstate', 'up\n'],
    ['phys_port_id', ''],
    ['phys_port_name', ''],
    ['phys_switch_id', ''],
    ['proto_down', '0\n'],
    ['speed', '10000\n'],
    ['testing', '0\n'],
    ['threaded', '0\n'],
    ['tx_queue_len', '1000\n'],
    ['type', '1\n'],
  ]);
}

function netDevText(round: number): string {
  const head =
    'Inter-|   Receive                                                |  Transmit\n' +
    ' face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n';
  const lines = range(interfaceCount).map((at) => {
    const packets = 10_000 + at * 37 + (at % 4 === 0 ? round * (20 + at) : 0);
    return `${interfaceName(at)}: ${packets * 713} ${packets} 0 ${at % 9} 0 0 0 ${at % 3} ${packets * 97} ${packets >> 1} 0 0 0 0 0 0\n`;
  });
  return head + lines.join('');
}

function diskName(at: number): string {
  const letter = (index: number) => String.fromCharCode(97 + index);
  return `sd${at < 26 ? '' : letter(Math.floor(at / 26) - 1)}${letter(at % 26)}`;
}

/** Of one disk: sixteen to a major number, as sd has them. */
function diskNumber(at: number): string {
  return `${at < 16 ? 8 : 64 + (at >> 4)}:${(at & 15) * 16}`;
}

function diskFiles(at: number): Files {
  const name = diskName(at);
  const properties = [
    'ID_ATA=1',
    'ID_ATA_WRITE_CACHE=1',
    'ID_ATA_WRITE_CACHE_ENABLED=1',
    'ID_ATA_ROTATION_RATE_RPM=7200',
    'ID_FS_TYPE=ext4',
    'ID_FS_USAGE=filesystem',
    `ID_FS_UUID=${String(at).padStart(8, '0')}-0fc2-4a10-9f6e-3c1d2b4a5e6f`,
    'ID_FS_VERSION=1.0',
    'ID_MODEL=ST16000NM001G-2KK103',
    `ID_PATH=pci-0000:3b:00.0-sas-phy${at}-lun-0`,
    'ID_REVISION=SN03',
    `ID_SERIAL_SHORT=ZL2${String(at).padStart(5, '0')}`,
    `ID_WWN=0x5000c500${(at + 0xc0ffee00).toString(16)}`,
  ];
  return [
    ...within(`sys/block/${name}/queue`, queueFiles),
    [`udev/b${diskNumber(at)}`, properties.map((property) => `E:${property}\n`).join('')],
  ];
}

const queueFiles: Files = [
  ...['add_random', 'chunk_sectors', 'dax', 'discard_granularity', 'discard_max_bytes', 'discard_max_hw_bytes'],
  ...['discard_zeroes_data', 'fua', 'hw_sector_size', 'io_poll', 'io_poll_delay', 'io_timeout', 'iostats'],
  ...['logical_block_size', 'max_discard_segments', 'max_hw_sectors_kb', 'max_integrity_segments', 'max_sectors_kb'],
  ...['max_segment_size', 'max_segments', 'minimum_io_size', 'nomerges', 'nr_requests', 'nr_zones', 'optimal_io_size'],
  ...['physical_block_size', 'read_ahead_kb', 'rotational', 'rq_affinity', 'virt_boundary_mask', 'wbt_lat_usec'],
  ...['write_same_max_bytes', 'write_zeroes_max_bytes', 'zone_append_max_bytes', 'zone_write_granularity'],
].map((name) => [name, '1\n']);
queueFiles.push(['scheduler', 'none [mq-deadline]\n'], ['write_cache', 'write back\n'], ['zoned', 'none\n']);

function diskstatsText(round: number): string {
  const lines = range(diskCount).map((at) => {
    const reads = 100_000 + at * 131 + (at % 2 === 0 ? round * (30 + at) : 0);
    const columns = [reads, reads >> 5, reads * 61, reads * 3, reads * 2, reads >> 4, reads * 93, reads * 5, at % 3];
    return `${diskNumber(at).replace(':', ' ')} ${diskName(at)} ${[...columns, reads * 4, reads * 8].join(' ')} 0 0 0 0 ${reads >> 6} ${reads >> 3}\n`;
  });
  return lines.join('');
}

function mountPoint(at: number): string {
  return `/srv/volume-${String(at).padStart(4, '0')}`;
}

/** Newer versions of node_exporter read mountinfo, older ones mounts. */
function mountFiles(): Files {
  const infos = range(mountCount).map(
    (at) =>
      `${at + 40} 22 253:${at} / ${mountPoint(at)} rw,relatime shared:${at + 9} - ext4 /dev/mapper/vg0-volume--${at} rw\n`,
  );
  const mounts = range(mountCount).map(
    (at) => `/dev/mapper/vg0-volume--${at} ${mountPoint(at)} ext4 rw,relatime 0 0\n`,
  );
  return ['1', 'self'].flatMap(
    (process): Files => [
      [`proc/${process}/mountinfo`, infos.join('')],
      [`proc/${process}/mounts`, mounts.join('')],
    ],
  );
}

function serviceFolder(service: number): string {
  return `sys/fs/cgroup/system.slice/worker-${String(service).padStart(3, '0')}.service`;
}

function serviceFiles(service: number): Files {
  return within(serviceFolder(service), controlFiles(service));
}

/** What cgroup v2 has of a group, as far as it has numbers. */
function controlFiles(service: number): Files {
  return [
    ['cpu.stat', cpuStatText(service, 0)],
    ['cpu.pressure', pressureText(service)],
    ['io.pressure', pressureText(service)],
    ['io.stat', ioStatText(service, 0)],
    ['memory.current', `${4096 * (10_000 + service * 13)}\n`],
    ['memory.events', 'low 0\nhigh 0\nmax 4\noom 0\noom_kill 0\noom_group_kill 0\n'],
    ['memory.peak', `${4096 * (20_000 + service * 13)}\n`],
    ['memory.pressure', pressureText(service)],
    ['memory.swap.current', '0\n'],
    ['pids.current', `${1 + (service % 30)}\n`],
    ['pids.max', '77126\n'],
  ];
}

function cpuStatText(service: number, round: number): string {
  const usage = 9_876_543 + service * 10_007 + round * (1000 + service);
  const user = Math.floor(usage * 0.7);
  const quota = 'nr_periods 0\nnr_throttled 0\nthrottled_usec 0\nnr_bursts 0\nburst_usec 0\n';
  return `usage_usec ${usage}\nuser_usec ${user}\nsystem_usec ${usage - user}\n${quota}`;
}

function ioStatText(service: number, round: number): string {
  const reads = 300 + service + round;
  return `8:0 rbytes=${reads * 4096} wbytes=${reads * 16_384} rios=${reads} wios=${reads * 2} dbytes=0 dios=0\n`;
}

function pressureText(microseconds: number): string {
  const averages = 'avg10=0.00 avg60=0.12 avg300=0.03';
  return `some ${averages} total=${microseconds * 2}\nfull ${averages} total=${microseconds}\n`;
}

function range(count: number): number[] {
  return Array.from({ length: count }, (_, at) => at);
}

/** The same files, in this folder. */
function within<T>(folder: string, files: readonly [name: string, content: T][]): [path: string, content: T][] {
  return files.map(([name, content]) => [`${folder}/${name}`, content]);
}
