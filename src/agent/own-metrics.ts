import type { Clock } from '../runtime/clock.ts';
import { counter, gauge, type SampledFamily, type Samples } from './collect/collectors/collector.ts';
import type { RecorderCounters } from './collect/recorder.ts';
import { type RefusalReason, refusalReasons } from './uplink/refusals.ts';

/**
 * What the parts of the agent count about themselves: a part changes its own fields, and `SelfMetrics` reads all of them.
 * Totals count from the start of the program, so each is a counter in Prometheus that restarts with it.
 */
export interface AgentCounters extends RecorderCounters {
  reportsSampled: number;
  /** Why reports were dropped: the spool was full, they were too old, or their file was damaged. */
  readonly reportsDropped: Record<'full' | 'age' | 'disk', number>;
  /** Why reports that were sent reach no scraper: the server refused them, or could not take them. */
  readonly reportsRefused: Record<RefusalReason, number>;
  /** Ticks for which the last collection was still running. */
  ticksSkipped: number;
  /** Ticks that came late: by more than half an interval, or a second. */
  ticksLate: number;
  /** Reports that the server has not acknowledged, at present. */
  spoolReports: number;
  spoolBytes: number;
  spoolDiskErrors: number;
  spoolDiskState: 'ok' | 'slow' | 'failing';
  /** Reports that are in memory alone, though there is a folder for them. */
  spoolUnwrittenReports: number;
  /** Connections that were welcomed; `reconnects` are those after the first. */
  connects: number;
  reconnects: number;
  /** Attempts to connect that ended before a welcome, for whatever reason. */
  connectFailures: number;
  bytesSent: number;
  acksReceived: number;
  /** What the server adds to the times of the running epoch. */
  clockOffsetMs: number;
  /** Epochs begun because the wall clock was moved. */
  clockSteps: number;
  /** Times that the server's clock was found elsewhere than before. */
  serverClockSteps: number;
}

export function newAgentCounters(): AgentCounters {
  return {
    reportsSampled: 0,
    reportsDropped: { full: 0, age: 0, disk: 0 },
    reportsRefused: { too_old: 0, not_newer: 0, server_bug: 0, server_clock: 0, other: 0 },
    ticksSkipped: 0,
    ticksLate: 0,
    spoolReports: 0,
    spoolBytes: 0,
    spoolDiskErrors: 0,
    spoolDiskState: 'ok',
    spoolUnwrittenReports: 0,
    connects: 0,
    reconnects: 0,
    connectFailures: 0,
    bytesSent: 0,
    acksReceived: 0,
    clockOffsetMs: 0,
    clockSteps: 0,
    serverClockSteps: 0,
    samplesDuplicate: 0,
    samplesRefused: 0,
    labelsCut: 0,
    schemasBegun: 0,
  };
}

/** What the operating system says about this process. */
export interface ProcessFacts {
  readonly version: string;
  readonly nodeVersion: string;
  readonly startTimeMs: number;
  /** User and system, of all threads, since the start. */
  cpuMicroseconds(): number;
  /** Up to a minute old. */
  residentBytes(): number;
}

/** The facts of the running process. */
export function processFacts(version: string, startTimeMs: number, clock: Pick<Clock, 'monotonicMs'>): ProcessFacts {
  let resident = { bytes: 0, atMs: Number.NEGATIVE_INFINITY };
  return {
    version,
    nodeVersion: process.versions.node,
    startTimeMs,
    cpuMicroseconds() {
      const { user, system } = process.cpuUsage();
      return user + system;
    },
    residentBytes() {
      const nowMs = clock.monotonicMs();
      // The kernel takes as long for it as for all of /proc/meminfo, and it changes slowly.
      if (nowMs - resident.atMs >= residentEveryMs) resident = { bytes: process.memoryUsage.rss(), atMs: nowMs };
      return resident.bytes;
    },
  };
}

// A collection may come a little early.
const residentEveryMs = 59_000;

/** The `sysmon_agent_*` families. */
export class SelfMetrics {
  readonly #counters: AgentCounters;
  readonly #facts: ProcessFacts;
  readonly #nodeExporterLabels: readonly string[];

  constructor(counters: AgentCounters, facts: ProcessFacts) {
    this.#counters = counters;
    this.#facts = facts;
    const architecture = goArchitectures[process.arch] ?? process.arch;
    this.#nodeExporterLabels = [nodeExporterVersion, facts.version, 'sysmon-agent', process.platform, architecture];
  }

  collect(out: Samples): void {
    out.sample(buildInfo, 1, this.#facts.version, this.#facts.nodeVersion);
    out.sampleLabels(nodeExporterBuildInfo, 1, this.#nodeExporterLabels);
    out.sample(startTime, this.#facts.startTimeMs);
    out.sample(cpu, this.#facts.cpuMicroseconds());
    out.sample(residentMemory, this.#facts.residentBytes());
    for (const reason of dropReasons) out.sample(reportsDropped, this.#counters.reportsDropped[reason], reason);
    for (const reason of refusalReasons) out.sample(reportsDropped, this.#counters.reportsRefused[reason], reason);
    for (const state of diskStates) {
      out.sample(spoolDiskState, this.#counters.spoolDiskState === state ? 1 : 0, state);
    }
    for (const { family, field } of rows) out.sample(family, this.#counters[field]);
  }
}

const dropReasons = ['full', 'age', 'disk'] as const;

const buildInfo = gauge('sysmon_agent_build_info', 'Version of the agent and of its Node.js, as labels; always 1.', {
  labels: ['version', 'nodejs'],
});
// Variables of dashboards for node_exporter ask for it. It has no Go to speak of.
const nodeExporterBuildInfo = gauge(
  'node_exporter_build_info',
  'Version of the node_exporter whose families this agent gives, as a label; always 1.',
  { labels: ['version', 'revision', 'branch', 'goos', 'goarch'] },
);
const nodeExporterVersion = '1.12.1';
const goArchitectures: Readonly<Record<string, string>> = { x64: 'amd64', ia32: '386', ppc64: 'ppc64le' };
const startTime = gauge('sysmon_agent_start_time_seconds', 'Time at which the agent started, in seconds since 1970.', {
  divisor: 1000,
});
const cpu = counter('sysmon_agent_cpu_seconds_total', 'CPU time that the agent has used, user and system.', {
  divisor: 1_000_000,
});
const residentMemory = gauge('sysmon_agent_resident_memory_bytes', 'Resident memory of the agent, read once a minute.');
const reportsDropped = counter(
  'sysmon_agent_reports_dropped_total',
  'Reports dropped, each a gap of one interval. full: the spool was full; age: they were older than --spool.max-age; ' +
    'disk: their file was damaged. At the server: too_old: older than its --window; not_newer: not newer than what it ' +
    'has; server_bug: it failed on the report three times; server_clock: ahead of its clock; other: see the log.',
  { labels: ['reason'] },
);

const diskStates = ['ok', 'slow', 'failing'] as const;
const spoolDiskState = gauge(
  'sysmon_agent_spool_disk_state',
  'State of the disk of the spool: 1 for the present state, 0 for the others. slow: it does not answer in time; failing: ' +
    'it is full or broken. Sampling and sending go on, and new reports are in memory only.',
  { labels: ['state'] },
);

type NumberField = { [K in keyof AgentCounters]: AgentCounters[K] extends number ? K : never }[keyof AgentCounters];

const rows: readonly { readonly family: SampledFamily; readonly field: NumberField }[] = [
  {
    field: 'reportsSampled',
    family: counter('sysmon_agent_reports_sampled_total', 'Reports that the agent has made, one each interval.'),
  },
  {
    field: 'ticksSkipped',
    family: counter(
      'sysmon_agent_ticks_skipped_total',
      'Collections skipped because the last one was still running, each a gap of one interval. If it rises, see ' +
        'node_scrape_collector_duration_seconds.',
    ),
  },
  {
    field: 'ticksLate',
    family: counter(
      'sysmon_agent_ticks_late_total',
      'Collections that began more than a second (or half an interval) late: the agent got no CPU time, the host was ' +
        'suspended, or its clock was set forwards.',
    ),
  },
  {
    field: 'spoolReports',
    family: gauge(
      'sysmon_agent_spool_reports',
      'Unacknowledged reports in the spool. It rises while the server or Prometheus is down.',
    ),
  },
  {
    field: 'spoolBytes',
    family: gauge(
      'sysmon_agent_spool_bytes',
      'Size of the spool. At --spool.max-bytes the oldest reports are dropped.',
    ),
  },
  {
    field: 'spoolDiskErrors',
    family: counter(
      'sysmon_agent_spool_disk_errors_total',
      'Times that the spool could not be written to disk, or that a damaged file was found there. Reports are then in ' +
        'memory only, and do not survive a restart of the agent.',
    ),
  },
  {
    field: 'spoolUnwrittenReports',
    family: gauge(
      'sysmon_agent_spool_unwritten_reports',
      'Reports that the disk of the spool does not hold yet. They would be lost with the agent.',
    ),
  },
  {
    field: 'connects',
    family: counter('sysmon_agent_connects_total', 'Connections that the server has accepted with a welcome.'),
  },
  {
    field: 'reconnects',
    family: counter('sysmon_agent_reconnects_total', 'Connections after the first: how often the connection was lost.'),
  },
  {
    field: 'connectFailures',
    family: counter(
      'sysmon_agent_connect_failures_total',
      'Attempts to connect to the server that failed; the log has the reasons.',
    ),
  },
  {
    field: 'bytesSent',
    family: counter('sysmon_agent_sent_bytes_total', 'Bytes of frames sent to the server.'),
  },
  {
    field: 'acksReceived',
    family: counter('sysmon_agent_acks_received_total', 'Acknowledgements received from the server.'),
  },
  {
    field: 'clockOffsetMs',
    family: gauge(
      'sysmon_agent_clock_offset_seconds',
      'Correction added to the timestamps of this host, because its clock differs from that of the server. If it is not 0, ' +
        'check NTP.',
      { divisor: 1000 },
    ),
  },
  {
    field: 'clockSteps',
    family: counter('sysmon_agent_clock_steps_total', 'Times that the clock of this host was set by more than 2 s.'),
  },
  {
    field: 'serverClockSteps',
    family: counter(
      'sysmon_agent_server_clock_steps_total',
      "Times that the server's clock was set by more than 2 s. Unacknowledged reports are then sent with corrected timestamps.",
    ),
  },
  {
    field: 'schemasBegun',
    family: counter(
      'sysmon_agent_schemas_begun_total',
      'Times that all series were declared again because many had disappeared (containers, network interfaces).',
    ),
  },
  {
    field: 'samplesDuplicate',
    family: counter(
      'sysmon_agent_samples_duplicate_total',
      'Samples of a series that occurred twice in one collection; the first was kept.',
    ),
  },
  {
    field: 'samplesRefused',
    family: counter(
      'sysmon_agent_samples_refused_total',
      'Samples refused because of their name or labels; the log names them.',
    ),
  },
  {
    field: 'labelsCut',
    family: counter('sysmon_agent_labels_cut_total', 'Label values shortened because they were too long.'),
  },
];
