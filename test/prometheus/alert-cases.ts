/** Series by name and labels, with their values in promtool's notation, a value each interval. */
export type Series = Readonly<Record<string, string>>;

export interface AlertCase {
  readonly alert: string;
  readonly severity: 'info' | 'warning' | 'critical';
  /** The interval of series and rules, 1m by default; longer where hours go by. */
  readonly every?: '1m' | '5m' | '1h';
  /** It is about all agents together, so no other series may be there. */
  readonly alone?: boolean;
  readonly fires: {
    readonly series: Series;
    readonly at: string;
    /** Of the alert, besides those of its host and its severity. */
    readonly labels?: Readonly<Record<string, string>>;
  };
  /** The same metrics, in a state that is none. */
  readonly stays: readonly { readonly why: string; readonly series: Series; readonly at: string }[];
}

const root = 'device="/dev/sda1",fstype="ext4",mountpoint="/"';
const rootLabels = { device: '/dev/sda1', fstype: 'ext4', mountpoint: '/' };
const space = (avail: string, readonly = '0x200'): Series => ({
  [`node_filesystem_avail_bytes{${root}}`]: avail,
  [`node_filesystem_size_bytes{${root}}`]: '1000x200',
  [`node_filesystem_readonly{${root}}`]: readonly,
});
const inodes = (free: string, readonly = '0x200'): Series => ({
  [`node_filesystem_files_free{${root}}`]: free,
  [`node_filesystem_files{${root}}`]: '1000x200',
  [`node_filesystem_readonly{${root}}`]: readonly,
});

/** Falls to a state that fires within hours of 5-minute steps, from a start that does not. */
function fillingUp(
  alert: string,
  severity: AlertCase['severity'],
  { of, falls, slowly }: { of: typeof space; falls: string; slowly: string },
): AlertCase {
  return {
    ...{ alert, severity, every: '5m' },
    fires: { series: of(falls), at: '7h', labels: rootLabels },
    stays: [
      { why: 'little is left, and it does not fall', series: of('150x200'), at: '7h' },
      { why: 'it falls slowly', series: of(slowly), at: '7h' },
      { why: 'it is read-only', series: of(falls, '1x200'), at: '7h' },
    ],
  };
}

function almostOut(
  alert: string,
  severity: AlertCase['severity'],
  { of, few, more, at }: { of: typeof space; few: string; more: string; at: string },
): AlertCase {
  return {
    ...{ alert, severity },
    fires: { series: of(few), at, labels: rootLabels },
    stays: [
      { why: 'more is left', series: of(more), at },
      { why: 'it is read-only', series: of(few, '1x200'), at },
      { why: 'only for some minutes', series: of(`${more.replace(/x.*/, 'x85')} ${few}`), at },
    ],
  };
}

/** A gauge, beyond a limit and below it. */
function gauge(
  alert: string,
  severity: AlertCase['severity'],
  metric: string,
  { beyond, below, at, labels }: { beyond: string; below: string; at: string; labels?: Record<string, string> },
): AlertCase {
  return {
    ...{ alert, severity },
    fires: { series: { [metric]: beyond }, at, ...(labels && { labels }) },
    stays: [{ why: `it is ${below}`, series: { [metric]: below }, at }],
  };
}

/** A counter that rises by so much a minute. */
function rate(
  alert: string,
  severity: AlertCase['severity'],
  metric: string,
  { fast, slow, at, labels }: { fast: number; slow: number; at: string; labels?: Record<string, string> },
): AlertCase {
  const rising = (step: number): Series => ({ [metric]: `5+${step}x200` });
  return {
    ...{ alert, severity },
    fires: { series: rising(fast), at, ...(labels && { labels }) },
    stays: [
      { why: `it rises by ${slow} a minute`, series: rising(slow), at },
      { why: 'it was long ago', series: { [metric]: `5+${fast}x30 ${5 + fast * 30}x200` }, at: '95m' },
    ],
  };
}

/** One event, half an hour ago: as late as a report can be by an outage. */
function event(
  alert: string,
  severity: AlertCase['severity'],
  metric: string,
  labels: Record<string, string> = {},
): AlertCase {
  return {
    ...{ alert, severity },
    fires: { series: { [metric]: '7x60 8x120' }, at: '91m', labels },
    stays: [
      { why: 'nothing has happened', series: { [metric]: '7x200' }, at: '91m' },
      { why: 'it was more than an hour ago', series: { [metric]: '7x20 8x200' }, at: '91m' },
    ],
  };
}

/** The same of a counter that appears with its first event. */
function firstEvent(alert: string, metric: string, labels: Record<string, string>): AlertCase[] {
  return [
    event(alert, 'warning', metric, labels),
    {
      ...{ alert, severity: 'warning' },
      fires: { series: { [metric]: '_x60 1x120' }, at: '91m', labels },
      stays: [{ why: 'its first event was more than an hour ago', series: { [metric]: '_x10 1x200' }, at: '91m' }],
    },
  ];
}

const cpus = (mode: string, each: string): Series =>
  Object.fromEntries(['0', '1'].map((cpu) => [`node_cpu_seconds_total{cpu="${cpu}",mode="${mode}"}`, each]));
const temperature = 'node_hwmon_temp_celsius{chip="c",sensor="temp1"}';
const tempLabels = { chip: 'c', sensor: 'temp1' };

export const alertCases: readonly AlertCase[] = [
  fillingUp('NodeFilesystemSpaceFillingUp', 'warning', { of: space, falls: '900-8x200', slowly: '450-1x200' }),
  fillingUp('NodeFilesystemSpaceFillingUp', 'critical', { of: space, falls: '900-9.9x200', slowly: '270-1x200' }),
  almostOut('NodeFilesystemAlmostOutOfSpace', 'warning', { of: space, few: '49x200', more: '51x200', at: '100m' }),
  almostOut('NodeFilesystemAlmostOutOfSpace', 'critical', { of: space, few: '29x200', more: '31x200', at: '100m' }),
  fillingUp('NodeFilesystemFilesFillingUp', 'warning', { of: inodes, falls: '900-8x200', slowly: '450-1x200' }),
  fillingUp('NodeFilesystemFilesFillingUp', 'critical', { of: inodes, falls: '900-9.9x200', slowly: '270-1x200' }),
  almostOut('NodeFilesystemAlmostOutOfFiles', 'warning', { of: inodes, few: '49x200', more: '51x200', at: '100m' }),
  almostOut('NodeFilesystemAlmostOutOfFiles', 'critical', { of: inodes, few: '29x200', more: '31x200', at: '100m' }),
  {
    ...{ alert: 'NodeFilesystemReadOnly', severity: 'critical' },
    fires: { series: { [`node_filesystem_readonly{${root}}`]: '0x30 1x60' }, at: '40m', labels: rootLabels },
    stays: [
      { why: 'it has always been', series: { [`node_filesystem_readonly{${root}}`]: '1x100' }, at: '40m' },
      { why: 'it can be written again', series: { [`node_filesystem_readonly{${root}}`]: '1x30 0x60' }, at: '40m' },
    ],
  },
  {
    ...{ alert: 'NodeFilesystemDeviceError', severity: 'warning' },
    fires: { series: { [`node_filesystem_device_error{${root}}`]: '1x100' }, at: '20m', labels: rootLabels },
    stays: [
      { why: 'it answers', series: { [`node_filesystem_device_error{${root}}`]: '0x100' }, at: '20m' },
      {
        why: "it is a desktop session's",
        series: {
          'node_filesystem_device_error{device="p",fstype="fuse.portal",mountpoint="/run/user/1/doc"}': '1x100',
        },
        at: '20m',
      },
    ],
  },
  rate('NodeDiskIOSaturation', 'warning', 'node_disk_io_time_weighted_seconds_total{device="sda"}', {
    ...{ fast: 660, slow: 540, at: '40m', labels: { device: 'sda' } },
  }),
  {
    ...{ alert: 'NodeRAIDDegraded', severity: 'critical' },
    fires: {
      series: { 'node_md_disks_required{device="md0"}': '2x60', 'node_md_disks{device="md0",state="active"}': '1x60' },
      ...{ at: '20m', labels: { device: 'md0' } },
    },
    stays: [
      {
        why: 'all disks are active',
        series: {
          'node_md_disks_required{device="md0"}': '2x60',
          'node_md_disks{device="md0",state="active"}': '2x60',
        },
        at: '20m',
      },
    ],
  },
  gauge('NodeRAIDDiskFailure', 'warning', 'node_md_disks{device="md0",state="failed"}', {
    ...{ beyond: '1x10', below: '0x10', at: '5m', labels: { device: 'md0', state: 'failed' } },
  }),
  {
    ...{ alert: 'NodeZfsPoolNotOnline', severity: 'critical' },
    fires: {
      series: { 'node_zfs_zpool_state{zpool="tank",state="degraded"}': '1x20' },
      ...{ at: '10m', labels: { zpool: 'tank', state: 'degraded' } },
    },
    stays: [
      {
        why: 'it is online',
        series: {
          'node_zfs_zpool_state{zpool="tank",state="online"}': '1x20',
          'node_zfs_zpool_state{zpool="tank",state="degraded"}': '0x20',
        },
        at: '10m',
      },
    ],
  },

  {
    ...{ alert: 'NodeMemoryHighUtilization', severity: 'warning' },
    fires: { series: { node_memory_MemAvailable_bytes: '9x60', node_memory_MemTotal_bytes: '100x60' }, at: '20m' },
    stays: [
      {
        why: 'an eighth is available',
        series: { node_memory_MemAvailable_bytes: '12x60', node_memory_MemTotal_bytes: '100x60' },
        at: '20m',
      },
    ],
  },
  rate('NodeMemoryMajorPagesFaults', 'warning', 'node_vmstat_pgmajfault', { fast: 31_000, slow: 29_000, at: '25m' }),
  rate('NodeMemoryPressure', 'warning', 'node_pressure_memory_waiting_seconds_total', {
    fast: 13,
    slow: 11,
    at: '20m',
  }),
  event('NodeOOMKill', 'warning', 'node_vmstat_oom_kill'),
  {
    ...{ alert: 'NodeSwapFillingUp', severity: 'warning' },
    fires: { series: { node_memory_SwapFree_bytes: '19x60', node_memory_SwapTotal_bytes: '100x60' }, at: '20m' },
    stays: [
      {
        why: 'a quarter is free',
        series: { node_memory_SwapFree_bytes: '25x60', node_memory_SwapTotal_bytes: '100x60' },
        at: '20m',
      },
      {
        why: 'there is none',
        series: { node_memory_SwapFree_bytes: '0x60', node_memory_SwapTotal_bytes: '0x60' },
        at: '20m',
      },
    ],
  },
  event('NodeMemoryCorrectableErrors', 'info', 'node_edac_correctable_errors_total{controller="0"}', {
    controller: '0',
  }),
  event('NodeMemoryUncorrectableErrors', 'critical', 'node_edac_uncorrectable_errors_total{controller="0"}', {
    controller: '0',
  }),
  {
    ...{ alert: 'NodeCPUHighUsage', severity: 'info' },
    fires: {
      series: { ...cpus('user', '0+50x60'), ...cpus('system', '0+6x60'), ...cpus('idle', '0+4x60') },
      at: '25m',
    },
    stays: [
      {
        why: 'it waits for a disk',
        series: { ...cpus('user', '0+30x60'), ...cpus('iowait', '0+26x60'), ...cpus('idle', '0+4x60') },
        at: '25m',
      },
      {
        why: 'only for some minutes',
        series: { ...cpus('user', '0+0x45 0+60x15'), ...cpus('idle', '0+0x60') },
        at: '58m',
      },
    ],
  },
  {
    ...{ alert: 'NodeSystemSaturation', severity: 'warning' },
    fires: { series: { node_load1: '4.2x60', ...cpus('idle', '0+1x60') }, at: '20m' },
    stays: [{ why: 'it is 1.9 for each CPU', series: { node_load1: '3.8x60', ...cpus('idle', '0+1x60') }, at: '20m' }],
  },
  rate('NodeCPUPressure', 'info', 'node_pressure_cpu_waiting_seconds_total', { fast: 39, slow: 33, at: '25m' }),
  rate('NodeIOPressure', 'warning', 'node_pressure_io_stalled_seconds_total', { fast: 20, slow: 16, at: '25m' }),
  ...(['warning', 'critical'] as const).map((severity): AlertCase => {
    const [many, fewer] = severity === 'warning' ? ['71x60', '69x60'] : ['91x60', '89x60'];
    return {
      ...{ alert: 'NodeFileDescriptorLimit', severity },
      fires: { series: { node_filefd_allocated: many, node_filefd_maximum: '100x60' }, at: '20m' },
      stays: [
        {
          why: 'fewer are in use',
          series: { node_filefd_allocated: fewer, node_filefd_maximum: '100x60' },
          at: '20m',
        },
      ],
    };
  }),

  ...(['receive', 'transmit'] as const).flatMap((way): AlertCase[] => {
    const series = (errors: string, packets: string): Series => ({
      [`node_network_${way}_errs_total{device="eth0"}`]: errors,
      [`node_network_${way}_packets_total{device="eth0"}`]: packets,
    });
    const alert = way === 'receive' ? 'NodeNetworkReceiveErrs' : 'NodeNetworkTransmitErrs';
    const fires = (errors: string, packets: string) => ({
      ...{ series: series(errors, packets), at: '70m', labels: { device: 'eth0' } },
    });
    const stays = [
      { why: 'one of 200 packets', series: series('0+1x200', '0+200x200'), at: '70m' },
      { why: 'there is no packet', series: series('0x200', '0x200'), at: '70m' },
    ];
    return [
      { alert, severity: 'warning', fires: fires('0+2x200', '0+100x200'), stays },
      // Not one comes through.
      { alert, severity: 'warning', fires: fires('0+600x200', '7x200'), stays },
    ];
  }),
  {
    ...{ alert: 'NodeBondingDegraded', severity: 'warning' },
    fires: {
      series: { 'node_bonding_slaves{master="bond0"}': '2x20', 'node_bonding_active{master="bond0"}': '1x20' },
      ...{ at: '10m', labels: { master: 'bond0' } },
    },
    stays: [
      {
        why: 'both are up',
        series: { 'node_bonding_slaves{master="bond0"}': '2x20', 'node_bonding_active{master="bond0"}': '2x20' },
        at: '10m',
      },
    ],
  },
  {
    ...{ alert: 'NodeHighNumberConntrackEntriesUsed', severity: 'warning' },
    fires: { series: { node_nf_conntrack_entries: '76x9', node_nf_conntrack_entries_limit: '100x9' }, at: '5m' },
    stays: [
      {
        why: 'fewer are in use',
        series: { node_nf_conntrack_entries: '74x9', node_nf_conntrack_entries_limit: '100x9' },
        at: '5m',
      },
      {
        why: 'there is no table',
        series: { node_nf_conntrack_entries: '0x9', node_nf_conntrack_entries_limit: '0x9' },
        at: '5m',
      },
    ],
  },

  ...[1, -1].map((sign): AlertCase => {
    const offset = (...values: [from: number, step: number, minutes: number][]): Series => ({
      node_timex_offset_seconds: values
        .map(([from, step, minutes]) => `${sign * from}${sign * step < 0 ? '' : '+'}${sign * step}x${minutes - 1}`)
        .join(' '),
    });
    return {
      ...{ alert: 'NodeClockSkewDetected', severity: 'warning' },
      // By answers that are 34 min apart.
      fires: { series: offset([0.001, 0, 30], [0.06, 0, 34], [0.07, 0, 34], [0.09, 0, 60]), at: '125m' },
      stays: [
        { why: 'it gets nearer', series: offset([0.9, -0.001, 200]), at: '150m' },
        { why: 'it is small', series: offset([0.04, 0, 60], [0.049, 0, 60]), at: '100m' },
        {
          why: 'one answer was off, and stood for 34 min',
          series: offset([0.002, 0, 60], [0.06, 0, 34], [0.001, 0, 60]),
          at: '94m',
        },
        { why: 'only one has ever come', series: offset([0.06, 0, 200]), at: '150m' },
      ],
    };
  }),
  {
    // At each answer of chronyd.
    ...{ alert: 'NodeClockSkewDetected', severity: 'warning' },
    fires: { series: { node_timex_offset_seconds: '0.06+0.001x90' }, at: '80m' },
    stays: [{ why: 'it has just begun', series: { node_timex_offset_seconds: '0.001x59 0.06+0.001x30' }, at: '80m' }],
  },
  {
    ...{ alert: 'NodeClockNotSynchronising', severity: 'warning' },
    fires: { series: { node_timex_sync_status: '0x60', node_timex_maxerror_seconds: '16x60' }, at: '20m' },
    stays: [
      {
        why: 'it is synchronised',
        series: { node_timex_sync_status: '1x60', node_timex_maxerror_seconds: '16x60' },
        at: '20m',
      },
      {
        why: 'it was synchronised a moment ago',
        series: { node_timex_sync_status: '0x60', node_timex_maxerror_seconds: '1x60' },
        at: '20m',
      },
    ],
  },
  ...Object.entries({ 'mnt-data.mount': 'ext4', 'docker-0.scope': '' }).map(
    ([name, type]): AlertCase => ({
      ...{ alert: 'NodeSystemdServiceFailed', severity: 'warning' },
      fires: {
        series: { [`node_systemd_unit_state{name="${name}",state="failed",type="${type}"}`]: '1x60' },
        ...{ at: '10m', labels: { name, state: 'failed', ...(type !== '' && { type }) } },
      },
      stays: [
        {
          why: 'it has not failed for long',
          series: { [`node_systemd_unit_state{name="${name}",state="failed",type="${type}"}`]: '_x6 1x3 _x60' },
          at: '10m',
        },
      ],
    }),
  ),
  {
    ...{ alert: 'NodeSystemdServiceFailed', severity: 'warning' },
    fires: {
      series: { 'node_systemd_unit_state{name="a.service",state="failed",type="simple"}': '1x60' },
      ...{ at: '10m', labels: { name: 'a.service', state: 'failed', type: 'simple' } },
    },
    stays: [
      {
        why: 'it is active',
        series: {
          'node_systemd_unit_state{name="a.service",state="failed",type="simple"}': '0x60',
          'node_systemd_unit_state{name="a.service",state="active",type="simple"}': '1x60',
        },
        at: '10m',
      },
    ],
  },
  rate('NodeSystemdServiceCrashlooping', 'warning', 'node_systemd_service_restart_total{name="a.service"}', {
    ...{ fast: 1, slow: 0.3, at: '25m', labels: { name: 'a.service' } },
  }),
  {
    ...{ alert: 'NodeTemperatureCritical', severity: 'critical' },
    fires: {
      series: { [temperature]: '95x60', 'node_hwmon_temp_crit_celsius{chip="c",sensor="temp1"}': '95x60' },
      ...{ at: '10m', labels: tempLabels },
    },
    stays: [
      {
        why: 'it is below',
        series: { [temperature]: '94x60', 'node_hwmon_temp_crit_celsius{chip="c",sensor="temp1"}': '95x60' },
        at: '10m',
      },
      {
        why: 'its driver gives no limit',
        series: { [temperature]: '94x60', 'node_hwmon_temp_crit_celsius{chip="c",sensor="temp1"}': '0x60' },
        at: '10m',
      },
    ],
  },
  gauge('NodeTemperatureCritical', 'critical', 'node_hwmon_temp_crit_alarm_celsius{chip="c",sensor="temp1"}', {
    ...{ beyond: '0.001x20', below: '0x20', at: '10m', labels: tempLabels },
  }),
  {
    ...{ alert: 'NodeTemperatureHigh', severity: 'warning' },
    fires: {
      series: { [temperature]: '80x60', 'node_hwmon_temp_max_celsius{chip="c",sensor="temp1"}': '80x60' },
      ...{ at: '15m', labels: tempLabels },
    },
    stays: [
      {
        why: 'it is below',
        series: { [temperature]: '79x60', 'node_hwmon_temp_max_celsius{chip="c",sensor="temp1"}': '80x60' },
        at: '15m',
      },
      {
        why: 'its driver gives no limit',
        series: { [temperature]: '79x60', 'node_hwmon_temp_max_celsius{chip="c",sensor="temp1"}': '0x60' },
        at: '15m',
      },
    ],
  },
  gauge('NodeTemperatureHigh', 'warning', 'node_hwmon_temp_alarm{chip="c",sensor="temp1"}', {
    ...{ beyond: '1x60', below: '0x60', at: '15m', labels: tempLabels },
  }),
  {
    ...{ alert: 'NodeFanSlow', severity: 'warning' },
    fires: {
      series: {
        'node_hwmon_fan_rpm{chip="c",sensor="fan1"}': '0x60',
        'node_hwmon_fan_min_rpm{chip="c",sensor="fan1"}': '600x60',
      },
      ...{ at: '15m', labels: { chip: 'c', sensor: 'fan1' } },
    },
    stays: [
      {
        why: 'there is no fan at this connector',
        series: {
          'node_hwmon_fan_rpm{chip="c",sensor="fan1"}': '0x60',
          'node_hwmon_fan_min_rpm{chip="c",sensor="fan1"}': '0x60',
        },
        at: '15m',
      },
    ],
  },
  gauge('NodeFanSlow', 'warning', 'node_hwmon_fan_alarm{chip="c",sensor="fan1"}', {
    ...{ beyond: '1x60', below: '0x60', at: '15m', labels: { chip: 'c', sensor: 'fan1' } },
  }),
  {
    ...{ alert: 'NodeRebootRequired', severity: 'info', every: '1h' },
    fires: { series: { node_reboot_required: '1x40' }, at: '30h' },
    stays: [
      { why: 'it is not', series: { node_reboot_required: '0x40' }, at: '30h' },
      { why: 'since some hours', series: { node_reboot_required: '0x20 1x40' }, at: '30h' },
    ],
  },
  {
    ...{ alert: 'NodeUpdatesPending', severity: 'info', every: '1h' },
    fires: {
      series: {
        'apt_upgrades_pending{arch="amd64",origin="Debian:bookworm-security/oldstable-security"}': '2x40',
        'apt_upgrades_pending{arch="all",origin="Debian:bookworm-security/oldstable-security"}': '1x40',
      },
      at: '30h',
    },
    stays: [
      {
        why: 'none fixes a hole',
        series: { 'apt_upgrades_pending{arch="all",origin="Debian:bookworm"}': '1x40' },
        at: '30h',
      },
    ],
  },
  gauge('NodeTextFileCollectorScrapeError', 'warning', 'node_textfile_scrape_error', {
    ...{ beyond: '1x20', below: '0x20', at: '10m' },
  }),
  {
    ...{ alert: 'SysmonCollectorFailed', severity: 'warning' },
    fires: {
      series: { 'node_scrape_collector_success{collector="mdadm"}': '1x30 0x60' },
      ...{ at: '60m', labels: { collector: 'mdadm' } },
    },
    stays: [
      {
        why: 'the host has nothing of the kind',
        series: { 'node_scrape_collector_success{collector="mdadm"}': '0x90' },
        at: '60m',
      },
      { why: 'it works', series: { 'node_scrape_collector_success{collector="mdadm"}': '0x30 1x60' }, at: '60m' },
    ],
  },

  {
    ...{ alert: 'SysmonAgentDown', severity: 'warning' },
    fires: { series: { sysmon_agent_up: '1x10 0x20' }, at: '14m' },
    stays: [
      { why: 'it is up', series: { sysmon_agent_up: '1x30' }, at: '14m' },
      { why: 'it was down for a minute', series: { sysmon_agent_up: '1x10 0x0 1x20' }, at: '14m' },
    ],
  },
  {
    ...{ alert: 'SysmonAgentDown', severity: 'critical' },
    fires: {
      series: { sysmon_agent_up: '1x60', 'sysmon_agent_up{source="redis"}': '1x10 0x60' },
      ...{ at: '30m', labels: { source: 'redis' } },
    },
    stays: [{ why: 'it is back', series: { sysmon_agent_up: '1x10 0x10 1x60' }, at: '30m' }],
  },
  gauge('SysmonAgentClockOff', 'warning', 'sysmon_agent_clock_offset_seconds', {
    ...{ beyond: '-3x60', below: '1x60', at: '15m' },
  }),
  event('SysmonAgentDropsReports', 'warning', 'sysmon_agent_reports_dropped_total{reason="full"}', { reason: 'full' }),
  {
    ...{ alert: 'SysmonAgentLate', severity: 'warning' },
    fires: {
      // The series of the host stop for Prometheus, while it is up.
      series: { sysmon_server_agent_lag_seconds: '0.3x5 45+45x60', sysmon_agent_up: '1x60', node_load1: '1x10' },
      at: '30m',
    },
    stays: [
      {
        why: 'it is punctual',
        series: { sysmon_server_agent_lag_seconds: '2x60', sysmon_agent_up: '1x60', node_load1: '1x60' },
        at: '30m',
      },
      {
        why: 'it sends what an outage has held up',
        series: {
          sysmon_server_agent_lag_seconds: '0.3x5 _x10 1700x1 700x1 0.3x60',
          sysmon_agent_up: '1x5 0x10 1x60',
        },
        at: '27m',
      },
    ],
  },
  {
    ...{ alert: 'SysmonAgentLate', severity: 'warning' },
    fires: {
      series: { 'sysmon_server_agent_lag_seconds{source="redis"}': '400 _ _ '.repeat(20) },
      ...{ at: '40m', labels: { source: 'redis' } },
    },
    stays: [
      {
        why: 'it was late, and is down since',
        series: { 'sysmon_server_agent_lag_seconds{source="redis"}': '400x8 _x60' },
        at: '20m',
      },
    ],
  },
  {
    ...{ alert: 'SysmonAgentBacklogGrows', severity: 'warning' },
    fires: {
      series: { sysmon_agent_spool_reports: '60+12x60', sysmon_agent_reports_sampled_total: '1000+12x60' },
      at: '20m',
    },
    stays: [
      {
        why: 'it is being sent',
        series: { sysmon_agent_spool_reports: '700-10x60', sysmon_agent_reports_sampled_total: '1000+12x60' },
        at: '20m',
      },
      {
        why: 'some wait for the next scrape, as always',
        series: { sysmon_agent_spool_reports: '3x60', sysmon_agent_reports_sampled_total: '1000+12x60' },
        at: '20m',
      },
    ],
  },
  gauge('SysmonAgentSpoolDisk', 'warning', 'sysmon_agent_spool_disk_state{state="slow"}', {
    ...{ beyond: '1x60', below: '0x60', at: '20m', labels: { state: 'slow' } },
  }),
  ...firstEvent('SysmonReportsRefused', 'sysmon_server_agent_reports_dropped_total{reason="too_old"}', {
    reason: 'too_old',
  }),
  ...firstEvent('SysmonAgentOverBudget', 'sysmon_server_agent_over_budget_total{budget="series"}', {
    budget: 'series',
  }),

  {
    ...{ alert: 'SysmonServerDown', severity: 'critical' },
    fires: { series: { 'up{job="sysmon"}': '1x10 0x20' }, at: '20m' },
    stays: [{ why: 'it is up', series: { 'up{job="sysmon"}': '1x30' }, at: '20m' }],
  },
  {
    ...{ alert: 'SysmonServerClockOff', severity: 'warning', alone: true },
    fires: {
      series: {
        'sysmon_agent_clock_offset_seconds{agent="a"}': '30x20',
        'sysmon_agent_clock_offset_seconds{agent="b"}': '30.1x20',
        'sysmon_agent_clock_offset_seconds{agent="c"}': '0x20',
      },
      at: '10m',
      labels: { agent: '', instance: '', job: '', rack: '' },
    },
    stays: [
      {
        why: 'one of three is off',
        series: {
          'sysmon_agent_clock_offset_seconds{agent="a"}': '30x20',
          'sysmon_agent_clock_offset_seconds{agent="b"}': '0x20',
          'sysmon_agent_clock_offset_seconds{agent="c"}': '0x20',
        },
        at: '10m',
      },
      {
        why: 'it is the only agent that is off',
        series: { 'sysmon_agent_clock_offset_seconds{agent="a"}': '30x20' },
        at: '10m',
      },
    ],
  },
  event('SysmonServerClockOff', 'warning', 'sysmon_server_clock_steps_total'),
  {
    ...{ alert: 'SysmonScraperBehind', severity: 'warning' },
    fires: {
      series: { 'sysmon_server_scrape_backlog_reports{scraper="p",selection=""}': '40x60' },
      ...{ at: '20m', labels: { scraper: 'p' } },
    },
    stays: [
      {
        why: 'it has caught up',
        series: { 'sysmon_server_scrape_backlog_reports{scraper="p",selection=""}': '40x10 0x60' },
        at: '20m',
      },
    ],
  },
  {
    ...{ alert: 'SysmonWindowFull', severity: 'warning' },
    fires: { series: { sysmon_server_window_bytes: '91x60', sysmon_server_window_max_bytes: '100x60' }, at: '20m' },
    stays: [
      {
        why: 'there is room',
        series: { sysmon_server_window_bytes: '89x60', sysmon_server_window_max_bytes: '100x60' },
        at: '20m',
      },
    ],
  },
  event('SysmonWindowEvicts', 'warning', 'sysmon_server_reports_evicted_total{reason="memory"}', { reason: 'memory' }),
  event('SysmonReportsLost', 'critical', 'sysmon_server_unscraped_reports_lost_total{reason="age"}', { reason: 'age' }),
  ...firstEvent('SysmonScraperConflict', 'sysmon_server_scraper_conflicts_total{scraper="p"}', { scraper: 'p' }),
  ...firstEvent('SysmonAnswersAssumed', 'sysmon_server_answers_assumed_total{scraper="p"}', { scraper: 'p' }),
  rate('SysmonReceiptsMissing', 'warning', 'sysmon_server_receipts_total{scraper="p",outcome="refused"}', {
    ...{ fast: 1, slow: 0.1, at: '25m', labels: { scraper: 'p', outcome: 'refused' } },
  }),
  rate('SysmonPeersRefused', 'warning', 'sysmon_server_connections_refused_total{reason="tls"}', {
    ...{ fast: 2, slow: 0.5, at: '25m' },
  }),
  rate('SysmonPeersRefused', 'warning', 'sysmon_server_connections_ended_total{reason="revoked"}', {
    ...{ fast: 2, slow: 0.5, at: '25m' },
  }),
  {
    ...{ alert: 'SysmonKeysRetire', severity: 'warning', every: '1h' },
    fires: { series: { sysmon_server_agents_retiring_key: '3x40' }, at: '30h' },
    stays: [
      { why: 'all have joined again', series: { sysmon_server_agents_retiring_key: '3x20 0x20' }, at: '30h' },
      { why: 'the rotation has just begun', series: { sysmon_server_agents_retiring_key: '0x20 3x20' }, at: '30h' },
    ],
  },
  rate('SysmonStateUnwritten', 'critical', 'sysmon_server_state_writes_total{outcome="failed"}', {
    ...{ fast: 1, slow: 0, at: '25m', labels: { outcome: 'failed' } },
  }),
  event('SysmonServerBug', 'warning', 'sysmon_server_bugs_total'),
];
