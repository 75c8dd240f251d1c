import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { type TestContext, test } from 'node:test';
import { type Browser, type BrowserContextOptions, chromium, type Page } from 'playwright-core';
import { HttpHarness } from '../server/web/http-harness.ts';
import { type Metrics, schemaOf } from '../server/web/page/host-reports.ts';
import { skipWithout } from '../support/installed.ts';

// The pages in a real browser, over a server whose clock and agents are the test's.

const skip = skipWithout('/usr/bin/chromium');
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

/** A server, and a browser; what its pages say on the console, and ask of others, is an error. */
class BrowserWorld extends HttpHarness {
  readonly faults: string[] = [];
  readonly #browser: Browser;

  private constructor(browser: Browser) {
    super();
    this.#browser = browser;
  }

  static async start(context: TestContext): Promise<BrowserWorld> {
    const args = process.getuid?.() === 0 ? ['--no-sandbox'] : [];
    const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args });
    const world = new BrowserWorld(browser);
    await world.listen();
    context.after(async () => {
      await browser.close();
      await world.close();
    });
    return world;
  }

  /** `prepare`: before the page is asked for. */
  async visit(
    path: string,
    options: BrowserContextOptions = {},
    prepare: (page: Page) => Promise<void> = async () => {},
  ): Promise<Page> {
    const page = await (await this.#browser.newContext(options)).newPage();
    await prepare(page);
    page.on('console', (message) => {
      if (message.type() === 'error') this.faults.push(message.text());
    });
    page.on('pageerror', (error) => this.faults.push(error.message));
    page.on('request', (request) => {
      if (!request.url().startsWith(`http://127.0.0.1:${this.port}/`)) this.faults.push(request.url());
    });
    await page.goto(`http://127.0.0.1:${this.port}${path}`);
    return page;
  }

  /** An agent that is connected and has made two reports. A metric may be a getter. */
  host(name: string, labels: readonly (readonly [string, string])[] = [], metrics: Metrics = {}): () => void {
    const agent = this.connect(name);
    agent.record.peer = '192.0.2.1:1';
    agent.record.software = 'sysmon-agent 1.2.3';
    agent.record.host.labels = labels;
    let count = 0;
    const all = () => ({
      'node_cpu_seconds_total{cpu="0",mode="idle"}': 0,
      'node_cpu_seconds_total{cpu="0",mode="user"}': 0,
      ...metrics,
    });
    agent.maker.schema = schemaOf(all());
    const report = () => {
      const values = Object.values(all()).map((value, at) => (at < 2 ? ++count * 5 : value));
      const made = agent.maker.make(this.clock.nowMs() + count, values, { key: true });
      this.delivery.store.receive(agent.record.host, { ...made, follows: false });
    };
    report();
    report();
    return report;
  }
}

async function eventually(holds: () => Promise<unknown>): Promise<void> {
  for (let attempt = 0; ; attempt++) {
    try {
      return void (await holds());
    } catch (error) {
      if (attempt >= 100) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

async function assertAccessible(page: Page): Promise<void> {
  await page.evaluate(axe);
  const found = await page.evaluate<string[]>(
    '(async () => (await axe.run()).violations.flatMap(({ id, nodes }) => nodes.map(({ html }) => id + ": " + html.slice(0, 200))))()',
  );
  assert.deepEqual(found, []);
}

const rowsOf = (page: Page) =>
  page.locator('tr[data-host]').evaluateAll((rows) => rows.map((row) => row.getAttribute('data-host')));

test('the page without agents says how a host joins', { skip }, async (context) => {
  const world = await BrowserWorld.start(context);
  for (const colorScheme of ['light', 'dark'] as const) {
    const page = await world.visit('/', { colorScheme });
    assert.match((await page.textContent('main'))!, /sysmon-agent --server 127\.0\.0\.1:9732/);
    await assertAccessible(page);
  }
  assert.deepEqual(world.faults, []);
});

test('every page, light and dark, wide and as narrow as a telephone: accessible, and nothing moves', {
  skip,
}, async (context) => {
  const world = await BrowserWorld.start(context);
  const full = {
    'node_filesystem_size_bytes{device="/dev/sda1",mountpoint="/",fstype="ext4"}': 100,
    'node_filesystem_avail_bytes{device="/dev/sda1",mountpoint="/",fstype="ext4"}': 5,
  };
  world.host('web-1', [['site', 'north']], full)();
  await world.clock.advance(60_000);
  world.host('web-2')();
  await world.scrapeAll();
  for (const path of ['/', '/?state=down', '/agents/web-1', '/scrapers']) {
    for (const colorScheme of ['light', 'dark'] as const) {
      for (const width of [320, 1280]) {
        const page = await world.visit(path, {
          ...{ colorScheme, reducedMotion: 'reduce', viewport: { width, height: 700 } },
        });
        const what = `${path}, ${colorScheme}, ${width}`;
        await assertAccessible(page);
        const wide = await page.evaluate('document.documentElement.scrollWidth');
        assert.ok(Number(wide) <= width, `${what}: only tables scroll sideways: ${wide}`);
        const moving = await page.evaluate(
          `[...document.querySelectorAll('*')].filter((each) => {
            const { transitionDuration, animationName, scrollBehavior } = getComputedStyle(each);
            return transitionDuration !== '0s' || animationName !== 'none' || scrollBehavior === 'smooth';
          }).map((each) => each.tagName)`,
        );
        assert.deepEqual(moving, [], what);
        await page.context().close();
      }
    }
  }
  assert.deepEqual(world.faults, []);
});

test('by the keyboard alone: to a host, a filter, another order; the focus is seen, and stays', {
  skip,
}, async (context) => {
  const world = await BrowserWorld.start(context);
  world.host('db-1');
  world.host('web-1');
  const page = await world.visit('/');
  await eventually(async () => assert.equal(await page.textContent('#live'), 'Live.'));
  const focused = () => page.evaluate<string>('document.activeElement.name || document.activeElement.textContent');
  const tabTo = async (what: string) => {
    for (let presses = 0; (await focused()) !== what; presses++) {
      assert.ok(presses < 40, `${what} is never reached`);
      await page.keyboard.press('Tab');
      const outline = await page.evaluate('getComputedStyle(document.activeElement).outlineStyle');
      assert.notEqual(outline, 'none', await focused());
    }
  };
  await tabTo('q');
  await page.keyboard.type('web');
  await eventually(async () => assert.deepEqual(await rowsOf(page), ['web-1']));
  assert.equal(await focused(), 'q');
  for (let count = 0; count < 3; count++) await page.keyboard.press('Backspace');
  await eventually(async () => assert.deepEqual(await rowsOf(page), ['db-1', 'web-1']));
  await tabTo('Host');
  await page.keyboard.press('Enter');
  await eventually(async () => assert.deepEqual(await rowsOf(page), ['web-1', 'db-1']));
  assert.equal(await focused(), 'Host', 'whoever sorts goes on from there');
  await tabTo('web-1');
  await page.keyboard.press('Enter');
  await page.waitForURL('**/agents/web-1');
  assert.deepEqual(world.faults, []);
});

test('hosts that go down and come back, live; filters, sorting and the way back', { skip }, async (context) => {
  const world = await BrowserWorld.start(context);
  const evil = `<img src=//192.0.2.1/x onerror="alert('1')">`;
  const reports = [
    world.host('web-1', [['site', evil]]),
    world.host('web-2', [['site', 'north']], {
      'node_filesystem_size_bytes{device="/dev/sda1",mountpoint="/",fstype="ext4"}': 100,
      'node_filesystem_avail_bytes{device="/dev/sda1",mountpoint="/",fstype="ext4"}': 5,
    }),
    world.host('db-1', [['site', 'north']]),
  ];
  const page = await world.visit('/');
  await eventually(async () => assert.equal(await page.textContent('#live'), 'Live.'));
  assert.deepEqual(await rowsOf(page), ['db-1', 'web-1', 'web-2']);
  assert.ok((await page.textContent('tr[data-host=web-1]'))!.includes(`site=${evil}`), 'text stays text');
  assert.match((await page.textContent('#problems'))!, /web-2: file system \/ is 95 % full, 5 B are left/);
  await assertAccessible(page);

  await world.clock.advance(60_000);
  reports[1]!();
  reports[2]!();
  await world.clock.advance(5000);
  await eventually(async () => assert.match((await page.textContent('tr[data-host=web-1]'))!, /down for 65 s/));
  assert.match((await page.textContent('#problems'))!, /web-1: down/);
  reports[0]!();
  await world.clock.advance(5000);
  await eventually(async () => assert.match((await page.textContent('tr[data-host=web-1]'))!, /site=.*up/));

  await page.fill('input[name=q]', 'north');
  await eventually(async () => assert.deepEqual(await rowsOf(page), ['db-1', 'web-2']));
  assert.match(page.url(), /q=north/);
  assert.equal(await page.inputValue('input[name=q]'), 'north', 'whoever types goes on typing');
  await page.click('thead a:text("Host")');
  await eventually(async () => assert.deepEqual(await rowsOf(page), ['web-2', 'db-1']));
  await page.goBack();
  await eventually(async () => assert.deepEqual(await rowsOf(page), ['db-1', 'web-2']));
  await page.selectOption('select[name=state]', 'problems');
  await eventually(async () => assert.deepEqual(await rowsOf(page), ['web-2']));
  world.host('web-9', [['site', 'north']]);
  await page.selectOption('select[name=state]', 'all');
  await world.clock.advance(5000);
  await eventually(async () => assert.deepEqual(await rowsOf(page), ['db-1', 'web-2', 'web-9']));

  await page.click('tr[data-host=web-2] a');
  await page.waitForURL('**/agents/web-2');
  await page.goBack();
  await eventually(async () => assert.deepEqual(await rowsOf(page), ['db-1', 'web-2', 'web-9']));
  assert.deepEqual(world.faults, []);
});

test('a page of the hosts that are down, or sorted, follows what happens; so do headline and title', {
  skip,
}, async (context) => {
  const world = await BrowserWorld.start(context);
  const reports = ['db-1', 'web-1', 'web-2'].map((name) => world.host(name));
  const [all, down, worst] = [
    await world.visit('/'),
    await world.visit('/?state=down'),
    await world.visit('/?sort=state'),
  ];
  for (const page of [all, down, worst]) {
    await eventually(async () => assert.equal(await page.textContent('#live'), 'Live.'));
    assert.equal(await page.textContent('h1'), 'sysmon: 3 of 3 agents up');
  }
  assert.match((await down.textContent('#hosts'))!, /None of 3 hosts is like that/);
  assert.deepEqual(await rowsOf(worst), ['db-1', 'web-1', 'web-2']);
  await worst.focus('tr[data-host=web-1] a');
  const later = async (...up: number[]) => {
    await world.clock.advance(60_000);
    for (const at of up) reports[at]!();
    await world.clock.advance(5000);
  };
  await later(0, 2);
  await eventually(async () => assert.deepEqual(await rowsOf(down), ['web-1']));
  await eventually(async () => assert.deepEqual(await rowsOf(worst), ['web-1', 'db-1', 'web-2']));
  assert.equal(await worst.evaluate('document.activeElement.textContent'), 'web-1', 'whoever was there still is');
  for (const page of [all, down, worst]) {
    await eventually(async () => assert.equal(await page.textContent('h1'), 'sysmon: 2 of 3 agents up'));
    assert.equal(await page.title(), 'sysmon: 2 of 3 agents up');
    assert.match((await page.textContent('#about'))!, /^Version 1\.2\.3, up for \d+ /);
  }
  // Another one, whose line the page never had; and one that goes, in a list that stays.
  await later(0);
  await eventually(async () => assert.deepEqual(await rowsOf(down), ['web-1', 'web-2']));
  assert.match((await down.textContent('tr[data-host=web-2]'))!, /down for 70 s/);
  await later(0, 1);
  await eventually(async () => assert.deepEqual(await rowsOf(down), ['web-2']));
  await assertAccessible(down);
  // To a problem in the list: it is not lost because the times beside it change.
  await all.focus('#problems li a');
  await later(0, 1);
  await eventually(async () => assert.match((await all.textContent('#problems'))!, /web-2: .*no report for 3 min/));
  assert.equal(await all.evaluate('document.activeElement.textContent'), 'web-2');
  await later(0, 1, 2);
  for (const page of [all, down, worst]) {
    await eventually(async () => assert.equal(await page.textContent('h1'), 'sysmon: 3 of 3 agents up'));
  }
  await eventually(async () => assert.match((await down.textContent('#hosts'))!, /None of 3 hosts is like that/));
  world.host('web-9');
  await world.clock.advance(5000);
  await eventually(async () => assert.match((await down.textContent('#hosts'))!, /None of 4 hosts is like that/));
  await eventually(async () => assert.equal((await rowsOf(all)).length, 4));
  assert.deepEqual(world.faults, []);
});

test("a host's page and that of scrapers follow what happens; whoever types or selects is not disturbed", {
  skip,
}, async (context) => {
  const world = await BrowserWorld.start(context);
  let available = 50;
  const full = 'node_filesystem_avail_bytes{device="/dev/sda1",mountpoint="/",fstype="ext4"}';
  const metrics = {
    'node_filesystem_size_bytes{device="/dev/sda1",mountpoint="/",fstype="ext4"}': 100,
    get [full]() {
      return available;
    },
  };
  const report = world.host('web-1', [], metrics);
  const page = await world.visit('/agents/web-1', {}, (opened) => opened.clock.install());
  const scrapers = await world.visit('/scrapers', {}, (opened) => opened.clock.install());
  for (const each of [page, scrapers]) {
    await eventually(async () => assert.equal(await each.textContent('#live'), 'Live.'));
  }
  assert.match((await page.textContent('#state'))!, /web-1 up\s+Nothing is wrong\./);
  assert.match((await scrapers.textContent('main'))!, /No Prometheus has scraped yet/);
  assert.equal(await page.locator('figure').count(), 0, 'one rate is no line yet');
  await page.locator('input[name=series]').pressSequentially('size');
  await page.evaluate('document.querySelector("#tables td").isOwn = true');
  const nextLook = async (each: Page) => await each.clock.fastForward(11_000);

  available = 5;
  for (let count = 0; count < 3; count++) {
    await world.clock.advance(2000);
    report();
  }
  await world.scrapeAll();
  await nextLook(page);
  await eventually(async () => assert.match((await page.textContent('#state'))!, /file system \/ is 95 % full/));
  assert.match((await page.textContent('#tables'))!, /ext4\s*95 %/);
  assert.ok((await page.textContent('#tables'))!.includes('mountpoint="/",fstype="ext4"}5'), 'the newest values');
  await eventually(async () => assert.equal(await page.locator('figure canvas').count(), 1, 'a chart that is new'));
  assert.equal(
    await page.evaluate('document.querySelector("#tables td").isOwn'),
    true,
    'what is the same stays in its place',
  );
  assert.equal(await page.inputValue('input[name=series]'), 'size');
  assert.equal(await page.evaluate('document.activeElement.name'), 'series');
  await nextLook(scrapers);
  await eventually(async () => assert.match((await scrapers.textContent('main'))!, /its connection/));
  assert.equal(await scrapers.locator('#scrapers tbody tr').count(), 1);

  await world.clock.advance(65_000);
  await nextLook(page);
  await eventually(async () => assert.match((await page.textContent('h1'))!, /web-1 down/));
  assert.match((await page.textContent('#state'))!, /down: .*no report for 65 s/);
  await assertAccessible(page);
  await assertAccessible(scrapers);
  assert.deepEqual(world.faults, []);

  const { port } = world;
  await world.stop(2000);
  for (const each of [page, scrapers]) {
    await nextLook(each);
    await eventually(async () => assert.match((await each.textContent('#live'))!, /^Cut off from the server since/));
  }
  await world.listen(port);
  for (const each of [page, scrapers]) {
    await nextLook(each);
    await eventually(async () => assert.equal(await each.textContent('#live'), 'Live.'));
  }
});

test("a host's page: charts, tables, and a search of its series", { skip }, async (context) => {
  const world = await BrowserWorld.start(context);
  const report = world.host('web-1', [], {
    'node_filesystem_size_bytes{device="/dev/sda1",mountpoint="/",fstype="ext4"}': 100,
    'node_filesystem_avail_bytes{device="/dev/sda1",mountpoint="/",fstype="ext4"}': 50,
    node_memory_MemTotal_bytes: 100,
    node_memory_MemAvailable_bytes: 25,
  });
  for (let count = 0; count < 5; count++) {
    await world.clock.advance(5000);
    report();
  }
  for (const colorScheme of ['light', 'dark'] as const) {
    const page = await world.visit('/agents/web-1', { colorScheme, viewport: { width: 320, height: 600 } });
    await eventually(async () => assert.equal(await page.locator('figure canvas').count(), 2, 'CPU and memory'));
    assert.equal(await page.locator('figure > svg').count(), 0);
    await assertAccessible(page);
    const wide = await page.evaluate('document.documentElement.scrollWidth');
    assert.ok(Number(wide) <= 320, `only tables scroll sideways: ${wide}`);
    await page.fill('input[name=series]', 'memtotal');
    await page.press('input[name=series]', 'Enter');
    await page.waitForURL('**/agents/web-1?series=memtotal*');
    assert.match((await page.textContent('main'))!, /1 series found/);
  }
  assert.deepEqual(world.faults, []);
});

test('without script everything is there, and filters and links work', { skip }, async (context) => {
  const world = await BrowserWorld.start(context);
  const report = world.host('web-1');
  report();
  world.host('db-1');
  await world.scrapeAll();
  const page = await world.visit('/', { javaScriptEnabled: false });
  await page.fill('input[name=q]', 'web');
  await page.click('button:text("Filter")');
  assert.deepEqual(await rowsOf(page), ['web-1']);
  await page.click('thead a:text("CPU")');
  assert.match(page.url(), /sort=cpu/);
  await page.click('tr[data-host=web-1] a');
  assert.ok((await page.locator('figure svg').count()) > 0, 'lines that the server has drawn');
  await page.click('nav a:text("Scrapers")');
  assert.match((await page.textContent('main'))!, /all agents/);
  assert.deepEqual(world.faults, []);
});

test('what is typed last is shown, however late an earlier answer comes; every text can be searched for', {
  skip,
}, async (context) => {
  const world = await BrowserWorld.start(context);
  for (const name of ['db-1', 'wall-1']) world.host(name);
  const page = await world.visit('/');
  let isLate = false;
  await page.route(/[?&]q=w&/, async (route) => {
    isLate = true;
    await page.waitForTimeout(1500);
    await route.continue().catch(() => {}); // the page may have given it up
  });
  await page.fill('input[name=q]', 'w');
  await eventually(async () => assert.ok(isLate));
  await page.fill('input[name=q]', 'db');
  await eventually(async () => assert.deepEqual(await rowsOf(page), ['db-1']));
  await page.waitForTimeout(2000);
  assert.deepEqual(await rowsOf(page), ['db-1']);
  await page.fill('input[name=q]', 'all');
  await eventually(async () => assert.deepEqual(await rowsOf(page), ['wall-1']));
  assert.match(page.url(), /q=all/);
  // Whoever sorts at once sorts what was just typed.
  await page.fill('input[name=q]', '1');
  await page.click('thead a:text("Host")');
  await eventually(async () => assert.deepEqual(await rowsOf(page), ['wall-1', 'db-1']));
  await page.waitForTimeout(500);
  assert.match(page.url(), /q=1&sort=host&order=desc/);
  assert.deepEqual(world.faults, []);
});

test('a page that is cut off says so, and comes back by itself', { skip }, async (context) => {
  const world = await BrowserWorld.start(context);
  const report = world.host('web-1');
  const page = await world.visit('/');
  await eventually(async () => assert.equal(await page.textContent('#live'), 'Live.'));
  const { port } = world;
  await world.stop(2000);
  await eventually(async () => assert.match((await page.textContent('#live'))!, /^Cut off from the server since/));
  const [said, faults] = [await page.textContent('#live'), world.faults.length];
  await eventually(async () => assert.ok(world.faults.length > faults + 1, 'it tries again, and again'));
  assert.equal(await page.textContent('#live'), said, 'since the first time');
  world.host('web-2');
  report();
  await world.listen(port);
  await eventually(async () => assert.equal(await page.textContent('#live'), 'Live.'));
  assert.deepEqual(await rowsOf(page), ['web-1', 'web-2'], 'what came meanwhile is there');
  assert.ok(
    world.faults.every((fault) => /ERR_CONNECTION_REFUSED|ERR_INCOMPLETE|Failed to fetch/.test(fault)),
    world.faults.join(),
  );
});

test('a page whose connection nobody ends, and through which nothing comes, says so', { skip }, async (context) => {
  const world = await BrowserWorld.start(context);
  world.host('web-1');
  const page = await world.visit('/', {}, (opened) => opened.clock.install());
  await eventually(async () => assert.equal(await page.textContent('#live'), 'Live.'));
  await page.clock.pauseAt(Date.now() + 25_000);
  await eventually(async () => assert.match((await page.textContent('#live'))!, /^Cut off from the server since/));
  await page.clock.resume();
  await eventually(async () => assert.equal(await page.textContent('#live'), 'Live.'));
  assert.deepEqual(world.faults, []);
});

test('a thousand hosts, twenty pages of them open, and all of them go down at once', { skip }, async (context) => {
  const world = await BrowserWorld.start(context);
  const reports = Array.from({ length: 1000 }, (_, at) =>
    world.host(`web-${at}`, [['site', at % 2 === 0 ? 'north' : 'south']]),
  );
  const whole = await world.visit('/');
  const [navigation] = await whole.evaluate<{ encodedBodySize: number }[]>(
    "performance.getEntriesByType('navigation').map((each) => each.toJSON())",
  );
  assert.ok(navigation!.encodedBodySize < 400_000, `${navigation!.encodedBodySize} bytes`);
  assert.equal((await rowsOf(whole)).length, 1000);
  await whole.close();
  const pages: Page[] = [];
  for (let count = 0; count < 20; count++) pages.push(await world.visit('/?q=web-99'));
  await eventually(async () => {
    for (const page of pages) assert.equal(await page.textContent('#live'), 'Live.');
  });
  await world.clock.advance(95_000);
  for (const [at, report] of reports.entries()) if (at % 2 === 0) report();
  await world.clock.advance(5000);
  for (const page of pages) {
    await eventually(async () => assert.match((await page.textContent('tr[data-host=web-999]'))!, /down/));
    await eventually(async () => assert.match((await page.textContent('tr[data-host=web-998]'))!, /site=north.*up/));
  }
  assert.deepEqual(world.faults, []);
});
