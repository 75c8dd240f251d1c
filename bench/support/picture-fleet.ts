import { LinkedSpool } from './fleet.ts';
import { hostPlans, VariedHost } from './varied-host.ts';

// A small fleet for pictures: its agents have reports of the last 28 min, and go on at every interval until this process
// ends. One has been down for some minutes.
//
//     node build/bench/support/picture-fleet.js PORT FLEETKEY

const [port, fleetKeyHex] = process.argv.slice(2);
const intervalMs = 5000;
const historyMs = 28 * 60_000;
const lastMs = Date.now() - (Date.now() % intervalMs);

const agents = hostPlans.map((plan, at) => {
  const { name, labels, goesDown = false } = plan;
  const linked = new LinkedSpool({
    ...{ name, hostId: `host-${name}`, labels },
    ...{ port: Number(port), intervalMs, fleetKeyHex },
  });
  const host = new VariedHost(plan, { seed: at + 1, intervalMs });
  const report = (timeMs: number) => linked.append(host.next(timeMs), timeMs);
  for (let agoMs = historyMs; agoMs >= 0; agoMs -= intervalMs) report(lastMs - agoMs);
  linked.connect();
  return { linked, report, goesDown };
});

const tickAtNextInstant = () => setTimeout(tick, intervalMs - (Date.now() % intervalMs));
function tick(): void {
  for (const { report } of agents) report(Date.now());
  tickAtNextInstant();
}
tickAtNextInstant();
// By then it has sent what it had.
setTimeout(() => {
  for (const { goesDown, linked } of agents) if (goesDown) linked.cut();
}, 20_000);
