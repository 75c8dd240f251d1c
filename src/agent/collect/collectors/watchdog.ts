// /sys/class/watchdog/watchdogN: one attribute a file, only those that the driver can give. Most came with Linux 4.5, fw_version
// and access_cs0 later; the latter is of the driver aspeed_wdt alone.
// https://www.kernel.org/doc/Documentation/ABI/testing/sysfs-class-watchdog
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import { type Collector, type CollectorRow, gauge, type SampledFamily, type Samples } from './collector.ts';

export const watchdog: CollectorRow = {
  name: 'watchdog',
  enabled: 'by default',
  description: 'watchdogs that restart a hung host, from /sys/class/watchdog',
  options: [],
  lane: 'slow',
  successWithoutData: 1,
  create: () => new Watchdog(),
};

const numbers: readonly (readonly [file: string, family: SampledFamily])[] = [
  one(
    'bootstatus',
    'bootstatus',
    'Whether the watchdog restarted the host the last time, and why: flags of the driver.',
  ),
  one('fw_version', 'fw_version', "Version of the watchdog's firmware."),
  one('nowayout', 'nowayout', 'Whether it cannot be stopped once it runs: 1, or 0.'),
  one('timeleft', 'timeleft_seconds', 'Time until it restarts the host, in seconds.'),
  one('timeout', 'timeout_seconds', 'Time within which a program has to feed it, in seconds.'),
  one('pretimeout', 'pretimeout_seconds', 'How long before it restarts the host it warns, in seconds.'),
  one('access_cs0', 'access_cs0', 'Whether it started the host from its second flash: 1, or 0.'),
];

function one(file: string, name: string, help: string): readonly [string, SampledFamily] {
  return [file, gauge(`node_watchdog_${name}`, help, { labels: ['name'] })];
}

const texts = ['options', 'identity', 'state', 'status', 'pretimeout_governor'];
/** Of these, those that change. */
const changingTexts: ReadonlySet<string> = new Set(['state', 'status']);
const info = gauge('node_watchdog_info', 'Always 1; what the watchdog is, and how it is, as labels.', {
  labels: ['name', ...texts],
});

const folder = 'sys/class/watchdog';

class Watchdog implements Collector {
  collect(host: Host, out: Samples): void {
    for (const name of host.devices(folder)) {
      const path = `${folder}/${name}`;
      const files = host.attributes(path);
      for (const [file, family] of numbers) {
        const value = files.includes(file) ? host.value(`${path}/${file}`, parseNumber) : undefined;
        if (value !== undefined) out.sample(family, value, name);
      }
      const listed = texts.filter((file) => files.includes(file));
      const found = new Map(listed.map((file) => [file, textOf(host, `${path}/${file}`, file)]));
      // One that has gone since it was listed has no files, or says nothing of what is listed. Some kernels have no such files.
      const isGone = files.length === 0 || (listed.length > 0 && listed.every((file) => found.get(file) === undefined));
      if (!isGone) out.sampleLabels(info, 1, [name, ...texts.map((file) => found.get(file) ?? '')]);
    }
  }
}

function textOf(host: Host, path: string, file: string): string | undefined {
  return changingTexts.has(file) ? host.value(path, parseText) : host.rareText(path);
}

function parseNumber(text: KernelText): number {
  return text.unsigned('the number');
}

function parseText(text: KernelText): string {
  return text.rest();
}
