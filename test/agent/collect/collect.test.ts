import assert from 'node:assert/strict';
import { test } from 'node:test';
import { counter, gauge } from '../../../src/agent/collect/collectors/collector.ts';
import { collectorRows, createCollectors, selectCollectors } from '../../../src/agent/collect/collectors/index.ts';
import { expositionOf } from '../../../src/agent/collect/exposition.ts';
import { Host } from '../../../src/agent/collect/proc/host.ts';
import { Sampler } from '../../../src/agent/collect/sampler.ts';
import { newAgentCounters } from '../../../src/agent/own-metrics.ts';
import { Schema } from '../../../src/model/schema.ts';
import { contextOf, isOnWholeHost, wholeHost } from '../../support/collect-fixture.ts';
import { addGroup, type LabelledFamily } from '../../support/groups.ts';
import { parseMetrics } from '../../support/node-exporter.ts';
import { VirtualClock } from '../../support/virtual-clock.ts';

function textOf(...given: readonly [family: LabelledFamily, labels: string[], sum: number | undefined][]): string {
  const schema = new Schema();
  for (const [family, labels] of given) addGroup(schema, family, labels);
  return expositionOf({
    schema,
    sums: Float64Array.from(given.map(([, , sum]) => sum ?? 0)),
    present: Uint8Array.from(given.map(([, , sum]) => (sum === undefined ? 0 : 1))),
  });
}

test('families by name, each once, with its series in order', () => {
  const b = gauge('b', 'Two.', { labels: ['x'] });
  const a = counter('a_total', 'One.', { divisor: 100 });
  assert.equal(
    textOf([b, ['1'], 1], [a, [], 7], [b, ['2'], 2]),
    '# HELP a_total One.\n# TYPE a_total counter\na_total 0.07\n# HELP b Two.\n# TYPE b gauge\nb{x="1"} 1\nb{x="2"} 2\n',
  );
});

test('labels and HELP are escaped, empty labels left out', () => {
  const family = gauge('x', 'A \\ and a\nline.', { labels: ['a', 'b'] });
  assert.equal(
    textOf([family, ['q"b\\n\nü', ''], 1], [family, ['', 'z'], 2]),
    '# HELP x A \\\\ and a\\nline.\n# TYPE x gauge\nx{a="q\\"b\\\\n\\nü"} 1\nx{b="z"} 2\n',
  );
});

test('the numbers that are none, and what is absent', () => {
  const family = gauge('x', 'X.', { labels: ['n'] });
  const text = textOf(
    [family, ['1'], Number.NaN],
    [family, ['2'], Infinity],
    [family, ['3'], -Infinity],
    [family, ['4'], undefined],
  );
  assert.match(text, /x\{n="1"\} NaN\nx\{n="2"\} \+Inf\nx\{n="3"\} -Inf\n$/);
  assert.equal(textOf([family, ['1'], undefined]), '');
});

test('--enable and --disable', () => {
  const names = (enable: string[], disable: string[]) => selectCollectors({ enable, disable }).map((row) => row.name);
  const all = collectorRows.map((row) => row.name);
  assert.deepEqual(
    names([], []),
    all.filter((name) => collectorRows.find((row) => row.name === name)?.enabled === 'by default'),
  );
  assert.ok(!names([], ['cpu']).includes('cpu'));
  assert.ok(!names(['cpu'], ['cpu']).includes('cpu'), 'the last word has --disable');
});

for (const kernel of ['Linux 4.14', 'Linux 5.15', 'Linux 6.12']) {
  test(`every collector works on a whole host with ${kernel}`, async () => {
    const tree = wholeHost(kernel);
    const host = new Host(tree.roots);
    try {
      const warnings: string[] = [];
      const sampler = new Sampler({
        host,
        collectors: createCollectors(collectorRows, contextOf()),
        self: { collect() {} },
        clock: new VirtualClock(),
        counters: newAgentCounters(),
        log: { info: (text) => warnings.push(text), warn: (text) => warnings.push(text), debug() {} },
      });
      const { types, values } = parseMetrics(expositionOf(await sampler.sample()));
      assert.deepEqual(sampler.failures, []);
      // What the kernel got later is absent, and nothing else.
      const absent = collectorRows.filter(({ name }) => !isOnWholeHost(name, kernel));
      assert.deepEqual(
        sampler.absent.map(({ name }) => name),
        absent.map(({ name }) => name),
      );
      assert.equal(warnings.length, absent.length === 0 ? 0 : 1);
      for (const row of collectorRows.filter((each) => !absent.includes(each))) {
        assert.equal(values.get(`node_scrape_collector_success{collector="${row.name}"}`), 1, row.name);
      }
      assert.equal(types.get('node_cpu_seconds_total'), 'counter');
      assert.ok(values.has('node_network_receive_bytes_total{device="lo"}'));
    } finally {
      host.close();
      tree.remove();
    }
  });
}
