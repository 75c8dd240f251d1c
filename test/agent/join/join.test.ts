import assert from 'node:assert/strict';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { join as joinPath } from 'node:path';
import { type TestContext, test } from 'node:test';
import { JoinError } from '../../../src/agent/join/error.ts';
import { type JoinOptions, join } from '../../../src/agent/join/join.ts';
import type { Unit } from '../../../src/agent/join/unit.ts';
import { temporaryFolder } from '../../support/programs.ts';

const lineOf = (name: string, servers = 's:9732') =>
  `sysmon-join-v1 ${servers} ${name}:1:5c9e0b3a ${Buffer.from(name.repeat(32)).toString('hex').slice(0, 64)}\n`;

/** A host with a unit, whose server answers at each address but those that are away. */
class TestHost implements Unit {
  readonly keyFile: string;
  readonly envFile: string;
  readonly said: string[] = [];
  readonly warned: string[] = [];
  readonly away = new Set<string>();
  unit: 'active' | 'inactive' | undefined = 'inactive';
  restarts = 0;
  breaks = false;
  probes = 0;

  constructor(scope: TestContext) {
    const folder = temporaryFolder(scope);
    this.keyFile = joinPath(folder, 'agent.key');
    this.envFile = joinPath(folder, 'agent.env');
  }

  state() {
    return Promise.resolve(this.unit);
  }

  restart() {
    this.restarts++;
    if (this.breaks) return Promise.reject(new JoinError('unit', 'it does not start'));
    this.unit = 'active';
    return Promise.resolve();
  }

  restore(state: 'active' | 'inactive') {
    this.unit = state;
    return Promise.resolve();
  }

  join(text: string, options: Partial<JoinOptions> = {}): Promise<void> {
    this.said.length = 0;
    this.warned.length = 0;
    return join({
      ...{ hostName: 'host-1', mode: 'join', mayBeNone: false, canWrite: () => true, unit: this },
      places: { keyFile: this.keyFile, envFile: this.envFile, group: 'no-such-group' },
      readInput: () => Promise.resolve({ text, notices: [] }),
      probe: ({ servers }) => {
        this.probes++;
        const server = servers.find(({ host }) => !this.away.has(host));
        return server === undefined ? Promise.reject(new JoinError('server', 'all are away')) : Promise.resolve(server);
      },
      connected: () => Promise.resolve('connected\n'),
      print: (said) => void this.said.push(said),
      warn: (warned) => void this.warned.push(warned),
      ...options,
    });
  }

  get env(): string {
    return readFileSync(this.envFile, 'utf8');
  }
}

test('a host joins: files, unit, connection', async (context) => {
  const host = new TestHost(context);
  await host.join(lineOf('web-9'));
  assert.match(host.env, /^SYSMON_SERVER=s:9732$/m);
  assert.deepEqual([host.unit, host.restarts, host.said, host.warned], ['active', 1, ['connected\n'], []]);
});

test('the same line changes nothing, and asks the server nothing; if the agent is stopped it is started', async (context) => {
  const host = new TestHost(context);
  await host.join(lineOf('web-9'));
  const before = [host.env, readFileSync(host.keyFile, 'utf8')];
  await host.join(lineOf('web-9'));
  assert.deepEqual([host.restarts, host.probes], [1, 1]);
  assert.deepEqual(host.said, ["nothing to change: this host has joined as 'web-9'\n", 'connected\n']);
  assert.deepEqual([host.env, readFileSync(host.keyFile, 'utf8')], before);
  host.unit = 'inactive';
  await host.join(lineOf('web-9'));
  assert.deepEqual([host.unit, host.restarts], ['active', 2]);
});

test('another line joins anew, and says what becomes of the name before', async (context) => {
  const host = new TestHost(context);
  await host.join(lineOf('a2'));
  await host.join(lineOf('web-9', 't:9732'));
  assert.match(host.env, /^SYSMON_SERVER=t:9732\nSYSMON_NAME=web-9$/m);
  assert.equal(host.restarts, 2);
  assert.match(host.warned.join(), /this host was 'a2' before: 'sudo sysmon-server revoke a2'/);
});

test('the address that answers is the one that is kept', async (context) => {
  const host = new TestHost(context);
  host.away.add('s');
  await host.join(lineOf('web-9', 's:9732,10.77.0.11:9732'));
  assert.match(host.env, /^SYSMON_SERVER=10\.77\.0\.11:9732$/m);
  // Although another one comes first in the same line.
  await host.join(lineOf('web-9', 's:9732,10.77.0.11:9732'));
  assert.equal(host.restarts, 1);
});

test('a server that does not take the key: nothing is written', async (context) => {
  const host = new TestHost(context);
  host.away.add('s');
  await assert.rejects(host.join(lineOf('web-9')), { code: 'server' });
  assert.deepEqual([existsSync(host.keyFile), existsSync(host.envFile), host.restarts], [false, false, 0]);
});

test('a unit that does not start: all is as it was', async (context) => {
  const host = new TestHost(context);
  await host.join(lineOf('a2'));
  const before = [host.env, readFileSync(host.keyFile, 'utf8')];
  host.breaks = true;
  await assert.rejects(host.join(lineOf('web-9')), { code: 'unit', message: 'it does not start' });
  assert.deepEqual([host.env, readFileSync(host.keyFile, 'utf8'), host.unit], [...before, 'active']);
});

test('checked only: the line comes back with the address that answers, and nothing is written', async (context) => {
  const host = new TestHost(context);
  host.away.add('s');
  await host.join(lineOf('web-9', 's:9732,10.77.0.11:9732'), { mode: 'check' });
  assert.deepEqual(host.said, [lineOf('web-9', '10.77.0.11:9732')]);
  assert.equal(existsSync(host.keyFile), false);
  await host.join('', { mode: 'check', mayBeNone: true });
  assert.deepEqual(host.said, []);
  await assert.rejects(host.join(' \n', { mode: 'check' }), /no join line was given/);
});

test('the files alone, and without asking the server', async (context) => {
  const host = new TestHost(context);
  await host.join(lineOf('web-9', 's:9732,10.77.0.11:9732'), { mode: 'files', probe: undefined });
  assert.match(host.env, /^SYSMON_SERVER=s:9732$/m);
  assert.deepEqual([host.restarts, host.probes, host.said], [0, 0, []]);
});

test('a host without the unit is a host that starts the agent itself', async (context) => {
  const host = new TestHost(context);
  host.unit = undefined;
  await host.join(lineOf('web-9'));
  assert.match(host.said.join(), /start the agent with 'sysmon-agent run'/);
  rmSync(host.keyFile);
});

test('a folder that cannot be written is said before anybody is asked for a key', async (context) => {
  const host = new TestHost(context);
  const asked = host.join(lineOf('web-9'), {
    canWrite: () => false,
    readInput: () => Promise.reject(new Error('asked')),
  });
  await assert.rejects(asked, /you may not write to '.*': run 'sudo sysmon-agent join'/);
});
