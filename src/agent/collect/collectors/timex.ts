// How well the clock is synchronized, as far as programs say, without adjtimex(2):
// whether it is, by systemd-timedated, which asks the kernel, whatever keeps the time; by how much it is wrong, by
// systemd-timesyncd, from the last answer of its server, or else by chronyd, which has its say on both (../bus/chrony.ts).
// https://www.freedesktop.org/software/systemd/man/latest/org.freedesktop.timedate1.html
// https://www.freedesktop.org/software/systemd/man/latest/org.freedesktop.timesync1.html
//     NTPMessage  (uuuuittayttttbtt): leap, version, mode, stratum, precision, root delay, root dispersion, reference, when
//                 it was sent, received there, sent there, received, spike, packets, jitter; times in microseconds
import { integer, type OptionRow, option } from '../../../runtime/options.ts';
import { Asked } from '../bus/asked.ts';
import { askChrony } from '../bus/chrony.ts';
import { BusClient } from '../bus/client.ts';
import { BusError, type BusValue } from '../bus/message.ts';
import { NoDataError, UnreadableError } from '../proc/errors.ts';
import type { Host } from '../proc/host.ts';
import { type Collector, type CollectorContext, type CollectorRow, gauge, type Samples } from './collector.ts';

const chronyPort: OptionRow<number> = option({
  name: 'timex.chrony-port',
  placeholder: 'PORT',
  parse: integer({ min: 0, max: 65_535 }),
  default: '323',
  help: "UDP port of the loopback on which chronyd answers, where systemd-timesyncd does not run: chrony's cmdport. 0: not asked.",
});

export const timex: CollectorRow = {
  name: 'timex',
  enabled: 'by default',
  description:
    'whether the clock is synchronized, and its offset and error, from systemd-timedated and systemd-timesyncd, or chronyd',
  options: [chronyPort],
  missing: [
    {
      families: [
        'node_timex_frequency_adjustment_ratio',
        'node_timex_loop_time_constant',
        'node_timex_pps_*',
        'node_timex_status',
        'node_timex_tai_offset_seconds',
        'node_timex_tick_seconds',
      ],
      reason: 'only adjtimex(2) says so, which only native code can call',
    },
  ],
  create: (context) => new Timex(context),
};

const syncStatus = gauge('node_timex_sync_status', 'Whether the kernel takes its clock for synchronized: 1, or 0.');
const micro = { divisor: 1_000_000 };
const offset = gauge('node_timex_offset_seconds', 'What the clock of the time server is ahead of this one.', micro);
const maxError = gauge(
  'node_timex_maxerror_seconds',
  'By how much the clock is wrong at most. 16 where it is not synchronized: the kernel then says at least that.',
  micro,
);
const estimatedError = gauge(
  'node_timex_estimated_error_seconds',
  "Jitter of the time server's answers; by chronyd the root mean square of its offsets.",
  micro,
);

const busPath = 'root/run/dbus/system_bus_socket';
// Collections come at multiples of the interval, a little early or late.
const everyMs = 59_500;
const validMs = 200_000;
const timeoutMs = 5000;
const chronyTimeoutMs = 1000;
/** systemd-timedated is started for a question, and ends half a minute later. */
const statusEveryMs = 299_500;
const unsynchronizedMicroseconds = 16_000_000;

interface TimeState {
  readonly isSynchronized: boolean | undefined;
  readonly quality: Quality | undefined;
}

/** Microseconds. */
interface Quality {
  readonly offset: number;
  readonly maxError: number;
  readonly jitter: number;
}

class Timex implements Collector {
  readonly #clock: CollectorContext['clock'];
  readonly #asked: Asked<TimeState>;
  readonly #chronyPort: number;
  #isSynchronized: boolean | undefined;
  #askStatusAtMs = Number.NEGATIVE_INFINITY;

  constructor(context: CollectorContext) {
    const { clock } = context;
    this.#clock = clock;
    this.#asked = new Asked({ clock, everyMs, validMs });
    this.#chronyPort = context.option(chronyPort);
  }

  async prepare(host: Host): Promise<void> {
    await this.#asked.update(() => {
      const hasBus = host.exists(busPath);
      if (!hasBus && this.#chronyPort === 0) {
        throw new NoDataError(host.path(busPath), ' does not exist, and nothing else says how good the clock is');
      }
      return this.#ask(hasBus ? host.path(busPath) : undefined);
    });
  }

  collect(host: Host, out: Samples): void {
    const state = this.#asked.answer;
    if (state === undefined) {
      const reason = ` cannot be asked about the clock: ${this.#asked.reason}`;
      throw new UnreadableError(host.path(busPath), { errno: 'bus', reason });
    }
    const { isSynchronized, quality } = state;
    if (isSynchronized === undefined && quality === undefined) {
      const noChrony = this.#chronyPort === 0 ? '' : `, and no chronyd answers on port ${this.#chronyPort}`;
      const what = host.exists(busPath) ? ' knows neither systemd-timedated nor systemd-timesyncd' : ' does not exist';
      throw new NoDataError(host.path(busPath), `${what}${noChrony}`);
    }
    if (isSynchronized !== undefined) out.sample(syncStatus, isSynchronized ? 1 : 0);
    if (isSynchronized === false) out.sample(maxError, unsynchronizedMicroseconds);
    if (quality === undefined) return;
    if (isSynchronized !== false) out.sample(maxError, quality.maxError);
    out.sample(offset, quality.offset);
    out.sample(estimatedError, quality.jitter);
  }

  async #ask(busPath: string | undefined): Promise<TimeState> {
    const state = busPath === undefined ? nothingKnown : await this.#askBus(busPath);
    if (state.quality !== undefined || this.#chronyPort === 0) return state;
    try {
      const byChrony = await stateByChrony(this.#chronyPort);
      return { isSynchronized: state.isSynchronized ?? byChrony.isSynchronized, quality: byChrony.quality };
    } catch (error) {
      // What the bus has said is worth more than why chronyd has not.
      if (state.isSynchronized === undefined || !(error instanceof BusError)) throw error;
      return state;
    }
  }

  async #askBus(path: string): Promise<TimeState> {
    const client = await BusClient.connect({ path, uid: process.getuid?.() ?? 0, timeoutMs });
    try {
      const nowMs = this.#clock.monotonicMs();
      if (nowMs >= this.#askStatusAtMs) {
        this.#isSynchronized = synchronizedOf(await get(client, 'timedate1', '', 'NTPSynchronized'));
        this.#askStatusAtMs = nowMs + statusEveryMs;
      }
      // Not asked where it does not run: the question would start it.
      const isThere = await isRunning(client, 'org.freedesktop.timesync1');
      const quality = isThere ? qualityOf(await get(client, 'timesync1', '.Manager', 'NTPMessage')) : undefined;
      return { isSynchronized: this.#isSynchronized, quality };
    } finally {
      client.close();
    }
  }
}

const nothingKnown: TimeState = { isSynchronized: undefined, quality: undefined };

async function stateByChrony(port: number): Promise<TimeState> {
  const tracking = await askChrony({ port, timeoutMs: chronyTimeoutMs });
  if (tracking === undefined) return nothingKnown;
  const { isSynchronized, offset, rootMeanSquare, rootDelay, rootDispersion } = tracking;
  const quality: Quality = {
    offset: Math.round(offset * 1e6),
    maxError: Math.round((rootDelay / 2 + rootDispersion) * 1e6),
    jitter: Math.round(rootMeanSquare * 1e6),
  };
  // Before it has chosen a server it knows nothing of the clock, and its numbers are 0.
  return { isSynchronized, quality: isSynchronized ? quality : undefined };
}

async function isRunning(client: BusClient, name: string): Promise<boolean> {
  const bus = { destination: 'org.freedesktop.DBus', path: '/org/freedesktop/DBus', interface: 'org.freedesktop.DBus' };
  return (await client.call({ ...bus, member: 'NameHasOwner', arguments: [name] }))[0] === true;
}

/** Undefined where there is no such program. */
async function get(client: BusClient, program: string, part: string, property: string): Promise<BusValue | undefined> {
  const destination = `org.freedesktop.${program}`;
  const call = {
    destination,
    path: `/org/freedesktop/${program}`,
    interface: 'org.freedesktop.DBus.Properties',
    member: 'Get',
  };
  try {
    return (await client.call({ ...call, arguments: [`${destination}${part}`, property] }))[0];
  } catch (error) {
    if (error instanceof BusError && error.code === 'refused') return undefined;
    throw error;
  }
}

function synchronizedOf(value: BusValue | undefined): boolean | undefined {
  return typeof value === 'boolean' ? value : undefined;
}

/** Undefined before the first answer of a time server. */
function qualityOf(value: BusValue | undefined): Quality | undefined {
  if (!Array.isArray(value)) return undefined;
  const fields = value as readonly BusValue[];
  const [rootDelay, rootDispersion, sent, receivedThere, sentThere, received, packets, jitter] = [
    5, 6, 8, 9, 10, 11, 13, 14,
  ].map((at) => fields[at]);
  const numbers = [rootDelay, rootDispersion, sent, receivedThere, sentThere, received, packets, jitter];
  if (numbers.some((each) => typeof each !== 'number') || packets === 0 || received === 0) return undefined;
  const [delay, dispersion, t1, t2, t3, t4, , error] = numbers as number[];
  const roundTrip = t4! - t1! - (t3! - t2!);
  return {
    offset: Math.round((t2! - t1! + (t3! - t4!)) / 2),
    maxError: Math.round(delay! / 2 + dispersion! + Math.max(0, roundTrip) / 2),
    jitter: error!,
  };
}
