import { BlockList, isIPv6 } from 'node:net';
import type { NetworkInterfaceInfo } from 'node:os';
import { isLoopback } from '../../runtime/options.ts';
import type { WebAddress } from './listener.ts';
import type { WebConfig } from './web-config-file.ts';

/** Who can read the HTTP port without a password. */
export interface Exposure {
  /** `public`: this host has an address of the internet there. */
  readonly kind: 'public' | 'private';
  /** What is open to whom, and how to close it. */
  readonly text: string;
}

/** Undefined where others cannot reach the HTTP port, or need a password or a certificate. */
export function exposureOf(
  { webListen, webConfig }: { readonly webListen: readonly WebAddress[]; readonly webConfig: WebConfig },
  interfaces: Readonly<Record<string, NetworkInterfaceInfo[] | undefined>>,
): Exposure | undefined {
  if (webConfig.users.size > 0 || webConfig.tls?.options.rejectUnauthorized === true) return undefined;
  const own = Object.values(interfaces).flatMap((each) => each ?? []);
  const open = webListen.flatMap((each) => (each.kind === 'tcp' && !isLoopback(each.address) ? [each] : []));
  const [first] = open;
  if (first === undefined) return undefined;
  const addresses = open.flatMap(({ address }) =>
    /^(?:|0\.0\.0\.0|::)$/.test(address)
      ? own.filter(({ internal }) => !internal).map((each) => each.address)
      : [address],
  );
  const publicOnes = addresses.filter((address) => !isPrivate(address));
  const kind = publicOnes.length > 0 ? 'public' : 'private';
  const who =
    kind === 'public'
      ? `everybody who reaches ${publicOnes.join(', ')}, an address of the internet,`
      : 'every host of this network';
  return {
    kind,
    text:
      `HTTP port ${first.port} is open to ${who} without a password, unless a firewall closes it: ` +
      `SYSMON_WEB_LISTEN_ADDRESS=127.0.0.1:${first.port} in /etc/sysmon/server.env closes it, SYSMON_WEB_CONFIG_FILE sets a password`,
  };
}

/** https://www.iana.org/assignments/iana-ipv4-special-registry, https://www.iana.org/assignments/iana-ipv6-special-registry */
const privateNetworks = new BlockList();
for (const [network, prefix] of [
  ['10.0.0.0', 8],
  ['100.64.0.0', 10],
  ['127.0.0.0', 8],
  ['169.254.0.0', 16],
  ['172.16.0.0', 12],
  ['192.168.0.0', 16],
] as const) {
  privateNetworks.addSubnet(network, prefix, 'ipv4');
}
for (const [network, prefix] of [
  ['::1', 128],
  ['fc00::', 7],
  ['fe80::', 10],
] as const) {
  privateNetworks.addSubnet(network, prefix, 'ipv6');
}

const isPrivate = (address: string): boolean =>
  privateNetworks.check(address.replace(/%.*$/, ''), isIPv6(address) ? 'ipv6' : 'ipv4');
