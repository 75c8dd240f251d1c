import type { Clock } from '../runtime/clock.ts';
import { askControl } from '../runtime/control.ts';
import type { Log } from '../runtime/log.ts';
import { memoryLimitBytes } from '../runtime/memory-limit.ts';
import { optionHelp } from '../runtime/option-help.ts';
import type { CollectorRow } from './collect/collectors/collector.ts';
import { collectorRows } from './collect/collectors/index.ts';
import { expositionOf } from './collect/exposition.ts';
import type { AgentOptions } from './options.ts';
import { newAgentCounters } from './own-metrics.ts';
import { isListOnly, readSettings, statusSettings } from './settings.ts';
import { checkSpoolAccess } from './spool/folder.ts';
import { spoolMemoryWarning } from './spool/spool.ts';
import { type AgentStatus, statusText } from './status.ts';
import { newSampler } from './wire-up.ts';

// The commands beside `run`: each prints to `out` and returns the exit code.

export type Out = (text: string) => void;

/** One collection as Prometheus would read it; with --list the collectors and their options. */
export async function collect(options: AgentOptions, parts: { clock: Clock; log: Log; out: Out }): Promise<number> {
  if (isListOnly(options)) {
    parts.out(collectorRows.map(collectorText).join(''));
    return 0;
  }
  const sampler = newSampler(options, { ...parts, counters: newAgentCounters() });
  parts.out(expositionOf(await sampler.sample()));
  sampler.close();
  return 0;
}

function collectorText({ name, enabled, description, options }: CollectorRow): string {
  const lines = [`${name} (${enabled === 'by default' ? 'on' : 'off'} by default): ${description}`];
  return [...lines, ...options.flatMap((row) => optionHelp(row))].map((line) => `${line}\n`).join('');
}

/** Reports what a start would find wrong. Connects to nothing and writes nothing. */
export async function check(
  options: AgentOptions,
  parts: { clock: Clock; hostName: string; out: Out },
): Promise<number> {
  const { clock, hostName, out } = parts;
  const settings = await readSettings(options, hostName);
  if (settings.spoolDir !== undefined) checkSpoolAccess(settings.spoolDir);
  const silent: Log = { error() {}, warn() {}, info() {}, debug() {} };
  const sampler = newSampler(options, { clock, log: silent, counters: newAgentCounters() });
  const { schema } = await sampler.sample();
  sampler.close();
  out(
    `the options are valid: agent '${settings.agentName}' to ${settings.address} ${settings.key ? 'by TLS with its key' : 'without a key'}, ` +
      `${schema.seriesCount} series, spool ${settings.spoolDir === undefined ? 'in memory' : `in '${settings.spoolDir}'`}\n`,
  );
  const memoryWarning = spoolMemoryWarning(settings.bounds, memoryLimitBytes());
  if (memoryWarning !== undefined) out(`${memoryWarning}\n`);
  for (const { name, extent, reason } of sampler.failures) {
    out(`collector '${name}' fails${extent === 'part' ? ' in part' : ''}: ${reason}\n`);
  }
  return 0;
}

/** Asks the running agent. */
export async function status(options: AgentOptions, out: Out): Promise<number> {
  const { controlSocket, json } = statusSettings(options);
  const answer = (await askControl(controlSocket, 'GET status')) as { agent: AgentStatus };
  out(json ? `${JSON.stringify(answer.agent, undefined, 2)}\n` : statusText(answer.agent));
  return 0;
}
