// /proc/net/rpc/nfsd: what the NFS server has received; it is there once the module is loaded. A line a subject:
//     rc 0 6 18622              reply cache: hits, misses, not cached
//     fh 0 0 0 0 0              file handles: stale, and four that are no longer counted
//     io 157286400 0            bytes read and written
//     th 8 0 0.000 …            threads
//     ra 32 0 0 0 0 0 0 0 0 0 0 0   read-ahead cache: size, ten tenths of its depth, not found; until Linux 5.3
//     net 18628 0 18628 6
//     rpc 18628 0 0 0 0
//     proc3 22 2 112 …          so many counts, one a procedure
//     proc4ops 72 0 0 0 …
// https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/fs/nfsd/stats.c
import type { Host } from '../proc/host.ts';
import { type Collector, type CollectorRow, counter, gauge, type SampledFamily, type Samples } from './collector.ts';
import { netNames, proceduresOf2, proceduresOf3, readCounts, readProcedures, words } from './nfs.ts';

export const nfsd: CollectorRow = {
  name: 'nfsd',
  enabled: 'by default',
  description: 'what the NFS server received, from /proc/net/rpc/nfsd',
  options: [],
  create: () => new Nfsd(),
};

const packets = counter('node_nfsd_packets_total', 'Packets of the NFS server, sent and received.', {
  labels: ['proto'],
});
const errors = counter('node_nfsd_rpc_errors_total', 'Calls that the NFS server refused, by what was wrong.', {
  labels: ['error'],
});
const requests = counter('node_nfsd_requests_total', 'Calls of the NFS server, by version and procedure.', {
  labels: ['proto', 'method'],
});
const readAheadSize = gauge('node_nfsd_read_ahead_cache_size_blocks', 'Size of the read-ahead cache, in blocks.');
const readAheadMisses = counter(
  'node_nfsd_read_ahead_cache_not_found_total',
  'Reads that the read-ahead cache did not have.',
);
const connections = counter('node_nfsd_connections_total', 'TCP connections to the NFS server.');
const rpcs = counter('node_nfsd_server_rpcs_total', 'Calls that the NFS server received.');

interface Subject {
  readonly prefix: string;
  /** Of the columns that are read. The kernel may append others. */
  readonly names: readonly string[];
  give(out: Samples, counts: readonly number[]): void;
}

const subjects: readonly Subject[] = [
  plain('rc', {
    hits: counter('node_nfsd_reply_cache_hits_total', 'Calls that the reply cache answered, as they had come before.'),
    misses: counter('node_nfsd_reply_cache_misses_total', 'Calls whose reply had to be cached.'),
    nocache: counter('node_nfsd_reply_cache_nocache_total', 'Calls whose reply need not be cached.'),
  }),
  plain('fh', { stale: counter('node_nfsd_file_handles_stale_total', 'Calls with a stale file handle.') }),
  plain('io', {
    read: counter('node_nfsd_disk_bytes_read_total', 'Bytes that clients read.'),
    written: counter('node_nfsd_disk_bytes_written_total', 'Bytes that clients wrote.'),
  }),
  plain('th', { threads: gauge('node_nfsd_server_threads', 'Threads of the NFS server.') }),
  {
    prefix: 'ra ',
    names: ['size', ...Array.from({ length: 10 }, (_, at) => `tenth ${at}`), 'not found'],
    give(out, counts) {
      out.sample(readAheadSize, counts[0]!);
      out.sample(readAheadMisses, counts[11]!);
    },
  },
  {
    prefix: 'net ',
    names: netNames,
    give(out, counts) {
      out.sample(packets, counts[1]!, 'udp');
      out.sample(packets, counts[2]!, 'tcp');
      out.sample(connections, counts[3]!);
    },
  },
  {
    prefix: 'rpc ',
    names: words('calls bad format auth client'),
    give(out, counts) {
      out.sample(rpcs, counts[0]!);
      out.sample(errors, counts[2]!, 'fmt');
      out.sample(errors, counts[3]!, 'auth');
      out.sample(errors, counts[4]!, 'cInt');
    },
  },
  {
    prefix: 'wdeleg_getattr ',
    names: ['count'],
    give: (out, counts) => out.sample(requests, counts[0]!, '4', 'WdelegGetattr'),
  },
];

function plain(subject: string, families: Readonly<Record<string, SampledFamily>>): Subject {
  const inOrder = Object.values(families);
  return {
    prefix: `${subject} `,
    names: Object.keys(families),
    give(out, counts) {
      for (let at = 0; at < inOrder.length; at++) out.sample(inOrder[at]!, counts[at]!);
    },
  };
}

// `-` for what node_exporter does not give either: the null procedures, what is no operation, and those after
// RelLockOwner (version 4.1 and later).
const proceduresOf4 = words(
  '- - - Access Close Commit Create DelegPurge DelegReturn GetAttr GetFH Link Lock Lockt Locku Lookup LookupRoot Nverify ' +
    'Open OpenAttr OpenConfirm OpenDgrd PutFH - - Read ReadDir ReadLink Remove Rename Renew RestoreFH SaveFH SecInfo ' +
    'SetAttr SetClientID SetClientIDConfirm Verify Write RelLockOwner',
);
const versions: readonly { readonly prefix: string; readonly proto: string; readonly names: readonly string[] }[] = [
  { prefix: 'proc2 ', proto: '2', names: ['-', ...proceduresOf2.slice(1)] },
  { prefix: 'proc3 ', proto: '3', names: ['-', ...proceduresOf3.slice(1)] },
  { prefix: 'proc4ops ', proto: '4', names: proceduresOf4 },
];

class Nfsd implements Collector {
  readonly #counts: number[] = [];

  collect(host: Host, out: Samples): void {
    const counts = this.#counts;
    host.read('proc/net/rpc/nfsd').eachLine('a known subject', (line) => {
      for (const { prefix, names, give } of subjects) {
        if (!line.skip(prefix)) continue;
        readCounts(line, counts, { what: prefix.trimEnd(), names });
        give(out, counts);
        return true;
      }
      for (const { prefix, proto, names } of versions) {
        if (!line.skip(prefix)) continue;
        const count = readProcedures(line, counts, names);
        for (let at = 0; at < count; at++) {
          const name = names[at]!;
          if (name !== '-') out.sample(requests, counts[at]!, proto, name);
        }
        return true;
      }
      return false;
    });
  }
}
