// /sys/fs/selinux/enforce: 1 where SELinux enforces its rules, 0 where it only reports; no such file where it is off.
// https://www.kernel.org/doc/Documentation/ABI/obsolete/sysfs-selinux-checkreqprot
// /etc/selinux/config: `SELINUX=enforcing`, permissive or disabled, for the next boot.
// https://man7.org/linux/man-pages/man8/selinux.8.html
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import { type Collector, type CollectorContext, type CollectorRow, gauge, type Samples } from './collector.ts';

export const selinux: CollectorRow = {
  name: 'selinux',
  enabled: 'by default',
  description: 'whether SELinux is on and enforces its rules, from /sys/fs/selinux and /etc/selinux/config',
  options: [],
  create: (context) => new Selinux(context),
};

const enabled = gauge('node_selinux_enabled', 'Whether SELinux is on: 1, or 0.');
const currentMode = gauge('node_selinux_current_mode', 'Whether SELinux enforces its rules: 1, or 0 (permissive).');
const configMode = gauge(
  'node_selinux_config_mode',
  'What SELinux is to do from the next boot on: 1 (enforcing), 0 (permissive) or -1 (disabled).',
);

const enforcePath = 'sys/fs/selinux/enforce';
const modes: ReadonlyMap<string, number> = new Map([
  ['enforcing', 1],
  ['permissive', 0],
  ['disabled', -1],
]);
// SELinux is switched on at a boot, and its configuration is changed by hand.
const lookAgainMs = 60_000;

class Selinux implements Collector {
  readonly #clock: CollectorContext['clock'];
  #lookedMs = Number.NEGATIVE_INFINITY;
  #isEnabled = false;
  #configMode: number | undefined;

  constructor({ clock }: CollectorContext) {
    this.#clock = clock;
  }

  collect(host: Host, out: Samples): void {
    const nowMs = this.#clock.monotonicMs();
    if (nowMs - this.#lookedMs >= lookAgainMs) {
      this.#lookedMs = nowMs;
      this.#isEnabled = host.exists(enforcePath);
      this.#configMode = this.#isEnabled ? readConfigMode(host) : undefined;
    }
    out.sample(enabled, this.#isEnabled ? 1 : 0);
    if (!this.#isEnabled) return;
    const mode = host.value(enforcePath, parseSwitch);
    if (mode !== undefined) out.sample(currentMode, mode);
    if (this.#configMode !== undefined) out.sample(configMode, this.#configMode);
  }
}

function parseSwitch(text: KernelText): number {
  return text.unsigned('the mode');
}

function readConfigMode(host: Host): number | undefined {
  let mode: number | undefined;
  host.part('root/etc/selinux/config', (text) =>
    text.eachLine('SELINUX=', (line) => {
      if (!line.skip('SELINUX=')) return false;
      const word = line.rest().toLowerCase();
      mode = modes.get(word);
      if (mode === undefined)
        throw line.error(`SELINUX is ${JSON.stringify(word)}, expected enforcing, permissive or disabled`);
      return true;
    }),
  );
  return mode;
}
