import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Collector, gauge, type Samples } from '../../../src/agent/collect/collectors/collector.ts';
import { expositionOf } from '../../../src/agent/collect/exposition.ts';
import { FormatError, NoDataError, UnreadableError } from '../../../src/agent/collect/proc/errors.ts';
import { Host } from '../../../src/agent/collect/proc/host.ts';
import { Sampler } from '../../../src/agent/collect/sampler.ts';
import { SeriesBudget } from '../../../src/agent/collect/series-budget.ts';
import { newAgentCounters, SelfMetrics } from '../../../src/agent/own-metrics.ts';
import { makeTree } from '../../support/fixture-proc.ts';
import { VirtualClock } from '../../support/virtual-clock.ts';

const good = gauge('good', 'Good.', { labels: ['n'] });
const bad = gauge('bad', 'Bad.', { labels: ['n'] });

/** A sampler with these collectors, and what it logs. */
class Bench {
  readonly clock = new VirtualClock();
  readonly log: string[] = [];
  readonly counters = newAgentCounters();
  readonly sampler: Sampler;

  constructor(
    collectors: Record<string, Collector>,
    {
      budget,
      host = new Host(),
      successWithoutData = [],
    }: { budget?: SeriesBudget; host?: Host; successWithoutData?: readonly string[] } = {},
  ) {
    this.sampler = new Sampler({
      host,
      collectors: Object.entries(collectors).map(([name, collector]) => ({
        ...{ name, collector },
        ...(successWithoutData.includes(name) && { successWithoutData: 1 }),
      })),
      self: new SelfMetrics(this.counters, {
        version: '1.2.3',
        nodeVersion: '20.15.0',
        startTimeMs: 1500,
        cpuMicroseconds: () => 2_000_000,
        residentBytes: () => 4096,
      }),
      clock: this.clock,
      counters: this.counters,
      log: {
        info: (text) => this.log.push(`info ${text}`),
        warn: (text) => this.log.push(`warn ${text}`),
        debug: (text) => this.log.push(`debug ${text}`),
      },
      ...(budget && { budget }),
    });
  }

  async lines(pattern: RegExp): Promise<string[]> {
    const text = expositionOf(await this.sampler.sample());
    return text.split('\n').filter((line) => !line.startsWith('#') && pattern.test(line));
  }
}

function giving(count: number, family = good): Collector {
  return {
    collect(_host: Host, out: Samples) {
      for (let at = 0; at < count; at++) out.sample(family, at, `${at}`);
    },
  };
}

test('a collector that fails costs itself alone; each change is one line', async () => {
  let failure: Error | undefined;
  const flaky: Collector = {
    collect(_host, out) {
      out.sample(bad, 1, 'before');
      if (failure !== undefined) throw failure;
      out.sample(bad, 2, 'after');
    },
  };
  const bench = new Bench({ first: giving(1), flaky, last: giving(1, gauge('last', 'Last.', { labels: ['n'] })) });
  const all = /^(good|bad|last|node_scrape_collector_success)/;
  assert.deepEqual(await bench.lines(all), [
    'bad{n="before"} 1',
    'bad{n="after"} 2',
    'good{n="0"} 0',
    'last{n="0"} 0',
    'node_scrape_collector_success{collector="first"} 1',
    'node_scrape_collector_success{collector="flaky"} 1',
    'node_scrape_collector_success{collector="last"} 1',
  ]);
  failure = new UnreadableError('/proc/x', { errno: 'EACCES', reason: ' cannot be read: EACCES' });
  const reason = /^sysmon_agent_collector_failed/;
  assert.deepEqual(await bench.lines(reason), [
    `sysmon_agent_collector_failed{collector="flaky",reason="'/proc/x' cannot be read: EACCES"} 1`,
  ]);
  for (let instant = 0; instant < 3; instant++) {
    assert.deepEqual(await bench.lines(all), [
      'good{n="0"} 0',
      'last{n="0"} 0',
      'node_scrape_collector_success{collector="first"} 1',
      'node_scrape_collector_success{collector="flaky"} 0',
      'node_scrape_collector_success{collector="last"} 1',
    ]);
    assert.deepEqual(bench.sampler.failures, [
      { name: 'flaky', extent: 'whole', reason: "'/proc/x' cannot be read: EACCES" },
    ]);
  }
  for (let line = 1; line <= 3; line++) {
    failure = new FormatError('/proc/x', `, line ${line}: it is bent`);
    // The first of its kind, so that a reason with a number is not a new series each time.
    assert.deepEqual(await bench.lines(reason), [
      `sysmon_agent_collector_failed{collector="flaky",reason="'/proc/x', line 1: it is bent"} 1`,
    ]);
  }
  failure = undefined;
  assert.deepEqual(await bench.lines(reason), []);
  assert.equal((await bench.lines(all)).length, 7);
  assert.deepEqual(bench.sampler.failures, []);
  assert.deepEqual(bench.log, [
    "warn collector 'flaky' failed: '/proc/x' cannot be read: EACCES; its series are absent until it works again",
    "warn collector 'flaky' failed: '/proc/x', line 1: it is bent; its series are absent until it works again",
    "info collector 'flaky' works again",
  ]);
});

test('what a collector cannot parse is counted; each kind is one line, whatever number it says', async () => {
  let content = '';
  const tree = makeTree([]);
  const bench = new Bench(
    {
      partly: {
        collect(host, out) {
          host.read('proc/x').eachLine('a number', (line) => {
            out.sample(good, line.unsigned('the number'), line.unsigned('the name') === 0 ? 'zero' : 'other');
            return true;
          });
        },
      },
      whole: giving(1, bad),
    },
    { host: new Host(tree.roots) },
  );
  const lines = () => {
    tree.write('proc/x', content);
    return bench.lines(/^(good|node_scrape_collector_success|sysmon_agent_parse_errors_total)/);
  };
  content = '1 0\n-2 0\n-3 0\nx 0\n4 y\n5 1\n';
  const expected = (errors: number) => [
    'good{n="zero"} 1',
    'good{n="other"} 5',
    'node_scrape_collector_success{collector="partly"} 1',
    'node_scrape_collector_success{collector="whole"} 1',
    `sysmon_agent_parse_errors_total{collector="partly"} ${errors}`,
    'sysmon_agent_parse_errors_total{collector="whole"} 0',
  ];
  assert.deepEqual(await lines(), expected(4));
  assert.deepEqual(await lines(), expected(8));
  assert.deepEqual(
    bench.sampler.failures.map(({ name, extent }) => [name, extent]),
    [['partly', 'part']],
  );
  assert.match(bench.sampler.failures[0]!.reason, /line 2: the number is "-2"/);
  content = '-7\n';
  await lines();
  tree.remove();
  const path = tree.path('proc/x');
  assert.deepEqual(bench.log, [
    `warn collector 'partly' could not read everything: '${path}', line 2: the number is "-2", expected a whole number; only the series of that line or file are absent`,
    `warn collector 'partly' could not read everything: '${path}', line 5: the name is "y", expected a whole number; only the series of that line or file are absent`,
    `warn collector 'partly' failed: '${path}', line 1: the number is "-7", expected a whole number; its series are absent until it works again`,
  ]);
});

/** A subject that this host may have or not, and how often it was looked for. */
class Subject implements Collector {
  isThere = false;
  looks = 0;
  readonly #where: 'prepare' | 'collect';

  constructor(where: 'prepare' | 'collect' = 'collect') {
    this.#where = where;
  }

  async prepare(): Promise<void> {
    if (this.#where === 'prepare') this.#look();
  }

  collect(_host: Host, out: Samples): void {
    if (this.#where === 'collect') this.#look();
    out.sample(good, 1, 'subject');
  }

  #look(): void {
    this.looks++;
    if (!this.isThere) throw new NoDataError('/sys/none', ' does not exist');
  }
}

for (const where of ['collect', 'prepare'] as const) {
  test(`a subject that this host does not have is looked for once a minute, by ${where}, and logged once`, async () => {
    const subject = new Subject(where);
    const other = new Subject();
    const bench = new Bench({ subject, other, first: giving(1, bad) });
    const tick = async () => {
      const lines = await bench.lines(/^(good|bad|node_scrape_collector_success)/);
      await bench.clock.advance(5000);
      return lines;
    };
    const absent = [
      'bad{n="0"} 0',
      'node_scrape_collector_success{collector="subject"} 0',
      'node_scrape_collector_success{collector="other"} 0',
      'node_scrape_collector_success{collector="first"} 1',
    ];
    for (let instant = 0; instant < 25; instant++) assert.deepEqual(await tick(), absent);
    // At 0 s, 60 s and 120 s.
    assert.equal(subject.looks, 3);
    assert.deepEqual(bench.sampler.failures, []);
    assert.deepEqual(bench.sampler.absent, [
      { name: 'subject', reason: "'/sys/none' does not exist" },
      { name: 'other', reason: "'/sys/none' does not exist" },
    ]);
    assert.deepEqual(bench.log, [
      "info no data on this host for collector 'subject', 'other'; looking again once a minute ('sysmon-agent check' says why)",
    ]);

    // It comes, goes, and comes again.
    subject.isThere = true;
    let instants = 0;
    while (bench.sampler.absent.length > 1) {
      await tick();
      instants++;
    }
    // 180 s is the instant of the next look, and the last one was 120 s.
    assert.equal(instants, 12);
    assert.deepEqual((await tick()).slice(0, 3), [
      'bad{n="0"} 0',
      'good{n="subject"} 1',
      'node_scrape_collector_success{collector="subject"} 1',
    ]);
    subject.isThere = false;
    assert.deepEqual(await tick(), absent);
    const { looks } = subject;
    for (let instant = 0; instant < 11; instant++) assert.deepEqual(await tick(), absent);
    assert.equal(subject.looks, looks);
    subject.isThere = true;
    await tick();
    assert.equal(subject.looks, looks + 1);
    assert.deepEqual(bench.log.slice(1), ["info collector 'subject' has found data"]);
  });
}

test('for some collectors nothing to find is a success, as in node_exporter', async () => {
  const bench = new Bench({ subject: new Subject() }, { successWithoutData: ['subject'] });
  assert.deepEqual(await bench.lines(/success/), ['node_scrape_collector_success{collector="subject"} 1']);
  assert.equal(bench.sampler.absent.length, 1);
});

test('attributes without a value are counted by collector; usual answers of drivers are no warning', async () => {
  let errnos: [path: string, errno: string][] = [];
  const attributes: Collector = {
    collect(host, out) {
      for (const [path, errno] of errnos) host.passOver(new UnreadableError(path, { errno, reason: ` says ${errno}` }));
      out.sample(good, 1, 'rest');
    },
  };
  const bench = new Bench({ attributes, whole: giving(1, bad), none: new Subject() });
  const lines = () => bench.lines(/^(good|sysmon_agent_(parse_errors|attributes_unreadable))/);
  const expected = (count: number) => [
    'good{n="rest"} 1',
    `sysmon_agent_attributes_unreadable_total{collector="attributes"} ${count}`,
    'sysmon_agent_attributes_unreadable_total{collector="whole"} 0',
    'sysmon_agent_parse_errors_total{collector="attributes"} 0',
    'sysmon_agent_parse_errors_total{collector="whole"} 0',
  ];
  errnos = [
    ['/sys/class/net/eth0/speed', 'EINVAL'],
    ['/sys/class/net/eth1/speed', 'EINVAL'],
    ['/sys/class/x/y', 'empty'],
  ];
  assert.deepEqual(await lines(), expected(3));
  assert.deepEqual(await lines(), expected(6));
  assert.deepEqual(bench.sampler.failures, []);
  errnos = [
    ['/sys/class/x/a/z', 'EIO'],
    ['/sys/class/x/b/z', 'EIO'],
  ];
  assert.deepEqual(await lines(), expected(8));
  assert.deepEqual(bench.sampler.failures, [
    { name: 'attributes', extent: 'part', reason: "'/sys/class/x/a/z' says EIO" },
  ]);
  const behind = 'only the series of that line or file are absent';
  assert.deepEqual(bench.log.slice(0, 2), [
    `debug collector 'attributes' could not read everything: '/sys/class/net/eth0/speed' says EINVAL; ${behind}`,
    `debug collector 'attributes' could not read everything: '/sys/class/x/y' says empty; ${behind}`,
  ]);
  assert.match(bench.log[2]!, /^info no data on this host for collector 'none'/);
  assert.deepEqual(bench.log.slice(3), [
    `warn collector 'attributes' could not read everything: '/sys/class/x/a/z' says EIO; ${behind}`,
  ]);
});

test('a bug in a collector costs it alone too, and says where it is', async () => {
  const bench = new Bench({
    buggy: {
      collect() {
        throw new TypeError('x is not a function');
      },
    },
    first: giving(1),
  });
  assert.deepEqual(await bench.lines(/^good/), ['good{n="0"} 0']);
  assert.match(bench.log[0]!, /^warn collector 'buggy' failed: a bug of this program.*x is not a function/s);
});

test('collectors that prepare do so together, while the others collect; one that fails there does not collect', async () => {
  const order: string[] = [];
  const preparing = (name: string, ms: number): Collector => ({
    async prepare() {
      order.push(`${name} prepares`);
      await bench.clock.sleep(ms);
      order.push(`${name} is ready`);
      if (name === 'c') throw new NoDataError('/c', ' is not there');
    },
    collect: () => void order.push(`${name} collects`),
  });
  const bench: Bench = new Bench({
    a: preparing('a', 20),
    b: preparing('b', 10),
    c: preparing('c', 5),
    d: { collect: () => void order.push('d collects') },
  });
  const sampling = bench.sampler.sample();
  await bench.clock.advance(30);
  await sampling;
  assert.deepEqual(order, [
    'a prepares',
    'b prepares',
    'c prepares',
    'd collects',
    'c is ready',
    'b is ready',
    'a is ready',
    'a collects',
    'b collects',
  ]);
  assert.deepEqual(bench.sampler.absent, [{ name: 'c', reason: "'/c' is not there" }]);
});

test('how long each took', async () => {
  const bench: Bench = new Bench({
    slow: { collect: () => void bench.clock.advance(0) },
  });
  let now = 0;
  bench.clock.monotonicMs = () => (now += 1.5);
  assert.deepEqual(await bench.lines(/duration/), ['node_scrape_collector_duration_seconds{collector="slow"} 0.0015']);
});

test('a collector that has no room fails like any other, and the agent still reports on itself', async () => {
  const budget = new SeriesBudget({ wire: { count: 1024, schemaBytes: 1e6, textBytes: 1e6 } });
  const bench = new Bench({ large: giving(2000), small: giving(10, bad) }, { budget });
  const lines = await bench.lines(/^(good|bad|node_scrape_collector_success|sysmon_agent_build)/);
  assert.deepEqual(lines.slice(10), [
    'node_scrape_collector_success{collector="large"} 0',
    'node_scrape_collector_success{collector="small"} 1',
    'sysmon_agent_build_info{version="1.2.3",nodejs="20.15.0"} 1',
  ]);
  const reason = "it has more than 768 series; filter by its options ('sysmon-agent collect --list') or --disable it";
  assert.deepEqual(bench.sampler.failures, [{ name: 'large', extent: 'whole', reason }]);
  await bench.sampler.sample();
  assert.deepEqual(bench.log, [`warn collector 'large' failed: ${reason}; its series are absent until it works again`]);
});

test('what the agent says about itself', async () => {
  const bench = new Bench({});
  Object.assign(bench.counters, { reportsSampled: 3, spoolBytes: 77, clockOffsetMs: -2500, ticksSkipped: 1 });
  bench.counters.reportsDropped.age = 9;
  bench.counters.reportsRefused.too_old = 369;
  bench.counters.spoolDiskState = 'slow';
  const lines = await bench.lines(/^sysmon_agent_/);
  for (const line of [
    'sysmon_agent_build_info{version="1.2.3",nodejs="20.15.0"} 1',
    'sysmon_agent_start_time_seconds 1.5',
    'sysmon_agent_cpu_seconds_total 2',
    'sysmon_agent_resident_memory_bytes 4096',
    'sysmon_agent_reports_sampled_total 3',
    'sysmon_agent_reports_dropped_total{reason="full"} 0',
    'sysmon_agent_reports_dropped_total{reason="age"} 9',
    'sysmon_agent_reports_dropped_total{reason="too_old"} 369',
    'sysmon_agent_reports_dropped_total{reason="server_bug"} 0',
    'sysmon_agent_spool_bytes 77',
    'sysmon_agent_spool_disk_state{state="ok"} 0',
    'sysmon_agent_spool_disk_state{state="slow"} 1',
    'sysmon_agent_clock_offset_seconds -2.5',
    'sysmon_agent_ticks_skipped_total 1',
  ]) {
    assert.ok(lines.includes(line), line);
  }
  const [buildInfo] = await bench.lines(/^node_exporter_build_info/);
  assert.match(
    buildInfo!,
    /^node_exporter_build_info\{version="1\.\d+\.\d+",revision="1\.2\.3",branch="sysmon-agent",goos="\w+",goarch="\w+"\} 1$/,
  );
});

test('every counter is shown', async () => {
  const bench = new Bench({});
  const numbers = Object.keys(bench.counters).filter(
    (field) => !['reportsDropped', 'reportsRefused', 'spoolDiskState'].includes(field),
  );
  numbers.forEach((field, at) => {
    Object.assign(bench.counters, { [field]: 1000 + at });
  });
  // The recorder itself sets this one at each instant.
  Object.assign(bench.counters, { clockOffsetMs: 5_000_000 });
  const values = (await bench.lines(/^sysmon_agent_/)).map((line) => Number(line.slice(line.lastIndexOf(' '))));
  numbers.forEach((field, at) => {
    const expected = field === 'clockOffsetMs' ? 5000 : 1000 + at;
    assert.ok(values.includes(expected), field);
  });
});
