import assert from 'node:assert/strict';
import { arch } from 'node:os';
import { test } from 'node:test';
import { filesystem } from '../../../../src/agent/collect/collectors/filesystem.ts';
import { collectorRows } from '../../../../src/agent/collect/collectors/index.ts';
import { NoDataError } from '../../../../src/agent/collect/proc/errors.ts';
import { Host } from '../../../../src/agent/collect/proc/host.ts';
import { collectOn, fixtureHosts } from '../../../support/collect-fixture.ts';
import { type FixtureHost, hostOf, makeTree } from '../../../support/fixture-proc.ts';
import {
  nodeExporterNames,
  type ParsedMetrics,
  parseMetrics,
  nodeExporterSkip as skip,
  startNodeExporter,
} from '../../../support/node-exporter.ts';

// The same kernel files to node_exporter and to us: the same families, types, labels and values. Debian 12 has 1.5.0, and
// what is here is 1.12's. All that differs, and why:
interface Difference {
  readonly collector: string;
  readonly reason: string;
  /** Series of theirs, and of ours, that are left out of the comparison. */
  readonly theirs?: RegExp;
  readonly ours?: RegExp;
  /** Only in the fixture with this title; undefined: in all, and on this machine. */
  readonly title?: RegExp;
}

const differences: readonly Difference[] = [
  {
    collector: 'meminfo',
    reason: '1.5 takes every field of /proc/meminfo, 1.12 a list',
    theirs: /^node_memory_(KReclaimable|SecPageTables|FileHugePages|FilePmdMapped|Hugetlb|Unaccepted|Balloon)_bytes\b/,
  },
  {
    collector: 'cpu',
    reason: 'it has cpu_online since 1.9',
    ours: /^node_cpu_online\b/,
  },
  {
    collector: 'cpu',
    reason: 'it gives the frequency only while cpufreq is on too, and 0 where none is known',
    theirs: /^node_cpu_frequency_hertz\b/,
    ours: /^node_cpu_frequency_hertz\b/,
  },
  {
    collector: 'cpu',
    reason: 'it reads /proc/cpuinfo by rules of the architecture that it was built for',
    ours: /^node_cpu_flag_info\b/,
    title: /an ARM machine/,
  },
  {
    collector: 'cpu',
    reason:
      'it reads /proc/cpuinfo by rules of the architecture that it was built for; by those of POWER it has no model either',
    theirs: /^node_cpu_info\b/,
    ours: /^node_cpu_info\b/,
    title: /a machine with POWER/,
  },
  {
    collector: 'cpufreq',
    reason: 'governors are new since 1.6, average frequencies since 1.12',
    ours: /^node_cpu_(scaling_governor|frequency_avg_hertz)\b/,
  },
  {
    collector: 'cpufreq',
    reason: '1.5 gives CPUs that are offline, 1.12 leaves them out',
    theirs: /cpu="1"/,
    title: /is offline/,
  },
  {
    collector: 'diskstats',
    reason: '1.5 has no label rotational, takes ID_SERIAL_SHORT alone for the serial, and leaves out no zram',
    theirs: /^node_disk_info\b|device="zram\d+"/,
    ours: /^node_disk_info\b/,
  },
  {
    collector: 'mdadm',
    reason: 'it reads sysfs since 1.8, and then knows that an array is reshaped',
    theirs: /^node_md_(state|blocks_synced)\{device="md0"/,
    ours: /^node_md_(degraded|raid_disks)\b|^node_md_(state|blocks_synced)\{device="md0"/,
  },
  {
    collector: 'netstat',
    reason: 'the default of --collector.netstat.fields has two fields more since 1.6',
    ours: /^node_netstat_TcpExt_(TCPOFOQueue|TCPRcvQDrop)\b/,
  },
  {
    collector: 'os',
    reason: 'it has the end of support since 1.6',
    ours: /^node_os_support_end_timestamp_seconds\b/,
  },
  {
    collector: 'pressure',
    reason: 'it has irq since 1.9',
    ours: /^node_pressure_irq_/,
  },
  {
    collector: 'pressure',
    reason: '1.5 fails where a line is missing',
    ours: /^node_pressure_memory_/,
    title: /memory file without full/,
  },
  {
    collector: 'sockstat',
    reason: 'it asks this machine for the size of its pages',
    theirs: /_mem_bytes\b/,
    ours: /_mem_bytes\b/,
    title: /pages of 64 KiB/,
  },
  {
    collector: 'softnet',
    reason: '1.5 takes the number of the row for that of the CPU',
    theirs: /cpu="1"/,
    ours: /cpu="2"/,
    title: /the backlog and the CPU/,
  },
  {
    collector: 'softnet',
    reason: '1.5 has three columns',
    ours: /^node_softnet_(cpu_collision_total|received_rps_total|flow_limit_count_total|backlog_len)\b/,
  },
  {
    collector: 'cpu',
    reason: '1.5 gives CPUs that are offline zeros, 1.12 leaves them out',
    theirs: /^node_cpu_(guest_)?seconds_total\{cpu="[1346]",/,
    title: /four of eight CPUs offline/,
  },
  {
    collector: 'filesystem',
    reason: 'new since 1.10',
    ours: /^node_filesystem_mount_info\b/,
  },
  {
    collector: 'infiniband',
    reason: '1.5 does not have the counters of the hardware',
    ours: /^node_infiniband_(duplicate|implied|lifespan|local_ack|np|out_of|packet|req|resp|rnr|roce|rp|rx)_/,
  },
  {
    collector: 'netclass',
    reason: 'it has adminstate since 1.6',
    theirs: /^node_network_info\b/,
    ours: /^node_network_info\b/,
  },
  {
    collector: 'netdev',
    reason: 'it asks netlink for what we find in /sys/class/net, and netlink knows no fixtures',
    ours: /^node_network_receive_nohandler_total\b/,
    title: /./,
  },
  {
    collector: 'interrupts',
    reason: '1.5 needs a space behind the colon, 1.12 none: it fails, behind as many series as came first in no order',
    theirs: /^node_interrupts_total\b/,
    ours: /^node_interrupts_total\b/,
    title: /no space behind the colon/,
  },
  {
    collector: 'interrupts',
    reason: "it counts the columns, which are those of CPUs that are online: another CPU's name after one goes offline",
    theirs: /cpu="1"/,
    ours: /cpu="2"/,
    title: /a CPU in the middle offline/,
  },
  {
    collector: 'nfs',
    reason: 'it gives zeros for procedures that the kernel does not count',
    theirs: /^node_nfs_requests_total\{.*proto="2"\}/,
    title: /Linux 6\.12/,
  },
  {
    collector: 'nfsd',
    reason: '1.5 takes the columns of the last procedures from two places before, 1.12 from their own',
    theirs:
      /^node_nfsd_requests_total\{method="(SetClientID|SetClientIDConfirm|Verify|Write|RelLockOwner)",proto="4"\}/,
    ours: /^node_nfsd_requests_total\{method="(SetClientID|SetClientIDConfirm|Verify|Write|RelLockOwner)",proto="4"\}/,
    title: /Linux 4\.4/,
  },
  {
    collector: 'nfsd',
    reason: '1.5 does not know wdeleg_getattr and fails, 1.12 does',
    ours: /^node_nfsd_/,
    title: /Linux 6\.12/,
  },
  {
    collector: 'bcache',
    reason: 'it gives zeros for files that are not there',
    theirs: /^node_bcache_cache_readaheads_total/,
    title: /no read-ahead/,
  },
  {
    collector: 'bcache',
    reason: 'it gives zeros for files that are not there',
    theirs: /^node_bcache_(?!priority_stats|io_errors|metadata_written|written)/,
    title: /priority statistics/,
  },
  {
    collector: 'btrfs',
    reason: '1.5 does not know commit_stats and two profiles, 1.12 does',
    theirs: /^node_btrfs_allocation_ratio.*mode="raid1c[34]"/,
    ours: /^node_btrfs_(commit|commits|last_commit|max_commit)_|^node_btrfs_allocation_ratio.*mode="raid1c[34]"/,
  },
  {
    collector: 'drbd',
    reason: 'it takes the KiB that were received for bytes',
    theirs: /^node_drbd_network_received_bytes_total/,
    ours: /^node_drbd_network_received_bytes_total/,
    title: /./,
  },
  {
    collector: 'drm',
    reason: 'it gives zeros for what a card does not say, 1.5 also for cards of other drivers',
    theirs: /card="card0"|^node_drm_memory_\w+\{card="card2"/,
    title: /beside one of Intel/,
  },
  {
    collector: 'drm',
    reason: 'it gives zeros for what a card does not say',
    theirs:
      /^node_drm_(gpu_busy_percent|memory_vis_vram_\w+)\b|^node_drm_memory_(gtt_\w+|vram_used_bytes)\{card="card0"/,
    title: /a part of the CPU/,
  },
  {
    collector: 'edac',
    reason: 'channels are new since 1.12',
    ours: /^node_edac_channel_/,
  },
  {
    collector: 'hwmon',
    reason: 'frequencies are new since 1.9',
    ours: /^node_hwmon_freq_|sensor="freq\d+"/,
  },
  {
    collector: 'nvme',
    reason: 'it has the label cntlid since 1.11, and namespaces',
    theirs: /^node_nvme_info\b/,
    ours: /^node_nvme_(info|namespace_)/,
  },
  {
    collector: 'ksmd',
    reason: 'general_profit came after 1.12',
    ours: /^node_ksmd_general_profit_bytes/,
  },
  {
    collector: 'network_route',
    reason: 'it asks netlink, which has routes and labels that no file has',
    theirs: /^node_network_routes?(_info)?\b/,
    ours: /^node_network_routes?(_info)?\b/,
  },
  {
    collector: 'processes',
    reason: 'between the two, processes and threads come, go and change their state',
    theirs: /^node_processes_(threads_)?state/,
    ours: /^node_processes_(threads_)?state/,
  },
  {
    collector: 'sysctl',
    reason: 'it fails where a setting is not there, and we give the others',
    ours: /^node_sysctl_/,
    title: /a setting that is not there/,
  },
  {
    collector: 'tcpstat',
    reason: 'between the two, connections change their state',
    theirs: /^node_tcp_connection_states\{.*state="(?!listen|rx_|tx_)/,
    ours: /^node_tcp_connection_states\{.*state="(?!listen|rx_|tx_)/,
  },
  {
    collector: 'zfs',
    reason:
      '1.5 does not know dbufstats, signed numbers and suspended pools, and ends the name of a dataset at its space; 1.12 does not',
    theirs: /dataset="pool1\/a|memory_available_bytes/,
    ours: /^node_zfs_dbuf_|memory_available_bytes|state="suspended"|dataset="pool1\/a/,
  },
];

/** Collectors and options that Debian's 1.5 does not have; where a newer version is installed that has them, it is asked. */
const newer: ReadonlySet<string> = new Set([
  // Of no version: node_exporter leaves these to other exporters.
  ...[
    'systemd-unit',
    'systemd-unit.name-exclude',
    'systemd-unit.name-include',
    'systemd-unit.max',
    'systemd.unit-state',
  ],
  'bcachefs',
  'cpu_vulnerabilities',
  'dmmultipath',
  'filesystem.fs-types-include',
  'filesystem.mount-points-include',
  ...['hwmon.chip-exclude', 'hwmon.chip-include', 'hwmon.sensor-exclude', 'hwmon.sensor-include'],
  'infiniband.device-exclude',
  'infiniband.device-include',
  'interrupts.include-zeros',
  'interrupts.name-exclude',
  'interrupts.name-include',
  'kernel_hung',
  'netdev.enable-detailed-metrics',
  'netdev.label-ifalias',
  'nvmesubsystem',
  ...['pcidevice', 'pcidevice.idsfile', 'pcidevice.names'],
  'slabinfo.slabs-exclude',
  'slabinfo.slabs-include',
  'softirqs',
  'swap',
  ...['tcpstat.max-sockets', 'timex.chrony-port'], // ours alone
  'watchdog',
  'xfrm',
]);
const known = skip ? new Set<string>() : nodeExporterNames();

/** Those whose fixtures node_exporter does not read: they are compared on this machine alone. */
const withoutFixtures: Readonly<Record<string, string>> = {
  textfile: 'it is asked with a folder of its own in textfile.test.ts',
  selinux: 'it asks the kernel of this machine, whatever --path.sysfs says',
  filesystem: 'it asks statfs(2)',
  systemd: 'it asks the bus of this machine; systemd.test.ts has one of its own',
  time: 'it asks the clock of this machine and its zone',
  network_route: 'it asks netlink',
  tcpstat: 'it asks netlink',
  wifi: 'it asks netlink',
  timex: 'it asks the kernel by adjtimex(2)',
  mountstats: 'it finds its own process by a link in the fixture, and reads two files of it',
  uname: 'it asks uname(2)',
};

function leftOut(of: 'ours' | 'theirs', collectors: readonly string[], title?: string): RegExp[] {
  return differences
    .filter((difference) => collectors.includes(difference.collector))
    .filter((difference) => difference.title === undefined || (title !== undefined && difference.title.test(title)))
    .flatMap((difference) => difference[of] ?? []);
}

function comparable(metrics: ParsedMetrics, without: readonly RegExp[]): unknown {
  const isKept = (name: string) =>
    name.startsWith('node_') && !/^node_(scrape|exporter)_/.test(name) && !without.some((only) => only.test(name));
  const types = [...metrics.types].filter(([name]) => isKept(name)).sort();
  // It multiplies by 0.001 where we divide by 1000: the last digit may differ.
  const values = [...metrics.values]
    .filter(([name]) => isKept(name))
    .map(([name, value]) => [name, Number(value.toPrecision(15))] as const)
    .sort();
  return { types: Object.fromEntries(types), values: Object.fromEntries(values) };
}

function flagsOf({ options }: FixtureHost): string[] {
  return [...options].flatMap(([name, values]) =>
    values.split('\n').map((value) => {
      if (value === 'true' || value === 'false') return `--${value === 'true' ? '' : 'no-'}collector.${name}`;
      return `--collector.${name}=${value}`;
    }),
  );
}

for (const { name } of collectorRows.filter((row) => withoutFixtures[row.name] === undefined)) {
  // A file that is broken costs node_exporter the whole collector.
  for (const fixture of fixtureHosts(name).filter(({ title }) => !title.startsWith('broken'))) {
    if (!skip && ![name, ...fixture.options.keys()].every((wanted) => known.has(wanted))) continue;
    test(`${name}: ${fixture.title}: as node_exporter`, { skip }, async () => {
      const tree = makeTree(fixture.files, fixture.links);
      const exporter = await startNodeExporter({ collectors: [name], roots: tree.roots, flags: flagsOf(fixture) });
      const host = hostOf(tree, fixture);
      try {
        const theirs = parseMetrics(await exporter.scrape());
        const ours = parseMetrics(collectOn(name, host, fixture.options).text);
        assert.deepEqual(
          comparable(ours, leftOut('ours', [name], fixture.title)),
          comparable(theirs, leftOut('theirs', [name], fixture.title)),
        );
        assert.equal(ours.values.size > 0, fixture.expected !== '');
      } finally {
        host.close();
        await exporter.stop();
        tree.remove();
      }
    });
  }
}

test('each difference is of a collector that there is', () => {
  const names = collectorRows.map(({ name }) => name);
  for (const name of [...differences.map(({ collector }) => collector), ...Object.keys(withoutFixtures)]) {
    assert.ok(names.includes(name), name);
  }
});

/** Empty where this machine has no such thing. */
function textOf(name: string, host: Host): string {
  try {
    return collectOn(name, host).text;
  } catch (error) {
    if (error instanceof NoDataError) return '';
    throw error;
  }
}

test('what this node_exporter does not have is listed', { skip }, () => {
  const names = collectorRows.flatMap(({ name, options }) => [name, ...options.map((option) => option.name)]);
  assert.deepEqual(
    names.filter((name) => !known.has(name) && !newer.has(name)),
    [],
  );
  assert.deepEqual(
    [...newer].filter((name) => !names.includes(name)),
    [],
  );
});

test(`this machine: every collector gives node_exporter's families, types and labels`, { skip }, async () => {
  const ofSockets = ['systemd', 'timex'];
  const collectors = collectorRows
    .map((row) => row.name)
    .filter((name) => known.has(name) && !ofSockets.includes(name));
  // Debian leaves out more mount points by default.
  const flags = filesystem.options
    .filter((option) => option.name.endsWith('-exclude'))
    .map((option) => `--collector.${option.name}=${option.default}`);
  const exporter = await startNodeExporter({ collectors, netlink: true, flags });
  const host = new Host();
  try {
    const theirs = parseMetrics(await exporter.scrape());
    const ours = parseMetrics(collectors.map((name) => textOf(name, host)).join(''));
    const names = (metrics: ParsedMetrics, without: readonly RegExp[]) => {
      const { types, values } = comparable(metrics, without) as { types: object; values: Record<string, number> };
      return { types, series: Object.keys(values) };
    };
    assert.deepEqual(names(ours, leftOut('ours', collectors)), names(theirs, leftOut('theirs', collectors)));
    // What cannot have moved between the two.
    for (const series of [
      'node_boot_time_seconds{}',
      'node_memory_MemTotal_bytes{}',
      'node_memory_SwapTotal_bytes{}',
    ]) {
      assert.equal(ours.values.get(series), theirs.values.get(series), `${series} on ${arch()}`);
    }
  } finally {
    host.close();
    await exporter.stop();
  }
});
