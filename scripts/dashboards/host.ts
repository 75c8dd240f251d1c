import type { Dashboard } from '@grafana/grafana-foundation-sdk/dashboard';
import { dashboardOf, graph, lines, number } from './parts.ts';

/** A series of the host. */
const of = (metric: string, ...matchers: string[]): string =>
  `${metric}{${['job=~"$job"', 'agent="$agent"', ...matchers].join()}}`;
const rate = (metric: string, ...matchers: string[]): string => `rate(${of(metric, ...matchers)}[$__rate_interval])`;
// A slice holds services, which are counted by themselves.
const notSlice = 'name!~".+[.]slice"';
const physical = 'device!~"lo|veth.+"';
const cpus = `count(${of('node_cpu_seconds_total', 'mode="idle"')})`;
const named = (metric: string): string =>
  `max by (chip_name, chip, label, sensor) (agent_chip_sensor:${metric}:named{job=~"$job",agent="$agent"})`;

/** One host. */
export const host = (): Dashboard =>
  dashboardOf({
    uid: 'sysmon-host',
    title: 'sysmon / Host',
    description: 'One host: CPUs, memory, disks, network, services, sensors, and its agent.',
    agents: 'one',
    rows: [
      {
        title: 'Now',
        panels: [
          number({
            title: 'Up',
            description: 'Whether its newest report has arrived and was stored.',
            unit: 'bool_yes_no',
            queries: [[`min(${of('sysmon_agent_up')})`, 'up']],
          }),
          number({
            title: 'Running for',
            description: 'Since the kernel was started.',
            unit: 's',
            queries: [[`max(${of('node_time_seconds')} - ${of('node_boot_time_seconds')})`, 'uptime']],
          }),
          number({
            title: 'CPU',
            description: 'The share of time in which the CPUs had work.',
            unit: 'percentunit',
            thresholds: [0.8, 0.95],
            queries: [
              [`1 - avg(sum without (mode) (${rate('node_cpu_seconds_total', 'mode=~"idle|iowait|steal"')}))`, 'busy'],
            ],
          }),
          number({
            title: 'Memory',
            description: 'The share of memory in use, caches that can be freed not counted.',
            unit: 'percentunit',
            thresholds: [0.8, 0.9],
            queries: [
              [`max(1 - ${of('node_memory_MemAvailable_bytes')} / ${of('node_memory_MemTotal_bytes')})`, 'used'],
            ],
          }),
          number({
            title: 'Fullest file system',
            description: 'The share in use of the fullest file system.',
            unit: 'percentunit',
            thresholds: [0.85, 0.95],
            queries: [[`max(1 - ${of('node_filesystem_avail_bytes')} / ${of('node_filesystem_size_bytes')})`, 'used']],
          }),
          number({
            title: 'Load of a CPU',
            description: 'Tasks that run or want to, for each CPU.',
            unit: 'short',
            thresholds: [1, 2],
            queries: [[`max(${of('node_load1')}) / ${cpus}`, 'load']],
          }),
          number({
            title: 'CPUs',
            description: 'How many CPUs it has.',
            unit: 'none',
            queries: [[cpus, 'CPUs']],
          }),
          number({
            title: 'Memory in all',
            description: 'How much memory it has.',
            unit: 'bytes',
            queries: [[`max(${of('node_memory_MemTotal_bytes')})`, 'memory']],
          }),
          number({
            title: 'Failed units',
            description: 'Units of systemd that have failed.',
            unit: 'none',
            thresholds: [1, 3],
            queries: [[`sum(${of('node_systemd_unit_state', 'state="failed"')}) or vector(0)`, 'failed']],
          }),
          number({
            title: 'OOM kills',
            description: 'Processes that were killed for want of memory within the time shown.',
            unit: 'none',
            thresholds: [1, 3],
            queries: [[`sum(increase(${of('node_vmstat_oom_kill')}[$__range])) or vector(0)`, 'kills']],
          }),
          number({
            title: 'Clock off by',
            description: 'How far its clock is from that of the server. Its samples are corrected.',
            unit: 's',
            queries: [[`max(${of('sysmon_agent_clock_offset_seconds')})`, 'offset']],
          }),
          number({
            title: 'Not acknowledged',
            description: 'Reports in its spool that some Prometheus has not fetched yet.',
            unit: 'short',
            queries: [[`max(${of('sysmon_agent_spool_reports')})`, 'reports']],
          }),
        ],
      },
      {
        title: 'CPUs',
        panels: [
          graph({
            title: 'CPU time by mode',
            description: 'What the CPUs do: 100 % is all of them.',
            unit: 'percentunit',
            stacked: true,
            max: 1,
            queries: [
              [`sum by (mode) (${rate('node_cpu_seconds_total', 'mode!="idle"')}) / scalar(${cpus})`, '{{mode}}'],
            ],
          }),
          graph({
            title: 'Each CPU',
            description: 'The share of time in which each CPU had work.',
            unit: 'percentunit',
            max: 1,
            queries: [
              [`1 - sum by (cpu) (${rate('node_cpu_seconds_total', 'mode=~"idle|iowait|steal"')})`, 'CPU {{cpu}}'],
            ],
          }),
          graph({
            title: 'Load',
            description:
              'Tasks that run, want to, or wait for a disk, over 1, 5 and 15 minutes, beside the number of CPUs.',
            unit: 'short',
            queries: [
              [of('node_load1'), '1 min'],
              [of('node_load5'), '5 min'],
              [of('node_load15'), '15 min'],
              [cpus, 'CPUs'],
            ],
          }),
          graph({
            title: 'Tasks',
            description: 'Tasks that run or want to, and tasks that wait for a disk.',
            unit: 'short',
            queries: [
              [of('node_procs_running'), 'run'],
              [of('node_procs_blocked'), 'wait for a disk'],
            ],
          }),
          graph({
            title: 'Switches and interrupts',
            description: 'Context switches, interrupts and new processes a second.',
            unit: 'ops',
            queries: [
              [rate('node_context_switches_total'), 'context switches'],
              [rate('node_intr_total'), 'interrupts'],
              [rate('node_forks_total'), 'new processes'],
            ],
          }),
          graph({
            title: 'Pressure',
            description: 'The share of time in which some task waited for a CPU, for memory, for a disk.',
            unit: 'percentunit',
            queries: [
              [rate('node_pressure_cpu_waiting_seconds_total'), 'CPU'],
              [rate('node_pressure_memory_waiting_seconds_total'), 'memory'],
              [rate('node_pressure_io_waiting_seconds_total'), 'disk'],
            ],
          }),
        ],
      },
      {
        title: 'Memory',
        panels: [
          graph({
            title: 'Memory',
            description: 'What the memory is used for.',
            unit: 'bytes',
            stacked: true,
            queries: [
              [
                `${of('node_memory_MemTotal_bytes')} - ${of('node_memory_MemFree_bytes')} - ${of('node_memory_Buffers_bytes')} - ${of('node_memory_Cached_bytes')} - ${of('node_memory_SReclaimable_bytes')}`,
                'programs and kernel',
              ],
              [`${of('node_memory_Cached_bytes')} + ${of('node_memory_SReclaimable_bytes')}`, 'caches'],
              [of('node_memory_Buffers_bytes'), 'buffers'],
              [of('node_memory_MemFree_bytes'), 'free'],
            ],
          }),
          graph({
            title: 'Swap',
            description: 'How much swap there is and is in use.',
            unit: 'bytes',
            queries: [
              [`${of('node_memory_SwapTotal_bytes')} - ${of('node_memory_SwapFree_bytes')}`, 'in use'],
              [of('node_memory_SwapTotal_bytes'), 'in all'],
            ],
          }),
          graph({
            title: 'Paging',
            description: 'Pages read back from disk (major faults), and pages moved to and from swap, a second.',
            unit: 'ops',
            queries: [
              [rate('node_vmstat_pgmajfault'), 'major faults'],
              [rate('node_vmstat_pswpin'), 'from swap'],
              [rate('node_vmstat_pswpout'), 'to swap'],
            ],
          }),
        ],
      },
      {
        title: 'Disks',
        panels: [
          graph({
            title: 'Throughput',
            description: 'Bytes read and written a second.',
            unit: 'Bps',
            queries: [
              [rate('node_disk_read_bytes_total'), '{{device}} read'],
              [rate('node_disk_written_bytes_total'), '{{device}} written'],
            ],
          }),
          graph({
            title: 'Requests',
            description: 'Requests a second.',
            unit: 'iops',
            queries: [
              [rate('node_disk_reads_completed_total'), '{{device}} reads'],
              [rate('node_disk_writes_completed_total'), '{{device}} writes'],
            ],
          }),
          graph({
            title: 'Time of a request',
            description: 'How long a request took, on average.',
            unit: 's',
            queries: [
              [
                `${rate('node_disk_read_time_seconds_total')} / (${rate('node_disk_reads_completed_total')} > 0)`,
                '{{device}} read',
              ],
              [
                `${rate('node_disk_write_time_seconds_total')} / (${rate('node_disk_writes_completed_total')} > 0)`,
                '{{device}} write',
              ],
            ],
          }),
          graph({
            title: 'Busy',
            description: 'The share of time in which a disk had a request.',
            unit: 'percentunit',
            queries: [[rate('node_disk_io_time_seconds_total'), '{{device}}']],
          }),
          graph({
            title: 'Queue',
            description: 'Requests under way, on average.',
            unit: 'short',
            queries: [[rate('node_disk_io_time_weighted_seconds_total'), '{{device}}']],
          }),
          graph({
            title: 'Space left',
            description: 'What is left of each file system.',
            unit: 'bytes',
            queries: [[of('node_filesystem_avail_bytes'), '{{mountpoint}}']],
          }),
          lines({
            title: 'File systems',
            description: 'What is in use of each file system, in space and in inodes.',
            by: ['mountpoint', 'device', 'fstype'],
            columns: [
              {
                title: 'In use',
                unit: 'percentunit',
                expr: `max by (mountpoint, device, fstype) (1 - ${of('node_filesystem_avail_bytes')} / ${of('node_filesystem_size_bytes')})`,
              },
              {
                title: 'Left',
                unit: 'bytes',
                expr: `max by (mountpoint, device, fstype) (${of('node_filesystem_avail_bytes')})`,
              },
              {
                title: 'Size',
                unit: 'bytes',
                expr: `max by (mountpoint, device, fstype) (${of('node_filesystem_size_bytes')})`,
              },
              {
                title: 'Inodes in use',
                unit: 'percentunit',
                expr: `max by (mountpoint, device, fstype) (1 - ${of('node_filesystem_files_free')} / ${of('node_filesystem_files')})`,
              },
            ],
          }),
        ],
      },
      {
        title: 'Network',
        panels: [
          graph({
            title: 'Traffic',
            description: 'Bytes received and sent a second.',
            unit: 'Bps',
            queries: [
              [rate('node_network_receive_bytes_total', physical), '{{device}} received'],
              [rate('node_network_transmit_bytes_total', physical), '{{device}} sent'],
            ],
          }),
          graph({
            title: 'Packets',
            description: 'Packets received and sent a second.',
            unit: 'pps',
            queries: [
              [rate('node_network_receive_packets_total', physical), '{{device}} received'],
              [rate('node_network_transmit_packets_total', physical), '{{device}} sent'],
            ],
          }),
          graph({
            title: 'Errors and drops',
            description: 'Packets with errors and packets dropped, a second.',
            unit: 'pps',
            queries: [
              [
                `${rate('node_network_receive_errs_total', physical)} + ${rate('node_network_transmit_errs_total', physical)}`,
                '{{device}} errors',
              ],
              [
                `${rate('node_network_receive_drop_total', physical)} + ${rate('node_network_transmit_drop_total', physical)}`,
                '{{device}} dropped',
              ],
            ],
          }),
          graph({
            title: 'Connections',
            description: 'TCP sockets in use and waiting to be closed, and connections that the kernel tracks.',
            unit: 'short',
            queries: [
              [of('node_sockstat_TCP_inuse'), 'in use'],
              [of('node_sockstat_TCP_tw'), 'time wait'],
              [of('node_nf_conntrack_entries'), 'tracked'],
            ],
          }),
          graph({
            title: 'TCP sent again',
            description: 'The share of TCP segments that were sent again: above some percent the line is bad.',
            unit: 'percentunit',
            queries: [
              [`${rate('node_netstat_Tcp_RetransSegs')} / (${rate('node_netstat_Tcp_OutSegs')} > 0)`, 'sent again'],
            ],
          }),
          graph({
            title: 'Connections refused by a full queue',
            description:
              'New connections dropped because a program did not accept them in time, and UDP packets that no buffer had room for.',
            unit: 'cps',
            queries: [
              [rate('node_netstat_TcpExt_ListenDrops'), 'connections'],
              [rate('node_netstat_Udp_RcvbufErrors'), 'UDP packets'],
            ],
          }),
        ],
      },
      {
        title: 'Services and sensors',
        panels: [
          graph({
            title: 'CPU by service',
            description: 'The ten services and containers that take most CPU time.',
            unit: 'percentunit',
            width: 12,
            queries: [
              [`topk(10, sum by (name) (${rate('node_systemd_unit_cpu_seconds_total', notSlice)}))`, '{{name}}'],
            ],
          }),
          graph({
            title: 'Memory by service',
            description: 'The ten services and containers that have most memory, page cache included.',
            unit: 'bytes',
            width: 12,
            queries: [[`topk(10, ${of('node_systemd_unit_memory_current_bytes', notSlice)})`, '{{name}}']],
          }),
          graph({
            title: 'Failed units',
            description: 'Units of systemd that have failed.',
            unit: 'bool_yes_no',
            queries: [[`${of('node_systemd_unit_state', 'state="failed"')} > 0`, '{{name}}']],
          }),
          graph({
            title: 'Restarts',
            description: 'Services that systemd has restarted.',
            unit: 'short',
            queries: [[`increase(${of('node_systemd_service_restart_total')}[$__rate_interval]) > 0`, '{{name}}']],
          }),
          graph({
            title: 'File descriptors',
            description: 'Open file handles of the whole host.',
            unit: 'short',
            queries: [[of('node_filefd_allocated'), 'open']],
          }),
          graph({
            title: 'Temperatures',
            description: 'Each sensor, by the names that its driver gives (recorded by rules/host.yml).',
            unit: 'celsius',
            queries: [[named('node_hwmon_temp_celsius'), '{{chip_name}} {{label}} {{sensor}}']],
          }),
          graph({
            title: 'Fans',
            description: 'Each fan, likewise.',
            unit: 'rotrpm',
            queries: [[named('node_hwmon_fan_rpm'), '{{chip_name}} {{label}} {{sensor}}']],
          }),
          graph({
            title: 'Clock',
            description: 'How far the clock is off by its own NTP, and by the server.',
            unit: 's',
            min: -0.1,
            queries: [
              [of('node_timex_offset_seconds'), 'by NTP'],
              [of('sysmon_agent_clock_offset_seconds'), 'by the server'],
            ],
          }),
        ],
      },
      {
        title: 'Agent',
        panels: [
          graph({
            title: 'Reports',
            description: 'Reports made a second, and those that nothing has acknowledged.',
            unit: 'short',
            queries: [
              [rate('sysmon_agent_reports_sampled_total'), 'made a second'],
              [of('sysmon_agent_spool_reports'), 'not acknowledged'],
            ],
          }),
          graph({
            title: 'Late by',
            description: 'How old its newest report was when it came: over a few seconds it sends a backlog.',
            unit: 's',
            queries: [[of('sysmon_server_agent_lag_seconds'), 'a report']],
          }),
          graph({
            title: 'Gaps',
            description: 'Reports dropped, by reason, and collections left out or late.',
            unit: 'short',
            queries: [
              [`increase(${of('sysmon_agent_reports_dropped_total')}[$__rate_interval])`, 'dropped: {{reason}}'],
              [`increase(${of('sysmon_agent_ticks_skipped_total')}[$__rate_interval])`, 'left out'],
              [`increase(${of('sysmon_agent_ticks_late_total')}[$__rate_interval])`, 'late'],
            ],
          }),
          graph({
            title: 'Connection',
            description: 'Connections that were lost, and attempts that failed.',
            unit: 'short',
            queries: [
              [`increase(${of('sysmon_agent_reconnects_total')}[$__rate_interval])`, 'lost'],
              [`increase(${of('sysmon_agent_connect_failures_total')}[$__rate_interval])`, 'failed'],
            ],
          }),
          graph({
            title: 'Slowest collectors',
            description: 'The five that take longest.',
            unit: 's',
            queries: [[`topk(5, ${of('node_scrape_collector_duration_seconds')})`, '{{collector}}']],
          }),
          graph({
            title: 'CPU of the agent',
            description: 'CPU time that the agent takes.',
            unit: 'percentunit',
            queries: [[rate('sysmon_agent_cpu_seconds_total'), 'CPU']],
          }),
          graph({
            title: 'Memory of the agent',
            description: 'Resident memory of the agent.',
            unit: 'bytes',
            queries: [[of('sysmon_agent_resident_memory_bytes'), 'resident']],
          }),
        ],
      },
    ],
  });
