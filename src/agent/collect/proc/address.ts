// Internet addresses as the kernel prints them in hexadecimal digits, for labels: as node_exporter writes them.

/** `0A000001` is 10.0.0.1. `order`: whether the bytes are in the order of the network, or of this host (little-endian). */
export function ipv4OfHex(hex: string, order: 'network' | 'host'): string {
  const bytes = bytesOf(hex);
  return (order === 'network' ? bytes : bytes.reverse()).join('.');
}

/** 32 digits in the order of the network. The longest run of zeros, if of two groups or more, is `::` (RFC 5952). */
export function ipv6OfHex(hex: string): string {
  const groups = (hex.match(/.{4}/g) ?? []).map((group) => group.toLowerCase().replace(/^0{1,3}/, ''));
  let best = { from: 0, count: 1 };
  for (let from = 0; from < groups.length; from++) {
    let count = 0;
    while (groups[from + count] === '0') count++;
    if (count > best.count) best = { from, count };
  }
  if (best.count < 2) return groups.join(':');
  return `${groups.slice(0, best.from).join(':')}::${groups.slice(best.from + best.count).join(':')}`;
}

/** How many bits of a netmask are set. */
export function prefixOfHex(hex: string): number {
  return bytesOf(hex).reduce((count, byte) => count + (byte.toString(2).match(/1/g)?.length ?? 0), 0);
}

function bytesOf(hex: string): number[] {
  return (hex.match(/../g) ?? []).map((byte) => Number.parseInt(byte, 16));
}
