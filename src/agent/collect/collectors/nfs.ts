// /proc/net/rpc/nfs: what the NFS client has sent; it is there once the module is loaded. A line a layer; `proc4 59 …` is
// followed by so many counts, one a procedure.
//     net 0 0 0 0
//     rpc 2304 0 2307
// Newer kernels append procedures of version 4: 59 with Linux 4.5, 68 with 5.18.
// https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/net/sunrpc/stats.c
// The order of the procedures: include/linux/nfs_xdr.h, fs/nfs/nfs4xdr.c
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import { type Collector, type CollectorRow, counter, type Samples } from './collector.ts';

export const nfs: CollectorRow = {
  name: 'nfs',
  enabled: 'by default',
  description: 'what the NFS client sent, from /proc/net/rpc/nfs',
  options: [],
  create: () => new Nfs(),
};

const packets = counter('node_nfs_packets_total', 'Packets of the NFS client, sent and received.', {
  labels: ['protocol'],
});
const connections = counter('node_nfs_connections_total', 'TCP connections of the NFS client.');
const rpcs = counter('node_nfs_rpcs_total', 'Calls of the NFS client.');
const retransmissions = counter('node_nfs_rpc_retransmissions_total', 'Calls that the NFS client sent again.');
const refreshes = counter(
  'node_nfs_rpc_authentication_refreshes_total',
  'How often the NFS client renewed its authentication.',
);
const requests = counter('node_nfs_requests_total', 'Calls of the NFS client, by version and procedure.', {
  labels: ['proto', 'method'],
});

// The names are node_exporter's.
export const proceduresOf2 = words(
  'Null GetAttr SetAttr Root Lookup ReadLink Read WrCache Write Create Remove Rename Link SymLink MkDir RmDir ReadDir FsStat',
);
export const proceduresOf3 = words(
  'Null GetAttr SetAttr Lookup Access ReadLink Read Write Create MkDir SymLink MkNod Remove RmDir Rename Link ReadDir ' +
    'ReadDirPlus FsStat FsInfo PathConf Commit',
);
// The order is the kernel's: GetDeviceInfo follows LayoutGet, which node_exporter 1.12 has the other way round.
const proceduresOf4 = words(
  'Null Read Write Commit Open OpenConfirm OpenNoattr OpenDowngrade Close Setattr FsInfo Renew SetClientID ' +
    'SetClientIDConfirm Lock Lockt Locku Access Getattr Lookup LookupRoot Remove Rename Link Symlink Create Pathconf ' +
    'StatFs ReadLink ReadDir ServerCaps DelegReturn GetACL SetACL FsLocations ReleaseLockowner Secinfo FsidPresent ' +
    'ExchangeID CreateSession DestroySession Sequence GetLeaseTime ReclaimComplete LayoutGet GetDeviceInfo LayoutCommit ' +
    'LayoutReturn SecinfoNoName TestStateID FreeStateID GetDeviceList BindConnToSession DestroyClientID Seek Allocate ' +
    'DeAllocate LayoutStats Clone',
);

const versions: readonly { readonly prefix: string; readonly proto: string; readonly names: readonly string[] }[] = [
  { prefix: 'proc2 ', proto: '2', names: proceduresOf2 },
  { prefix: 'proc3 ', proto: '3', names: proceduresOf3 },
  { prefix: 'proc4 ', proto: '4', names: proceduresOf4 },
];

export function words(text: string): readonly string[] {
  return text.split(' ');
}

class Nfs implements Collector {
  readonly #counts: number[] = [];

  collect(host: Host, out: Samples): void {
    const counts = this.#counts;
    host.read('proc/net/rpc/nfs').eachLine('net, rpc, proc2, proc3 or proc4', (line) => {
      if (line.skip('net ')) {
        readCounts(line, counts, { what: 'net', names: netNames });
        out.sample(packets, counts[1]!, 'udp');
        out.sample(packets, counts[2]!, 'tcp');
        out.sample(connections, counts[3]!);
        return true;
      }
      if (line.skip('rpc ')) {
        readCounts(line, counts, { what: 'rpc', names: rpcNames });
        out.sample(rpcs, counts[0]!);
        out.sample(retransmissions, counts[1]!);
        out.sample(refreshes, counts[2]!);
        return true;
      }
      for (const { prefix, proto, names } of versions) {
        if (!line.skip(prefix)) continue;
        const count = readProcedures(line, counts, names);
        for (let at = 0; at < count; at++) out.sample(requests, counts[at]!, proto, names[at]);
        return true;
      }
      return false;
    });
  }
}

export const netNames = words('packets udp tcp connections');
const rpcNames = words('calls retransmissions refreshes');

/** The counts of a line of which the kernel promises so many. */
export function readCounts(
  line: KernelText,
  into: number[],
  { what, names }: { readonly what: string; readonly names: readonly string[] },
): void {
  const found = line.unsigneds(into, names);
  if (found < names.length) throw line.error(`'${what}' has ${found} columns, expected ${names.length}`);
}

const procedureNames = Array.from({ length: 256 }, (_, at) => `procedure ${at}`);

/** `18 0 0 …`: as many counts as it says. Returns how many have a name. */
export function readProcedures(line: KernelText, into: number[], names: readonly string[]): number {
  const expected = line.unsigned('the number of procedures');
  const found = line.unsigneds(into, procedureNames);
  if (found !== expected || line.more()) throw line.error(`it has ${found} counts of procedures, expected ${expected}`);
  return Math.min(found, names.length);
}
