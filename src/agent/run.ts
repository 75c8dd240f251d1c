import { randomBytes } from 'node:crypto';
import { hostname, uptime } from 'node:os';
import { bootClock, type Clock } from '../runtime/clock.ts';
import { serveControl } from '../runtime/control.ts';
import { dial } from '../runtime/dial.ts';
import type { Lifecycle } from '../runtime/lifecycle.ts';
import type { Log } from '../runtime/log.ts';
import { isLoopback } from '../runtime/options.ts';
import { version } from '../runtime/version.ts';
import { durationText, isoTime } from '../runtime/words.ts';
import { EpochClock } from './collect/epoch-clock.ts';
import { runSchedule } from './collect/schedule.ts';
import { newSampler } from './commands.ts';
import type { AgentOptions } from './options.ts';
import { newAgentCounters } from './own-metrics.ts';
import { helloOf, readKey, readSettings, type Settings } from './settings.ts';
import { openSpoolFolder } from './spool/folder.ts';
import { SpoolFiles } from './spool/mirror.ts';
import { Spool } from './spool/spool.ts';
import { type AgentStatus, linkLine, linkStatus } from './status.ts';
import { hostId } from './uplink/host-id.ts';
import { Link } from './uplink/uplink.ts';

/** Collects and sends until the signal: opens what is needed in order, and closes it in reverse. Throws what stops it. */
export async function run(
  options: AgentOptions,
  parts: { clock: Clock; log: Log; lifecycle: Lifecycle },
): Promise<void> {
  const { clock, log, lifecycle } = parts;
  const settings = await readSettings(options, hostname());
  const { server, address, spoolDir, bounds, schedule, agentName } = settings;
  const counters = newAgentCounters();
  const startedAt = isoTime(clock.nowMs());
  const boot = bootClock(clock, () => uptime() * 1000);
  const { random } = Math;

  const folder = spoolDir === undefined ? undefined : await openSpoolFolder(spoolDir);
  const files = folder && new SpoolFiles({ disk: folder.disk, clock, log, counters });
  const spool = new Spool({ clock, log, counters, bounds, ...(files && { files }) });
  const times = new EpochClock({ clock, boot, random, spool, counters, log });
  const { host, sampler } = newSampler(options, { clock, log, counters });

  let key = settings.key;
  let firstAddress: string | undefined;
  const link = new Link({
    ...{ address, spool, clock, boot, random, counters, log },
    hello: helloOf(settings, hostId({ rootfs: options.values.rootfs, spoolDir, randomBytes })),
    dial: async (signal) => {
      const connection = await dial({ ...server, psk: key, timeoutMs: dialTimeoutMs, firstAddress, signal });
      firstAddress = connection.peerAddress;
      return connection;
    },
    onState(state) {
      const line = linkLine(address, state);
      if (line !== undefined) lifecycle.status(line);
    },
  });

  let lastTickAtMs = clock.monotonicMs();
  let series = 0;
  const tick = async () => {
    const timeMs = times.stamp();
    const recording = await sampler.sample();
    series = recording.schema.seriesCount;
    spool.append(recording, timeMs);
    lastTickAtMs = clock.monotonicMs();
  };
  let ticking = tick();
  await ticking;
  const ticks = runSchedule({ schedule, clock, counters, tick: () => (ticking = tick()) });

  const agentStatus = (): AgentStatus => ({
    version,
    name: agentName,
    startedAt,
    server: address,
    link: linkStatus(link.state),
    spool: {
      reports: spool.waitingCount,
      bytes: spool.bytes,
      bytesMax: bounds.bytesMax,
      oldestAt: spool.oldestWaitingMs === undefined ? null : isoTime(spool.oldestWaitingMs),
      folder: spoolDir ?? null,
      isMirrored: spool.unmirroredCount === 0,
    },
    reportsDropped: counters.reportsDropped,
    lastReportAt: spool.epoch === undefined ? null : isoTime(spool.epoch.lastTimeMs),
    intervalSeconds: schedule.intervalMs / 1000,
    series,
    clockOffsetSeconds: counters.clockOffsetMs / 1000,
    reconnects: counters.reconnects,
    failures: sampler.failures,
  });
  const control = await serveControl(options.values.controlSocket, { status: () => ({ agent: agentStatus() }) }, log);

  lifecycle.onReload(() => {
    const next = readKey(options.values.keyFile);
    if (next !== undefined && next.agentName !== agentName) {
      throw new Error(
        `--key-file: it is now the key of '${next.agentName}', expected one of '${agentName}'; restart to change the name`,
      );
    }
    key = next;
    // Kernel files are opened anew by the next collection.
    host.close();
    link.retryNow();
    log.info('reloaded: the next connection uses the key as it is now');
  });
  log.info(startLine(settings, options.changed, { series, waiting: spool.waitingCount }));
  if (settings.key === undefined && !isLoopback(server.host)) {
    log.warn(`reports go to ${address} without a key: whoever is on the way can read and change them`);
  }
  lifecycle.ready();
  lifecycle.watchdog(() => clock.monotonicMs() - lastTickAtMs <= 2 * schedule.intervalMs + tickGraceMs);

  const stopLink = new AbortController();
  const linkRunning = link.run(stopLink.signal);
  // The link ends before the signal only by a bug, which ends the program.
  await Promise.race([lifecycle.stopped, linkRunning]);

  ticks.stop();
  await ticking;
  stopLink.abort();
  await linkRunning;
  spool.close();
  await control?.close();
  await folder?.close();
  host.close();
  log.info(
    `stopped; ${spool.waitingCount} reports ${spoolDir === undefined ? 'were not confirmed' : 'wait in the spool'}`,
  );
}

function startLine(
  settings: Settings,
  changed: readonly string[],
  { series, waiting }: { series: number; waiting: number },
): string {
  const { address, agentName, key, schedule, spoolDir } = settings;
  return (
    `sysmon-agent ${version}: '${agentName}' to ${address} ${key === undefined ? 'without a key' : 'by TLS with its key'}, ` +
    `${series} series every ${durationText(schedule.intervalMs)}, ` +
    `spool ${spoolDir === undefined ? 'in memory' : `in '${spoolDir}'`}, ${waiting} reports waiting` +
    `${changed.length > 0 ? `; set: ${changed.join(' ')}` : ''}`
  );
}

// For the name and all of its addresses; two of them have 10 s each.
const dialTimeoutMs = 20_000;
// A host that swaps is slow, and not helped by a restart.
const tickGraceMs = 60_000;
