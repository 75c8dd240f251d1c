// The clock, its time zone, and /sys/devices/system/clocksource/clocksource*/{available,current}_clocksource, one line
// of words each. https://www.kernel.org/doc/Documentation/ABI/testing/sysfs-devices-clocksource
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import { TimeZone, utc } from '../proc/time-zone.ts';
import { type Collector, type CollectorContext, type CollectorRow, gauge, type Samples } from './collector.ts';

export const time: CollectorRow = {
  name: 'time',
  enabled: 'by default',
  description: 'the clock, its time zone and its sources, from /sys/devices/system/clocksource and /etc/localtime',
  options: [],
  create: (context) => new Time(context),
};

const now = gauge('node_time_seconds', "The host's clock, in seconds since 1970.", { divisor: 1000 });
const zoneOffset = gauge('node_time_zone_offset_seconds', 'What local time is ahead of UTC.', {
  labels: ['time_zone'],
});
const available = gauge('node_time_clocksource_available_info', 'Always 1, for each source that the clock could use.', {
  labels: ['device', 'clocksource'],
});
const current = gauge('node_time_clocksource_current_info', 'Always 1, for the source that the clock uses.', {
  labels: ['device', 'clocksource'],
});

const clocksources = 'sys/devices/system/clocksource';
const zones = 'root/usr/share/zoneinfo';
// Zone files change a few times a year, devices of this kind and their sources hardly ever.
const lookAgainMs = 60_000;

interface Device {
  /** As the label has it. */
  readonly number: string;
  readonly available: readonly string[];
  /** Undefined where it cannot be read. */
  readonly current: string | undefined;
}

class Time implements Collector {
  readonly #clock: CollectorContext['clock'];
  #zone: Pick<TimeZone, 'at'> | undefined;
  #devices: readonly Device[] = [];
  #lookedMs = Number.NEGATIVE_INFINITY;

  constructor({ clock }: CollectorContext) {
    this.#clock = clock;
  }

  collect(host: Host, out: Samples): void {
    const nowMs = this.#clock.nowMs();
    if (this.#clock.monotonicMs() - this.#lookedMs >= lookAgainMs) this.#look(host);
    out.sample(now, nowMs);
    const local = this.#zone?.at(Math.floor(nowMs / 1000));
    if (local !== undefined) out.sample(zoneOffset, local.offsetSeconds, local.abbreviation);
    for (const device of this.#devices) {
      for (const name of device.available) out.sample(available, 1, device.number, name);
    }
    for (const device of this.#devices) {
      if (device.current !== undefined) out.sample(current, 1, device.number, device.current);
    }
  }

  #look(host: Host): void {
    this.#zone = readZone(host);
    this.#devices = listClocksources(host);
    this.#lookedMs = this.#clock.monotonicMs();
  }
}

function parseNames(text: KernelText): string[] {
  const names: string[] = [];
  do names.push(text.word('a clock source'));
  while (text.more());
  return names;
}

function parseName(text: KernelText): string {
  return text.word('the clock source');
}

/** UTC where no file says otherwise; undefined where the file cannot be read. */
function readZone(host: Host): Pick<TimeZone, 'at'> | undefined {
  const path = zonePathOf(host.system.timeZone());
  if (path === undefined || !host.exists(path)) return { at: () => utc };
  return host.binary(path, (bytes, where) => new TimeZone(bytes, where));
}

/** As in tzset(3): /etc/localtime without TZ, UTC for an empty one, else a file, by its path or below zoneinfo. */
function zonePathOf(timeZone: string | undefined): string | undefined {
  if (timeZone === undefined) return 'root/etc/localtime';
  const name = timeZone.replace(/^:/, '');
  if (name === '') return undefined;
  return name.startsWith('/') ? `root${name}` : `${zones}/${name}`;
}

/** A kernel without the folder has no such series. */
function listClocksources(host: Host): Device[] {
  return host.attributes(clocksources, /^clocksource\d+$/).map((name) => ({
    number: name.slice('clocksource'.length),
    available: host.value(`${clocksources}/${name}/available_clocksource`, parseNames) ?? [],
    current: host.value(`${clocksources}/${name}/current_clocksource`, parseName),
  }));
}
