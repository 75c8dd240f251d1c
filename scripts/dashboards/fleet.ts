import type { Dashboard } from '@grafana/grafana-foundation-sdk/dashboard';
import { dashboardOf, graph, lines, number } from './parts.ts';

const agents = 'job=~"$job",agent=~"$agent"';
const physical = `${agents},device!~"lo|veth.+"`;
const server = 'job=~"$job"';
const cpuBusy = `1 - avg by (agent) (sum without (mode) (rate(node_cpu_seconds_total{${agents},mode=~"idle|iowait|steal"}[$__rate_interval])))`;
const memoryUsed = `max by (agent) (1 - node_memory_MemAvailable_bytes{${agents}} / node_memory_MemTotal_bytes{${agents}})`;
const fullest = `max by (agent) (1 - node_filesystem_avail_bytes{${agents}} / node_filesystem_size_bytes{${agents}})`;
const loadPerCpu = `max by (agent) (node_load1{${agents}}) / count by (agent) (node_cpu_seconds_total{${agents},mode="idle"})`;
const host = `/d/sysmon-host?\${datasource:queryparam}&var-agent=\${__data.fields.agent}&\${__url_time_range}`;

/** All hosts, and sysmon itself. */
export const fleet = (): Dashboard =>
  dashboardOf({
    uid: 'sysmon-fleet',
    title: 'sysmon / Fleet',
    description: 'All hosts beside each other, and whether sysmon itself is well.',
    agents: 'several',
    rows: [
      {
        title: 'Hosts',
        panels: [
          number({
            title: 'Up',
            description: 'Agents whose newest report has arrived and was stored.',
            unit: 'none',
            queries: [[`sum(sysmon_agent_up{${agents},source=""})`, 'up']],
          }),
          number({
            title: 'Down',
            description: 'Agents of which no report has arrived for three intervals and 5 s.',
            unit: 'none',
            thresholds: [1, 1],
            queries: [
              [`count(sysmon_agent_up{${agents},source=""}) - sum(sysmon_agent_up{${agents},source=""})`, 'down'],
            ],
          }),
          number({
            title: 'Alerts',
            description: 'Alerts that fire for these hosts.',
            unit: 'none',
            thresholds: [1, 10],
            queries: [['count(ALERTS{alertstate="firing",agent=~"$agent"}) or vector(0)', 'alerts']],
          }),
          number({
            title: 'Clocks off',
            description: 'Hosts whose clock differs by over 2 s from that of the server. Their samples are corrected.',
            unit: 'none',
            thresholds: [1, 10],
            queries: [[`count(abs(sysmon_agent_clock_offset_seconds{${agents}}) > 2) or vector(0)`, 'agents']],
          }),
          number({
            title: 'Failed units',
            description: 'Units of systemd that have failed.',
            unit: 'none',
            thresholds: [1, 10],
            queries: [[`sum(node_systemd_unit_state{${agents},state="failed"}) or vector(0)`, 'units']],
          }),
          number({
            title: 'OOM kills',
            description: 'Processes that were killed for want of memory within the time shown.',
            unit: 'none',
            thresholds: [1, 10],
            queries: [[`sum(increase(node_vmstat_oom_kill{${agents}}[$__range])) or vector(0)`, 'kills']],
          }),
          lines({
            title: 'Hosts',
            description: 'A line for each host. Click on a name for its own dashboard.',
            by: ['agent'],
            link: host,
            height: 12,
            columns: [
              { title: 'Up', unit: 'bool_yes_no', expr: `max by (agent) (sysmon_agent_up{${agents},source=""})` },
              { title: 'CPU', unit: 'percentunit', expr: cpuBusy },
              { title: 'Memory', unit: 'percentunit', expr: memoryUsed },
              { title: 'Fullest file system', unit: 'percentunit', expr: fullest },
              { title: 'Load of a CPU', unit: 'short', expr: loadPerCpu },
              {
                title: 'Up since',
                unit: 'dateTimeFromNow',
                expr: `max by (agent) (node_boot_time_seconds{${agents}}) * 1000`,
              },
              {
                title: 'Not acknowledged',
                unit: 'short',
                expr: `max by (agent) (sysmon_agent_spool_reports{${agents}})`,
              },
              {
                title: 'Clock off by',
                unit: 's',
                expr: `max by (agent) (sysmon_agent_clock_offset_seconds{${agents}})`,
              },
            ],
          }),
          graph({
            title: 'CPU',
            description: 'The share of time in which the CPUs of a host had work.',
            unit: 'percentunit',
            max: 1,
            queries: [[cpuBusy, '{{agent}}']],
          }),
          graph({
            title: 'Memory',
            description: 'The share of memory that is in use, caches that can be freed not counted.',
            unit: 'percentunit',
            max: 1,
            queries: [[memoryUsed, '{{agent}}']],
          }),
          graph({
            title: 'Fullest file system',
            description: "The share that is in use of a host's fullest file system.",
            unit: 'percentunit',
            max: 1,
            queries: [[fullest, '{{agent}}']],
          }),
          graph({
            title: 'Load of a CPU',
            description: 'Tasks that run or want to, for each CPU: above 1 they queue.',
            unit: 'short',
            queries: [[loadPerCpu, '{{agent}}']],
          }),
          graph({
            title: 'Waiting for memory and disks',
            description:
              'The share of time in which all tasks of a host that had work waited, for memory or for a disk.',
            unit: 'percentunit',
            queries: [
              [
                `max by (agent) (rate(node_pressure_memory_stalled_seconds_total{${agents}}[$__rate_interval]))`,
                '{{agent}} memory',
              ],
              [
                `max by (agent) (rate(node_pressure_io_stalled_seconds_total{${agents}}[$__rate_interval]))`,
                '{{agent}} disk',
              ],
            ],
          }),
          graph({
            title: 'Network',
            description: 'Bytes received and sent, all physical interfaces of a host together.',
            unit: 'Bps',
            queries: [
              [
                `sum by (agent) (rate(node_network_receive_bytes_total{${physical}}[$__rate_interval]))`,
                '{{agent}} received',
              ],
              [
                `sum by (agent) (rate(node_network_transmit_bytes_total{${physical}}[$__rate_interval]))`,
                '{{agent}} sent',
              ],
            ],
          }),
          graph({
            title: 'Disks',
            description: 'The share of time in which the busiest disk of a host had a request.',
            unit: 'percentunit',
            queries: [
              [`max by (agent) (rate(node_disk_io_time_seconds_total{${agents}}[$__rate_interval]))`, '{{agent}}'],
            ],
          }),
          graph({
            title: 'Warmest sensor',
            description: "The highest temperature of a host's sensors.",
            unit: 'celsius',
            queries: [[`max by (agent) (node_hwmon_temp_celsius{${agents}})`, '{{agent}}']],
          }),
          graph({
            title: 'Up',
            description: '1 while the reports of an agent arrive, as seen at that time.',
            unit: 'bool_yes_no',
            max: 1,
            queries: [[`min by (agent) (sysmon_agent_up{${agents}})`, '{{agent}}']],
          }),
        ],
      },
      {
        title: 'What waits, and what is lost',
        panels: [
          graph({
            title: 'Not acknowledged',
            description: 'Reports in the spools: of agents that cannot send, or that some Prometheus has not fetched.',
            unit: 'short',
            queries: [[`max by (agent) (sysmon_agent_spool_reports{${agents}})`, '{{agent}}']],
          }),
          graph({
            title: 'Late by',
            description:
              'How old the newest report of an agent was when it came: over a few seconds it sends a backlog.',
            unit: 's',
            queries: [[`max by (agent) (sysmon_server_agent_lag_seconds{${agents}})`, '{{agent}}']],
          }),
          graph({
            title: 'Scrapers behind',
            description: 'Reports that an answer has left for the next scrape: above 0 while a scraper catches up.',
            unit: 'short',
            queries: [[`max by (scraper) (sysmon_server_scrape_backlog_reports{${server}})`, '{{scraper}}']],
          }),
          graph({
            title: 'Windows',
            description: 'Memory of the windows, and the limit at which the oldest reports are evicted.',
            unit: 'bytes',
            queries: [
              [`max(sysmon_server_window_bytes{${server}})`, 'windows'],
              [`max(sysmon_server_window_max_bytes{${server}})`, '--memory-max'],
            ],
          }),
          graph({
            title: 'Dropped by agents',
            description: 'Reports that agents have dropped, by reason: each a gap of one interval.',
            unit: 'short',
            queries: [
              [
                `sum by (agent, reason) (increase(sysmon_agent_reports_dropped_total{${agents}}[$__rate_interval])) > 0`,
                '{{agent}} {{reason}}',
              ],
            ],
          }),
          graph({
            title: 'Refused or evicted',
            description: 'Reports that the server has refused, or evicted before every scraper had them.',
            unit: 'short',
            queries: [
              [
                `sum by (agent, reason) (increase(sysmon_server_agent_reports_dropped_total{${agents}}[$__rate_interval])) > 0`,
                '{{agent}} {{reason}}',
              ],
              [
                `sum by (reason) (increase(sysmon_server_unscraped_reports_lost_total{${server}}[$__rate_interval])) > 0`,
                'lost: {{reason}}',
              ],
            ],
          }),
          graph({
            title: 'Clock offset',
            description: "How far the clocks of hosts are from that of the server. All alike: the server's is wrong.",
            unit: 's',
            min: -1,
            queries: [[`max by (agent) (sysmon_agent_clock_offset_seconds{${agents}})`, '{{agent}}']],
          }),
        ],
      },
      {
        title: 'Server',
        panels: [
          graph({
            title: 'Reports',
            description: 'Reports that arrive, by what became of them.',
            unit: 'cps',
            queries: [
              [`sum by (outcome) (rate(sysmon_server_reports_total{${server}}[$__rate_interval]))`, '{{outcome}}'],
            ],
          }),
          graph({
            title: 'Samples of a scrape',
            description: 'Samples in the last answer to each scraper.',
            unit: 'short',
            queries: [[`max by (scraper) (sysmon_server_scrape_samples{${server}})`, '{{scraper}}']],
          }),
          graph({
            title: 'Answers given again',
            description:
              'Answers whose samples were given again, and answers that count as read though nothing confirmed them.',
            unit: 'short',
            queries: [
              [
                `sum by (kind) (increase(sysmon_server_scrape_rollbacks_total{${server}}[$__rate_interval]))`,
                '{{kind}}',
              ],
              [
                `sum by (scraper) (increase(sysmon_server_answers_assumed_total{${server}}[$__rate_interval]))`,
                '{{scraper}} assumed',
              ],
            ],
          }),
          graph({
            title: 'Peers refused',
            description: 'Connections to the port for agents that were refused or ended, by reason.',
            unit: 'short',
            queries: [
              [
                `sum by (reason) (increase(sysmon_server_connections_refused_total{${server}}[$__rate_interval]))`,
                '{{reason}}',
              ],
              [
                `sum by (reason) (increase(sysmon_server_connections_ended_total{${server}}[$__rate_interval]))`,
                'ended: {{reason}}',
              ],
            ],
          }),
          graph({
            title: 'CPU of the server',
            description: 'CPU time of the server, user and system, and how late its event loop runs (p99).',
            unit: 's',
            queries: [
              [
                `max(rate(sysmon_server_process_cpu_seconds_total{${server}}[$__rate_interval]))`,
                'CPU seconds a second',
              ],
              [`max(sysmon_server_nodejs_eventloop_lag_p99_seconds{${server}})`, 'event loop, p99'],
            ],
          }),
          graph({
            title: 'Memory of the server',
            description: 'Resident memory of the server.',
            unit: 'bytes',
            queries: [[`max(sysmon_server_process_resident_memory_bytes{${server}})`, 'resident']],
          }),
        ],
      },
      {
        title: 'Agents',
        panels: [
          graph({
            title: 'CPU of agents',
            description: 'CPU time that agents take of their hosts.',
            unit: 'percentunit',
            queries: [
              [`max by (agent) (rate(sysmon_agent_cpu_seconds_total{${agents}}[$__rate_interval]))`, '{{agent}}'],
            ],
          }),
          graph({
            title: 'Memory of agents',
            description: 'Resident memory of agents.',
            unit: 'bytes',
            queries: [[`max by (agent) (sysmon_agent_resident_memory_bytes{${agents}})`, '{{agent}}']],
          }),
          graph({
            title: 'Versions',
            description: 'Agents by their version: one everywhere is best.',
            unit: 'short',
            queries: [[`count by (version) (sysmon_agent_build_info{${agents}})`, '{{version}}']],
          }),
        ],
      },
    ],
  });
