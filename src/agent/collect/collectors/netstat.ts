// /proc/net/netstat and /proc/net/snmp: two lines a protocol, of names and of numbers; a few can be negative.
//     Tcp: RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens …
//     Tcp: 1 200 120000 -1 24723 …
// /proc/net/snmp6: `Ip6InReceives                   	3`, a line a field.
// https://www.kernel.org/doc/html/latest/networking/snmp_counter.html
// https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/net/ipv6/proc.c
import type { Host } from '../proc/host.ts';
import type { KernelText } from '../proc/text.ts';
import {
  type Collector,
  type CollectorRow,
  NameFilter,
  patternOption,
  type SampledFamily,
  type Samples,
  untyped,
} from './collector.ts';

const fields = patternOption(
  'netstat.fields',
  '^(.*_(InErrors|InErrs)|Ip_Forwarding|Ip(6|Ext)_(InOctets|OutOctets)|Icmp6?_(InMsgs|OutMsgs)|' +
    'TcpExt_(Listen.*|Syncookies.*|TCPSynRetrans|TCPTimeouts|TCPOFOQueue|TCPRcvQDrop)|' +
    'Tcp_(ActiveOpens|InSegs|OutSegs|OutRsts|PassiveOpens|RetransSegs|CurrEstab)|' +
    'Udp6?_(InDatagrams|OutDatagrams|NoPorts|RcvbufErrors|SndbufErrors))$',
  'Fields of /proc/net/netstat, snmp and snmp6 to collect, each behind its protocol (Tcp_InSegs). Empty: all.',
);

export const netstat: CollectorRow = {
  name: 'netstat',
  enabled: 'by default',
  description: 'packets, connections and errors of IP, ICMP, UDP and TCP, from /proc/net/netstat, snmp and snmp6',
  options: [fields],
  create: (context) => new Netstat(new NameFilter(context.option(fields), undefined)),
};

const paths = ['proc/net/netstat', 'proc/net/snmp', 'proc/net/snmp6'];
const snmp6 = 2;

class Netstat implements Collector {
  readonly #filter: NameFilter;
  readonly #families = new Map<string, SampledFamily>();
  readonly #tables = new Map<string, Table>();
  /** The lines of snmp6 that are wanted, as they were found the last time. */
  #starts: string[] = [];
  #wanted: SampledFamily[] = [];
  readonly #counts: number[] = [];

  constructor(filter: NameFilter) {
    this.#filter = filter;
  }

  collect(host: Host, out: Samples): void {
    host.readEach(paths, (text, at) => {
      if (at === snmp6) this.#collectLines(text, out);
      else this.#collectTables(text, out);
    });
  }

  #collectTables(text: KernelText, out: Samples): void {
    let table: Table | undefined;
    text.eachLine('a protocol and its numbers', (line) => {
      const protocol = line.keyIfThere();
      if (protocol === undefined) return false;
      if (table?.protocol !== protocol) {
        table = this.#readNames(protocol, line);
        return false;
      }
      const { columns, names, families } = table;
      table = undefined;
      const count = line.columns(this.#counts, columns, names, 'signed');
      if (count < columns.length) throw line.error(`${names[count]} is missing`);
      for (let index = 0; index < count; index++) out.sample(families[index]!, this.#counts[index]!);
      return true;
    });
  }

  #readNames(protocol: string, line: KernelText): Table {
    let table = this.#tables.get(protocol);
    if (table === undefined || !line.skip(table.heading)) {
      table = this.#tableOf(protocol, line.rest());
      this.#tables.set(protocol, table);
    }
    return table;
  }

  #tableOf(protocol: string, names: string): Table {
    const all = names.split(' ');
    const columns = [...all.keys()].filter((column) => this.#filter.keeps(`${protocol}_${all[column]}`));
    return {
      protocol,
      heading: ` ${names}\n`,
      columns,
      names: columns.map((column) => all[column]!),
      families: columns.map((column) => this.#familyOf(protocol, all[column]!)),
    };
  }

  #collectLines(text: KernelText, out: Samples): void {
    if (this.#wanted.length === 0 || !text.unsignedsBehind(this.#starts, this.#counts)) this.#readLines(text);
    for (let at = 0; at < this.#wanted.length; at++) out.sample(this.#wanted[at]!, this.#counts[at]!);
  }

  #readLines(text: KernelText): void {
    this.#starts = [];
    this.#wanted = [];
    text.eachLine('a protocol of IPv6', (line) => {
      const field = line.word('the name of a field');
      const [, protocol, name] = /^([A-Z][A-Za-z]*6)([A-Z]\w*)$/.exec(field) ?? [];
      if (protocol === undefined || name === undefined) return false;
      const count = line.signed(field);
      if (!this.#filter.keeps(`${protocol}_${name}`)) return true;
      this.#counts[this.#wanted.length] = count;
      this.#starts.push(`${field.padEnd(snmp6NameLength)}\t`);
      this.#wanted.push(this.#familyOf(protocol, name));
      return true;
    });
  }

  #familyOf(protocol: string, name: string): SampledFamily {
    const full = `${protocol}_${name}`;
    let family = this.#families.get(full);
    if (family === undefined) {
      family = untyped(`node_netstat_${full}`, `${name} of ${protocol}, as the kernel counts it.`);
      this.#families.set(full, family);
    }
    return family;
  }
}

interface Table {
  readonly protocol: string;
  /** The line of names behind the protocol's colon, with its newline. */
  readonly heading: string;
  /** Of the columns that are wanted. */
  readonly columns: readonly number[];
  readonly names: readonly string[];
  readonly families: readonly SampledFamily[];
}

// The kernel prints `%-32s\t%lu`.
const snmp6NameLength = 32;
