import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { expositionOf } from '../src/agent/collect/exposition.ts';
import { Host } from '../src/agent/collect/proc/host.ts';
import { Sampler } from '../src/agent/collect/sampler.ts';
import { readsLate } from '../src/agent/collect/slow-host.ts';
import { program as agent } from '../src/agent/options.ts';
import { newAgentCounters, SelfMetrics } from '../src/agent/own-metrics.ts';
import { helpText } from '../src/runtime/option-help.ts';
import { environmentName } from '../src/runtime/options.ts';
import { program as server } from '../src/server/options.ts';
import { Registry, ServerMetrics } from '../src/server/own-metrics.ts';
import { rootFile } from './support/files.ts';

// What the documentation says exists: options, commands, metrics, files, and the log lines that it quotes.

const read = (path: string): string => readFileSync(rootFile(path), 'utf8');
const below = (folder: string, end: RegExp): string[] =>
  readdirSync(rootFile(folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => end.test(name))
    .map((name) => join(folder, name));

const documents = [
  ...['README.md', 'CHANGELOG.md', 'SECURITY.md', 'src/protocol/README.md', 'test/simulation/README.md'],
  ...below('docs', /\.md$/),
  ...below('systemd', /\.(service|env)$/),
  ...below('prometheus', /\.(yml|alloy)$/),
  ...below('examples', /\.yml$/),
  ...below('deb', /\.conf$/),
].map((path) => ({ path, text: read(path) }));

const programs = { 'sysmon-agent': agent, 'sysmon-server': server } as const;
const options = new Set(Object.values(programs).flatMap((each) => Object.values(each.options).map(({ name }) => name)));

/** Each match of the first group, with the document that it is in. */
function* found(pattern: RegExp): Generator<{ readonly name: string; readonly where: string }> {
  for (const { path, text } of documents) {
    for (const [, name] of text.matchAll(pattern)) yield { name: name!, where: `${path}: ${name}` };
  }
}

test('options', () => {
  const others = [
    ...['install.sh', ...below('scripts', /\.mjs$/), 'test/fuzz/main.ts'].map(read),
    // Of node, prometheus, systemctl, sha256sum; of what runbooks look at: du, journalctl, mdadm, apt.
    '--errors --max-depth --inodes --sort --vacuum-size --grep --detail --remove --add --upgradable ' +
      '--no-pager --no-hostname --lines --detach --build --format --filter --tail --from --chown --fqdn --no-opt --always-sparkplug --no-flush-bytecode --max-semi-space-size --disallow-code-generation-from-strings --storage.tsdb.path --now --help --version --ignore-missing --quiet --strict',
  ].join(' ');
  for (const { name, where } of found(/(?<![\w-])--([a-z][a-z-]*(?:\.[a-zA-Z-]+)*)/g)) {
    assert.ok(options.has(name) || others.includes(`--${name}`) || others.includes(` ${name}: {`), where);
  }
});

test('each option and command says what it does in a sentence, above all those of collectors', () => {
  for (const { name, commands, options: rows } of Object.values(programs)) {
    const said = [...Object.values(rows), ...commands];
    for (const each of said) assert.match(each.help, /^\S+ \S[\s\S]*[\w)]\.$/, `${name} ${each.name}: ${each.help}`);
  }
  assert.match(
    helpText(agent).replace(/\s+/g, ' '),
    / --cpu\.guest BOOLEAN Collect the time that CPUs spent in guests \(virtual machines\)\. Default: true /,
  );
});

test('variables', () => {
  const others = ['SYSMON_BENCH_FULL', 'SYSMON_NAME'];
  const variables = new Set([...[...options].map(environmentName), ...others]);
  for (const { name, where } of found(/\b(SYSMON_[A-Z_]+)/g)) assert.ok(variables.has(name), where);
});

test('commands', () => {
  for (const [name, { commands }] of Object.entries(programs)) {
    const known = new Set<string>([...commands.map((command) => command.name), 'help']);
    // In code; in prose any word may follow.
    for (const { name: word, where } of found(new RegExp(`(?:[\`']|sudo )${name} ([a-z]+(?:-[a-z]+)*)`, 'g'))) {
      assert.ok(known.has(word), where);
    }
  }
});

test('metrics', async () => {
  // Written apart: by agent, and in an answer that has a receipt.
  const names = new Set([
    ...['sysmon_agent_up', 'sysmon_server_agent_lag_seconds', 'sysmon_server_answer', 'sysmon_server_probe'],
  ]);
  const facts = { version: '', nodeVersion: '', startTimeMs: 0, cpuMicroseconds: () => 0, residentBytes: () => 0 };
  const counters = newAgentCounters();
  const sampler = new Sampler({
    host: new Host(),
    collectors: [
      { name: 'works', collector: { collect() {} } },
      {
        name: 'fails',
        collector: {
          collect() {
            throw new Error('it fails');
          },
        },
      },
    ],
    self: new SelfMetrics(counters, facts),
    clock: { monotonicMs: () => 0 },
    counters,
    log: { info() {}, warn() {}, debug() {} },
  });
  for (const [, name] of expositionOf(await sampler.sample()).matchAll(/^# TYPE (\S+)/gm)) names.add(name!);
  const metrics = new ServerMetrics(new Registry(), { version: '', gauges: () => gauges });
  metrics.addProcess();
  for (const [, name] of (await metrics.text([])).matchAll(/^# TYPE (\S+)/gm)) names.add(name!);
  names.add(readsLate.name);
  // Those of collectors are in their fixtures.
  for (const path of below('test/fixtures/collectors', /\.txt$/)) {
    for (const [, name] of read(path).matchAll(/^# TYPE (sysmon_\S+)/gm)) names.add(name!);
  }
  for (const { name, where } of found(/\b(sysmon_(?:agent|server)_[a-z_]*[a-z])\b(?!_?\*)/g)) {
    assert.ok(names.has(name), where);
  }
});

const gauges = {
  agentsUp: 0,
  agentsDown: 0,
  agentsConnected: 0,
  agentsRetiringKey: 0,
  windowBytes: 0,
  windowBytesMax: 0,
  windowReports: 0,
  drops: [],
  excesses: [],
};

test('whoever says how often to scrape says: at least as often as agents report', () => {
  assert.match(agent.options.schedule.help, /Prometheus should scrape at least as often\./);
  for (const [path, words] of [
    ['prometheus/prometheus.yml', "# No longer than the agents' --schedule"],
    ['prometheus/vmagent.yml', "# No longer than the agents' --schedule"],
    ['src/server/web/scrape-endpoint.ts', "set scrape_interval to at most the agents' --schedule"],
  ] as const) {
    assert.ok(read(path).includes(words), path);
  }
});

test('a Prometheus that is started in the clone, as is written, leaves nothing there that git sees', () => {
  const ignored = read('.gitignore').split('\n');
  for (const path of ['README.md', 'scripts/start.mjs']) {
    const commands = [...read(path).matchAll(/prometheus --config\.file=prometheus\/prometheus\.yml.*/g)];
    assert.ok(commands.length > 0, path);
    for (const [command] of commands) {
      const [, folder] = / --storage\.tsdb\.path=([^/ ]+\/)/.exec(command) ?? [];
      assert.ok(folder !== undefined && ignored.includes(folder), command);
    }
  }
});

test('files that are linked', () => {
  for (const { path, text } of documents) {
    for (const [, link] of text.matchAll(/\]\(([^)#:]+)(?:#[^)]*)?\)/g)) {
      assert.ok(existsSync(rootFile(join(dirname(path), link!))), `${path}: ${link}`);
    }
  }
});

test('sections that are linked', () => {
  let count = 0;
  for (const { path, text } of documents) {
    for (const [, file, anchor] of text.matchAll(/\]\(([^)#:]*)#([^)]+)\)/g)) {
      const target = file === '' ? path : join(dirname(path), file!);
      if (!target.endsWith('.md')) continue;
      count++;
      assert.ok(sectionsOf(read(target)).has(anchor!), `${path}: ${target}#${anchor}`);
    }
  }
  assert.ok(count > 50, `${count} links`);
});

/** The names of its headings in links, as GitHub makes them, and anchors. */
function sectionsOf(text: string): Set<string> {
  const headings = [...text.matchAll(/^#+ (.*)$/gm)].map(([, heading]) =>
    heading!
      .toLowerCase()
      .replace(/[^\p{L}\p{N}_ -]/gu, '')
      .replaceAll(' ', '-'),
  );
  return new Set([...headings, ...[...text.matchAll(/<a id="([^"]+)">/g)].map(([, id]) => id!)]);
}

test('files of the sources that are named', () => {
  for (const { name, where } of found(
    /\b((?:src|test|scripts|docs|prometheus)\/[a-z0-9/-]+\.(?:ts|mjs|md|yml|hex))\b/g,
  )) {
    assert.ok(existsSync(rootFile(name)), where);
  }
});

// Commands for a host begin with `# on HOST`; the lab runs them as they stand.
test('each procedure of docs/operating.md is run in the lab', () => {
  const lab = read('test/lab/procedures.test.ts');
  const sections = read('docs/operating.md').split(/^(?=##+ )/m);
  const headings = sections.filter((text) => /^```\n# on \S+\n/m.test(text)).map((text) => text.split('\n')[0]!);
  assert.ok(headings.length > 5, `${headings}`);
  for (const heading of headings) assert.ok(lab.includes(`'${heading}')`), heading);
});

// A log line is quoted in a table whose first column is headed `log line`, with … for text that varies.
test('log lines that are quoted', () => {
  const texts = below('src', /\.ts$/).map((path) => literals(read(path)));
  let count = 0;
  for (const { path, text } of documents) {
    for (const [table] of text.matchAll(/^\| log line .*\n(?:\|.*\n)+/gm)) {
      for (const [, quote] of table.matchAll(/^\| `([^`]+)`/gm)) {
        count++;
        const words = quote!.split('…').filter((part) => /\w/.test(part));
        assert.ok(
          words.every((part) => texts.some((literal) => literal.includes(part))),
          `${path}: no source has '${quote}'`,
        );
      }
    }
  }
  assert.ok(count > 5);
});

/** The text of a file's strings, one behind the other, with … for each expression in a template. */
function literals(source: string): string {
  return source.replace(/\$\{(?:[^{}`]|`[^`]*`|\{[^{}]*\})*\}/g, '…').replace(/[`']\s*\+\s*[`']/g, '');
}

test('docs/developing.md has a reason for every dependency, with its version', () => {
  const { dependencies } = JSON.parse(read('package.json')) as { dependencies: Record<string, string> };
  const rows = [...read('docs/developing.md').matchAll(/^\| ([\w-]+) +\| ([\d.]+) +\|/gm)].map(([, name, version]) => [
    name,
    version,
  ]);
  assert.deepEqual(Object.fromEntries(rows), dependencies);
});
