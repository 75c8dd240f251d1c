import { networkInterfaces } from 'node:os';
import { askControl, ControlError } from '../runtime/control.ts';
import { tryPort } from '../runtime/listen.ts';
import { Problems, UsageError } from '../runtime/options.ts';
import type { Out } from '../runtime/standard-output.ts';
import type { UnitFacts } from '../runtime/unit.ts';
import { bytesText } from '../runtime/words.ts';
import { fleetKeysText } from './ingest/keys.ts';
import type { ServerOptions } from './options.ts';
import { checkPrometheus } from './prometheus/check.ts';
import { QueryApi } from './prometheus/query-api.ts';
import { addressesText, type Network, reachOf } from './reach.ts';
import type { PortsReply } from './run.ts';
import { prometheusAccess, reachSettings, readSettings, revocationsMissing, type Settings } from './settings.ts';
import { exposureOf } from './web/exposure.ts';
import { tryUnixAddress, type WebAddress } from './web/listener.ts';
import { webConfigText } from './web/web-config-file.ts';

/** So much more than its windows may the process take: see the unit. */
const besideWindowsBytes = 256 * 1024 * 1024;

/**
 * Reports all that a start would find wrong, and what the databases of scrapers say. Opens for a moment the ports that the
 * running server does not hold, and writes nothing. Returns 3 where a database has to be corrected: the server would start,
 * and hold what it scrapes.
 */
export async function check(
  options: ServerOptions,
  {
    network,
    unit,
    out,
  }: {
    readonly network: Network /** As whose user it looks. */;
    readonly unit: UnitFacts | undefined;
    readonly out: Out;
  },
): Promise<number> {
  const settings = readSettings(options);
  await checkPorts(settings);
  const problems = new Problems();
  const databases = settings.prometheus.map((each) => ({
    each,
    access: problems.attempt(() => prometheusAccess(each)),
  }));
  problems.throwAny();
  const { agents: addresses } = await reachOf(reachSettings(options), network);
  out(
    `the options are valid: agents connect to port ${settings.listen.port} of ${settings.listen.address || 'all addresses'} ` +
      `${settings.fleetKeys.length === 0 ? 'without keys' : `with keys of ${fleetKeysText(settings.fleetKeys)}, and their join lines say '${addressesText(addresses)}'`}, ` +
      `Prometheus to ${settings.webListen.map(webAddressText).join(' and ')} ${webConfigText(settings.webConfig)}, ` +
      `${settings.stateDir === undefined ? 'cursors in memory' : `cursors in '${settings.stateDir}'`}\n`,
  );
  for (const notice of settings.webConfig.notices) out(`'${settings.webConfigFile}': ${notice}\n`);
  for (const notice of noticesOf(settings, unit)) out(`${notice}\n`);
  let hasErrors = false;
  for (const { each, access } of databases) {
    const { scraper, url } = each;
    const api = new QueryApi(url, access!);
    const sendsSecret = access!.authorization !== undefined;
    const { notes, errors } = await checkPrometheus(api, { scraper, windowMs: settings.windowMs, sendsSecret });
    api.stop();
    if (notes.length > 0) out(`Prometheus '${scraper}' at ${url}: ${notes.join('; ')}\n`);
    for (const error of errors) out(`Prometheus '${scraper}' at ${url}: error: ${error}\n`);
    hasErrors ||= errors.length > 0;
  }
  return hasErrors ? 3 : 0;
}

function noticesOf(settings: Settings, unit: UnitFacts | undefined): string[] {
  const notices: string[] = [];
  const exposure = exposureOf(settings, networkInterfaces());
  if (exposure !== undefined) notices.push(exposure.text);
  const missing = revocationsMissing(settings);
  if (missing !== undefined) notices.push(missing);
  const { memoryBytesMax } = settings;
  if (unit?.memoryBytesMax !== undefined && memoryBytesMax + besideWindowsBytes > unit.memoryBytesMax) {
    notices.push(
      `--memory-max ${bytesText(memoryBytesMax)} is too much for MemoryMax=${bytesText(unit.memoryBytesMax)} of the unit, which ends the ` +
        "server beyond it: raise that too, with 'systemctl edit sysmon-server'",
    );
  }
  return notices;
}

/** Throws a UsageError that names each port that another program has, or that this user cannot open. */
async function checkPorts({ listen, webListen, controlSocket }: Settings): Promise<void> {
  const own = await portsOfRunning(controlSocket);
  const messages: string[] = [];
  const look = async (option: string, address: WebAddress) => {
    const error = address.kind === 'tcp' ? await tryPort(address) : await tryUnixAddress(address.path);
    const isOwn = address.kind === 'tcp' && own.ports.includes(address.port) && error?.code === 'EADDRINUSE';
    if (error !== undefined && !isOwn) messages.push(`${error.message}; choose another with --${option}`);
  };
  await look('listen', { kind: 'tcp', ...listen });
  for (const each of webListen) await look('web.listen-address', each);
  if (messages.length > 0) throw new UsageError(messages.join('\n'));
}

/** None where no server runs. */
async function portsOfRunning(controlSocket: string): Promise<PortsReply> {
  try {
    return (await askControl(controlSocket, 'GET ports')) as PortsReply;
  } catch (error) {
    if (error instanceof ControlError) return { ports: [] };
    throw error;
  }
}

function webAddressText(address: WebAddress): string {
  if (address.kind === 'unix') return `the socket '${address.path}'`;
  return `port ${address.port} of ${address.address || 'all addresses'}`;
}
