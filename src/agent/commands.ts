import { machine } from 'node:os';
import type { Clock } from '../runtime/clock.ts';
import { askControl } from '../runtime/control.ts';
import type { Log } from '../runtime/log.ts';
import { version } from '../runtime/version.ts';
import { createCollectors } from './collect/collectors/index.ts';
import { expositionOf } from './collect/exposition.ts';
import { Host } from './collect/proc/host.ts';
import { Sampler } from './collect/sampler.ts';
import type { AgentOptions } from './options.ts';
import { type AgentCounters, newAgentCounters, processFacts, SelfMetrics } from './own-metrics.ts';
import { collectorsOf, readSettings, rootsOf } from './settings.ts';
import { checkSpoolAccess } from './spool/folder.ts';
import { type AgentStatus, statusText } from './status.ts';

// The commands beside `run`: each prints to `out` and returns the exit code.

export type Out = (text: string) => void;

export interface SamplerParts {
  readonly clock: Clock;
  readonly log: Log;
  readonly counters: AgentCounters;
}

/** The collectors that the options choose, on the host that they name. */
export function newSampler(
  options: AgentOptions,
  { clock, log, counters }: SamplerParts,
): { host: Host; sampler: Sampler } {
  const host = new Host(rootsOf(options));
  const collectors = createCollectors(collectorsOf(options), {
    clock,
    machine: machine(),
    timeZone: process.env['TZ'],
    // Each collector's options are in the program's table under their own names, so the value has the row's type.
    option: (row) => (options.values as Record<string, unknown>)[row.name] as never,
  });
  const startTimeMs = clock.nowMs() - process.uptime() * 1000;
  const self = new SelfMetrics(counters, processFacts(version, Math.round(startTimeMs)));
  return { host, sampler: new Sampler({ host, collectors, self, clock, counters, log }) };
}

/** One collection as Prometheus would read it. */
export async function collect(options: AgentOptions, parts: { clock: Clock; log: Log; out: Out }): Promise<number> {
  const { host, sampler } = newSampler(options, { ...parts, counters: newAgentCounters() });
  parts.out(expositionOf(await sampler.sample()));
  host.close();
  return 0;
}

/** Says what a start would find wrong. Dials nobody and writes nothing. */
export async function check(
  options: AgentOptions,
  parts: { clock: Clock; hostName: string; out: Out },
): Promise<number> {
  const { clock, hostName, out } = parts;
  const settings = await readSettings(options, hostName);
  if (settings.spoolDir !== undefined) checkSpoolAccess(settings.spoolDir);
  const silent: Log = { error() {}, warn() {}, info() {}, debug() {} };
  const { host, sampler } = newSampler(options, { clock, log: silent, counters: newAgentCounters() });
  const { schema } = await sampler.sample();
  host.close();
  out(
    `options are right: agent '${settings.agentName}' to ${settings.address} ${settings.key ? 'by TLS with its key' : 'without a key'}, ` +
      `${schema.seriesCount} series, spool ${settings.spoolDir === undefined ? 'in memory' : `in '${settings.spoolDir}'`}\n`,
  );
  for (const { name, reason } of sampler.failures) out(`collector '${name}' has nothing to give: ${reason}\n`);
  return 0;
}

/** Asks the running agent. */
export async function status({ values }: AgentOptions, out: Out): Promise<number> {
  const answer = (await askControl(values.controlSocket, { command: 'status' })) as { agent: AgentStatus };
  out(values.json ? `${JSON.stringify(answer.agent, undefined, 2)}\n` : statusText(answer.agent));
  return 0;
}
