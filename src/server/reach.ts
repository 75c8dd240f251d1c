import { createSocket } from 'node:dgram';
import { Resolver } from 'node:dns/promises';
import { readFileSync } from 'node:fs';
import { networkInterfaces } from 'node:os';
import { addressText, type HostPort, isLoopback } from '../runtime/options.ts';
import { codeOf } from '../runtime/words.ts';
import type { ReachSettings } from './settings.ts';

// Under which addresses hosts reach this server.

/** What has to be asked of this host and its network. */
export interface Network {
  readonly hostName: string;
  /** The addresses that the name servers have for a name; none where they have none, or do not answer. */
  resolve(name: string): Promise<readonly string[]>;
  /** Of this host's interfaces. */
  readonly ownAddresses: ReadonlySet<string>;
  /** The address with which this host sends by its default route; undefined without such a route. */
  routeAddress(): Promise<string | undefined>;
}

export interface Reach {
  /** The agents' port, for the join line; the likeliest first. At least one. */
  readonly agents: readonly HostPort[];
  /** What a person should know of them. */
  readonly notices: readonly string[];
}

/**
 * The addresses in join lines: the configured ones, else this host's name. A name that DNS does not have, or has for
 * another host, has the address of the default route beside it: agents try both.
 */
export async function reachOf(settings: Pick<ReachSettings, 'advertise' | 'listen'>, network: Network): Promise<Reach> {
  const { advertise, listen } = settings;
  const remedy = 'set SYSMON_ADVERTISE=ADDRESS:PORT in /etc/sysmon/server.env for another';
  if (advertise !== undefined) return { agents: [advertise], notices: [] };
  const { address, port } = listen;
  if (isLoopback(address)) {
    const notice = `agents connect to ${address} (--listen), which only this host reaches`;
    return { agents: [{ host: address, port }], notices: [notice] };
  }
  if (address !== '' && !/^(?:0\.0\.0\.0|::)$/.test(address)) return { agents: [{ host: address, port }], notices: [] };
  const { hostName, ownAddresses } = network;
  const found = await network.resolve(hostName);
  const name = { host: hostName, port };
  if (found.some((each) => ownAddresses.has(each))) return { agents: [name], notices: [] };
  const route = await network.routeAddress();
  const problem =
    found.length === 0
      ? `DNS does not have the name '${hostName}'`
      : `DNS has another host's address for '${hostName}'`;
  if (route === undefined) {
    return { agents: [name], notices: [`${problem}, and this host has no default route: ${remedy}`] };
  }
  const notice = `${problem}, so the line names ${addressText(route, port)} too; ${remedy}`;
  return { agents: [name, { host: route, port }], notices: [notice] };
}

/** As a join line has them: `s:9732,10.77.0.11:9732`. */
export const addressesText = (addresses: readonly HostPort[]): string =>
  addresses.map(({ host, port }) => addressText(host, port)).join(',');

/** This host and its network as they are. */
export function realNetwork(hostName: string): Network {
  const interfaces = Object.values(networkInterfaces()).flatMap((each) => each ?? []);
  return {
    hostName,
    ownAddresses: new Set(interfaces.map(({ address }) => address)),
    resolve: resolveByDns,
    routeAddress: async () =>
      (await sourceAddress('udp4', '192.0.2.1')) ?? (await sourceAddress('udp6', '2001:db8::1')),
  };
}

/** Asks the name servers, and not /etc/hosts, in which most hosts have their own name. */
async function resolveByDns(name: string): Promise<readonly string[]> {
  // Where systemd-resolved runs, /etc/resolv.conf names it alone, and it answers for this host's own name by itself.
  const text = textOf('/run/systemd/resolve/resolv.conf') ?? textOf('/etc/resolv.conf') ?? '';
  const { servers, domains } = parseResolvConf(text);
  if (servers.length === 0) return [];
  const resolver = new Resolver({ timeout: dnsMsMax, tries: 1 });
  try {
    resolver.setServers(servers);
  } catch {
    return []; // an address that Node does not take, such as one with a zone
  }
  const names = name.includes('.') ? [name] : [...domains.map((domain) => `${name}.${domain}`), name];
  const questions = names.flatMap((each) => [resolver.resolve4(each), resolver.resolve6(each)]);
  const overdue = setTimeout(() => resolver.cancel(), dnsMsMax);
  const answers = await Promise.allSettled(questions);
  clearTimeout(overdue);
  return answers.flatMap((answer) => (answer.status === 'fulfilled' ? answer.value : []));
}

/** https://man7.org/linux/man-pages/man5/resolv.conf.5.html */
export function parseResolvConf(text: string): { readonly servers: string[]; readonly domains: string[] } {
  const lines = text.split('\n').map((line) => line.trim().split(/\s+/));
  const servers = lines.filter(([word]) => word === 'nameserver').map(([, server = '']) => server);
  // The last such line counts.
  const domains = lines.filter(([word]) => word === 'search' || word === 'domain').at(-1);
  return {
    servers: servers.filter((server) => server !== ''),
    domains: (domains ?? []).slice(1).filter((domain) => domain !== '.'),
  };
}

function textOf(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (['ENOENT', 'ENOTDIR', 'EACCES'].includes(codeOf(error))) return undefined;
    throw error;
  }
}

/** What the kernel would send from. Connecting a UDP socket sends nothing; the addresses are for documentation only. */
function sourceAddress(type: 'udp4' | 'udp6', to: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = createSocket(type);
    const done = (address: string | undefined) => {
      socket.close();
      resolve(address);
    };
    socket.once('error', () => done(undefined));
    socket.connect(9, to, () => {
      const { address } = socket.address();
      done(isLoopback(address) ? undefined : address);
    });
  });
}

const dnsMsMax = 1000;
