import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { connect as connectPlain } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { type ConnectionOptions, connect as connectTls, type TLSSocket } from 'node:tls';
import { type AgentKey, parseKeyFile } from '../../src/agent/key-file.ts';
import { decodeServerMessage, encodeMessage, encodeSchema } from '../../src/protocol/codec.ts';
import { encodeKey } from '../../src/protocol/delta.ts';
import { encodeFrame, FrameDecoder } from '../../src/protocol/frame.ts';
import { limits } from '../../src/protocol/limits.ts';
import type { ServerMessage } from '../../src/protocol/messages.ts';
import type { Connection } from '../../src/runtime/connection.ts';
import { dial } from '../../src/runtime/dial.ts';
import { tlsParameters } from '../../src/runtime/tls.ts';
import { certificate } from '../support/certificates.ts';
import { rootFile } from '../support/files.ts';
import { beginOf, groupOf, pingOf } from '../support/groups.ts';
import { keyFileText } from '../support/key-file.ts';
import {
  AgentProgram,
  bundleOf,
  command,
  eventually,
  freePort,
  Program,
  ServerProgram,
  temporaryFolder,
} from '../support/programs.ts';

// Who gets in and who does not, with the programs as they are shipped: over TLS, with a fleet key, and an honest agent
// beside every attempt. Attackers come from loopback addresses of their own, as they would from hosts of their own.

test('those who do not belong', { timeout: 120_000 }, async (context) => {
  const world = await World.start(context);
  await context.test("refused: another agent's key", () => otherKey(world));
  await context.test('refused: an identity that the fleet does not have', () => unknownIdentity(world));
  await context.test('refused: TLS 1.2, with the key', () => oldTls(world));
  await context.test('refused: a certificate instead of a key', (part) => certificateOnly(world, part));
  await context.test('refused: a saved session without the key', () => savedSession(world, 'saver', 14));
  await context.test('refused: plain bytes', () => plainBytes(world, 15, encodeFrame(hello('honest'))));
  await context.test('refused: HTTP', () => plainBytes(world, 16, Buffer.from('GET / HTTP/1.1\r\nHost: a\r\n\r\n')));
  await context.test('refused: the name of another agent, with a key of its own', () => otherName(world));
  await context.test('an agent that connects twenty times in a moment gives two lines', () => redials(world));
  await context.test('a revoked agent: gone at once, and out for good', () => revoked(world));
  await context.test('a reload with a broken key file changes nothing', () => brokenReload(world));
  await context.test('a fleet key is replaced, step by step', () => rotation(world));
  await context.test('no key is anywhere but in its file', () => nothingLeaks(world));
});

const loopback = '127.0.0.1';

/** A server with a fleet key, an agent that is honest, and what it takes to be somebody else. */
class World {
  readonly context: TestContext;
  readonly folder: string;
  readonly fleetKeyFile: string;
  readonly server: ServerProgram;
  readonly honest: AgentProgram;
  /** Hex digits that must appear nowhere. */
  readonly secrets: Set<string>;
  readonly outputs: string[] = [];

  private constructor(parts: Pick<World, 'context' | 'folder' | 'fleetKeyFile' | 'server' | 'honest' | 'secrets'>) {
    this.context = parts.context;
    this.folder = parts.folder;
    this.fleetKeyFile = parts.fleetKeyFile;
    this.server = parts.server;
    this.honest = parts.honest;
    this.secrets = parts.secrets;
  }

  static async start(context: TestContext): Promise<World> {
    const folder = temporaryFolder(context);
    const fleetKeyFile = join(folder, 'fleet.key');
    const fleetKey = newKey();
    writeSecret(fleetKeyFile, `${fleetKey}\n`);
    const server = await ServerProgram.start(context, ['--fleet-key-file', fleetKeyFile]);
    const secrets = new Set([fleetKey]);
    const parts = { context, folder, fleetKeyFile, server, secrets };
    const honest = await startAgent({ ...parts, name: 'honest' });
    return new World({ ...parts, honest });
  }

  async key(name: string): Promise<AgentKey> {
    return enroll({ ...this, name });
  }

  startAgent(name: string): Promise<AgentProgram> {
    return startAgent({ ...this, name });
  }

  /** The honest agent has sent another report by now. */
  async othersKeepWorking(): Promise<void> {
    const before = await newestOf(this.server, 'honest');
    await eventually(10_000, async () => assert.ok((await newestOf(this.server, 'honest')) > before));
    const { run } = this.honest;
    assert.equal(run.lines.filter((line) => /warning|error/.test(line)).join('\n'), '');
  }
}

interface EnrolOptions {
  readonly server: ServerProgram;
  readonly fleetKeyFile: string;
  readonly secrets: Set<string>;
  readonly name: string;
}

/** As a person does it: the join line holds all that an agent needs. */
async function enroll({ server, fleetKeyFile, secrets, name }: EnrolOptions): Promise<AgentKey> {
  const listen = `${loopback}:${server.port}`;
  const options = ['--fleet-key-file', fleetKeyFile, '--control-socket', server.controlSocket, '--listen', listen];
  const line = await command('server', 'enroll', name, ...options);
  const [, address, identity = '', hex = ''] = /^sysmon-join-v1 (\S+) (\S+) ([0-9a-f]{64})\n$/.exec(line) ?? [];
  assert.equal(address, listen);
  assert.ok(identity.startsWith(`${name}:`), 'a join line of that name');
  secrets.add(hex);
  const key = parseKeyFile(keyFileText(identity, Buffer.from(hex, 'hex')));
  assert.ok(key !== undefined);
  return key;
}

async function startAgent(options: EnrolOptions & { context: TestContext; folder: string }): Promise<AgentProgram> {
  const { context, server, name, folder } = options;
  const keyFile = join(folder, `${name}.key`);
  const key = await enroll(options);
  writeSecret(keyFile, keyFileText(key.identity, key.key));
  const agent = await AgentProgram.start(context, {
    ...{ name, port: server.port, schedule: '500ms' },
    flags: ['--key-file', keyFile],
  });
  await agent.run.line(/connected to/);
  return agent;
}

const newKey = (): string => randomBytes(32).toString('hex');

function writeSecret(path: string, text: string): void {
  writeFileSync(path, text, { mode: 0o600 });
  chmodSync(path, 0o440);
}

/** A file that is read-only gives way to its owner, after a chmod. */
function rewriteSecret(path: string, text: string): void {
  chmodSync(path, 0o600);
  writeSecret(path, text);
}

async function statusOf(server: ServerProgram, name: string) {
  return (await server.agents()).agents.find((agent) => agent.name === name) as
    | { readonly connected: boolean; readonly newestAt?: string; readonly identity?: string; readonly peer?: string }
    | undefined;
}

async function newestOf(server: ServerProgram, name: string): Promise<number> {
  return Date.parse((await statusOf(server, name))?.newestAt ?? '1970-01-01');
}

/** A counter, which does not exist before its first event. */
async function counter(server: ServerProgram, series: string): Promise<number> {
  return server.metric(series).catch(() => 0);
}

/** The same attempt three times, from one address: three times counted, said once. The others notice nothing. */
async function refusedThrice(
  world: World,
  options: { from: number; series: string; says: RegExp; attempt: (localAddress: string) => Promise<void> },
): Promise<void> {
  const { server } = world;
  const { from, series, says, attempt } = options;
  const localAddress = `127.0.3.${from}`;
  const before = await counter(server, series);
  const { length } = server.run.lines;
  for (let time = 1; time <= 3; time++) {
    await attempt(localAddress);
    await eventually(5000, async () => assert.equal(await counter(server, series), before + time));
  }
  const warnings = server.run.lines.slice(length).filter((line) => /warning|error/.test(line));
  assert.equal(warnings.length, 1, warnings.join('\n'));
  assert.match(warnings[0]!, says);
  assert.ok(warnings[0]!.includes(localAddress), warnings[0]);
  await world.othersKeepWorking();
}

const tlsRefusals = 'sysmon_server_connections_refused_total{reason="tls"}';

/** Until the server has closed, with an error or without; never a byte of an answer. */
async function closedWithout(socket: TLSSocket | ReturnType<typeof connectPlain>): Promise<void> {
  const heard: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => heard.push(chunk));
  socket.on('error', () => {}); // being refused is the point
  await new Promise((resolve) => socket.once('close', resolve));
  // An alert of TLS is no answer of the program; it is all that may come in the clear.
  assert.ok(
    heard.every((chunk) => chunk[0] === 0x15),
    Buffer.concat(heard).toString('hex'),
  );
}

function tlsAttempt(server: ServerProgram, options: ConnectionOptions): (localAddress: string) => Promise<void> {
  return (localAddress) =>
    closedWithout(
      connectTls({
        ...{ ...tlsParameters, host: loopback, port: server.port, localAddress },
        ...{ rejectUnauthorized: false, checkServerIdentity: () => undefined },
        ...options,
      }),
    );
}

const pskOf = ({ identity, key }: Pick<AgentKey, 'identity' | 'key'>) => ({
  pskCallback: () => ({ identity, psk: key }),
});

async function otherKey(world: World): Promise<void> {
  const { identity } = await world.key('honest');
  const { key } = await world.key('thief');
  const attempt = tlsAttempt(world.server, pskOf({ identity, key }));
  const says = /is refused: .*binder does not verify/;
  await refusedThrice(world, { from: 10, series: tlsRefusals, says, attempt });
}

async function unknownIdentity(world: World): Promise<void> {
  const identity = `honest:1:00000000${'y'.repeat(200)}`;
  const attempt = tlsAttempt(world.server, pskOf({ identity, key: randomBytes(32) }));
  const says = /says it is 'honest:1:00000000y{63}…'\) is refused/;
  await refusedThrice(world, { from: 11, series: tlsRefusals, says, attempt });
}

async function oldTls(world: World): Promise<void> {
  const old = { minVersion: 'TLSv1.2', maxVersion: 'TLSv1.2', ciphers: 'PSK-AES128-GCM-SHA256' } as const;
  const attempt = tlsAttempt(world.server, { ...old, ...pskOf(await world.key('honest')) });
  await refusedThrice(world, { from: 12, series: tlsRefusals, says: /unsupported protocol/, attempt });
}

async function certificateOnly(world: World, part: TestContext): Promise<void> {
  const made = certificate(part);
  if (made === undefined) return;
  const attempt = tlsAttempt(world.server, { cert: made.cert, key: made.key });
  await refusedThrice(world, { from: 13, series: tlsRefusals, says: /is refused/, attempt });
}

/** Comes with the key, saves whatever TLS calls a session, and comes again with that alone. */
async function savedSession(world: World, name: string, from: number): Promise<void> {
  const session = await sessionOf(world, await world.key(name));
  const attempt = tlsAttempt(world.server, { session, secureOptions: 0 });
  await refusedThrice(world, { from, series: tlsRefusals, says: /is refused/, attempt });
}

async function sessionOf({ server, context }: World, key: AgentKey): Promise<Buffer> {
  const socket = connectTls({
    ...{ ...tlsParameters, secureOptions: 0, host: loopback, port: server.port },
    ...{ checkServerIdentity: () => undefined, ...pskOf(key) },
  });
  context.after(() => socket.destroy());
  socket.resume();
  socket.once('secureConnect', () => socket.write(encodeFrame(hello(key.agentName))));
  const session = await new Promise<Buffer>((resolve) => socket.once('session', resolve));
  socket.destroy();
  return session;
}

async function plainBytes(world: World, from: number, bytes: Uint8Array): Promise<void> {
  const attempt = (localAddress: string) => {
    const socket = connectPlain({ host: loopback, port: world.server.port, localAddress });
    socket.write(bytes);
    return closedWithout(socket);
  };
  await refusedThrice(world, { from, series: tlsRefusals, says: /is refused/, attempt });
}

function hello(agentName: string): Uint8Array {
  return encodeMessage({ kind: 'hello', version: 1, agentName, hostId: 'attacker', software: 'attack' });
}

/** With a key that is right: in by TLS, and then told why not. */
function helloAttempt(
  { server }: { readonly server: { readonly port: number } },
  options: { readonly key: Omit<AgentKey, 'agentName'>; readonly name: string; readonly code: string },
): (localAddress: string) => Promise<void> {
  return async (localAddress) => {
    const { key, name, code } = options;
    const socket = connectTls({
      ...{ ...tlsParameters, host: loopback, port: server.port, localAddress },
      ...{ checkServerIdentity: () => undefined, ...pskOf(key) },
    });
    socket.write(encodeFrame(hello(name)));
    const messages: ServerMessage[] = [];
    const decoder = new FrameDecoder({ payloadBytesMax: limits.agentBoundFrameBytesMax });
    for await (const chunk of socket) {
      for (const payload of decoder.push(chunk as Buffer)) messages.push(decodeServerMessage(payload));
    }
    assert.deepEqual(
      messages.map((message) => (message.kind === 'error' ? message.code : message.kind)),
      [code],
    );
  };
}

async function otherName(world: World): Promise<void> {
  const key = await world.key('thief');
  await refusedThrice(world, {
    ...{ from: 17, series: 'sysmon_server_connections_ended_total{reason="bad-message"}' },
    says: /the name 'honest' is not that of the key, 'thief:1:[0-9a-f]{8}'/,
    attempt: helloAttempt(world, { key, name: 'honest', code: 'bad-message' }),
  });
}

/** An agent with a key that connects again and again, and says nothing wrong. */
async function redials(world: World): Promise<void> {
  const { server } = world;
  const key = await world.key('busy');
  const { length } = server.run.lines;
  for (let time = 0; time < 20; time++) {
    const socket = connectTls({
      ...{ ...tlsParameters, host: loopback, port: server.port },
      ...{ checkServerIdentity: () => undefined, ...pskOf(key) },
    });
    socket.write(encodeFrame(hello('busy')));
    await new Promise((resolve) => socket.once('data', resolve));
    socket.destroy();
  }
  await world.othersKeepWorking();
  const lines = server.run.lines.slice(length).filter((line) => line.includes("agent 'busy'"));
  assert.equal(lines.length, 2, lines.join('\n'));
  assert.match(lines[0]!, /is connected: attack$/);
}

const revocations = 'sysmon_server_connections_ended_total{reason="revoked"}';

async function revoked(world: World): Promise<void> {
  const { server } = world;
  const agent = await world.startAgent('victim');
  const key = await world.key('victim');
  const session = await sessionOf(world, key);
  await eventually(10_000, async () => assert.ok((await statusOf(server, 'victim'))?.connected));

  const options = ['--control-socket', server.controlSocket, '--fleet-key-file', world.fleetKeyFile];
  const said = await command('server', 'revoke', 'victim', ...options);
  assert.equal(said, "the key of generation 1 of agent 'victim' is revoked; 1 connection ended\n");
  await agent.run.line(/refused this agent \(revoked\)/);
  assert.equal(await statusOf(server, 'victim'), undefined, 'forgotten');

  const says = /the key 'victim:1:[0-9a-f]{8}' has been revoked; enrol the agent again/;
  const attempt = helloAttempt(world, { key, name: 'victim', code: 'revoked' });
  await refusedThrice(world, { from: 18, series: revocations, says, attempt });
  const again = tlsAttempt(server, { session, secureOptions: 0 });
  await refusedThrice(world, { from: 19, series: tlsRefusals, says: /is refused/, attempt: again });

  await server.kill('SIGKILL');
  await server.start();
  await world.honest.run.line(/lost '/);
  await eventually(20_000, async () => assert.ok((await statusOf(server, 'honest'))?.connected));
  // Having lost a server is worth a line; from here on there is none again.
  world.honest.run.lines.length = 0;
  await refusedThrice(world, { from: 20, series: revocations, says, attempt });

  const next = await world.key('victim');
  assert.match(next.identity, /^victim:2:/);
  rewriteSecret(join(world.folder, 'victim.key'), keyFileText(next.identity, next.key));
  process.kill(agent.run.pid, 'SIGHUP');
  await eventually(10_000, async () => assert.equal((await statusOf(server, 'victim'))?.identity, next.identity));
  world.outputs.push(...agent.run.lines);
  await agent.kill('SIGTERM');
}

async function brokenReload(world: World): Promise<void> {
  const { server, fleetKeyFile } = world;
  const right = readFileSync(fleetKeyFile, 'utf8');
  const broken = `${newKey().slice(1)}\n`;
  world.secrets.add(broken.trim());
  const peer = (await statusOf(server, 'honest'))?.peer;
  for (const [text, mode, says] of [
    [broken, 0o440, /reload failed, nothing is changed: .*expected one or two lines of 64 hex digits/],
    [right, 0o444, /reload failed, nothing is changed: .*its mode is 0444.*run 'chmod 0440 /],
  ] as const) {
    rewriteSecret(fleetKeyFile, text);
    chmodSync(fleetKeyFile, mode);
    process.kill(server.run.pid, 'SIGHUP');
    await server.run.line(says);
    await world.othersKeepWorking();
  }
  rewriteSecret(fleetKeyFile, right);
  process.kill(server.run.pid, 'SIGHUP');
  await server.run.line(/reloaded: fleet key [0-9a-f]{8}, 1 revocation; 0 connections ended/);
  assert.equal((await statusOf(server, 'honest'))?.peer, peer, 'on the connection that it had');
}

/** By hand, as `rotate-key` does it. */
async function rotation(world: World): Promise<void> {
  const { server, fleetKeyFile, honest } = world;
  const late = await world.startAgent('late');
  const [oldKey, newFleetKey] = [readFileSync(fleetKeyFile, 'utf8').trim(), newKey()];
  world.secrets.add(newFleetKey);
  const before = (await statusOf(server, 'honest'))?.identity;

  rewriteSecret(fleetKeyFile, `${newFleetKey}\n${oldKey}\n`);
  process.kill(server.run.pid, 'SIGHUP');
  await server.run.line(/reloaded: fleet keys [0-9a-f]{8}, [0-9a-f]{8}, /);
  await world.othersKeepWorking();
  assert.equal((await statusOf(server, 'honest'))?.identity, before);

  const next = await world.key('honest');
  assert.notEqual(next.identity, before);
  rewriteSecret(join(world.folder, 'honest.key'), keyFileText(next.identity, next.key));
  world.outputs.push(...honest.run.lines);
  await honest.kill('SIGTERM');
  await honest.start();
  await eventually(10_000, async () => assert.equal((await statusOf(server, 'honest'))?.identity, next.identity));
  const list = await command('server', 'agents', '--control-socket', server.controlSocket);
  assert.match(list, new RegExp(`^honest .* ${next.identity.slice('honest:'.length)} `, 'm'));

  rewriteSecret(fleetKeyFile, `${newFleetKey}\n`);
  process.kill(server.run.pid, 'SIGHUP');
  await server.run.line(/reloaded: fleet key [0-9a-f]{8}, 1 revocation; 1 connection ended/);
  await late.run.line(/refused this agent \(revoked\)/);
  await world.othersKeepWorking();
  process.kill(late.run.pid, 'SIGHUP');
  await late.run.line(/cannot connect to .* does not know the key of 'late:1:[0-9a-f]{8}': enrol this host again/);
  world.outputs.push(...late.run.lines);
  await late.kill('SIGTERM');
}

/**
 * Log lines, command lines and environments (what `ps` shows), what the commands print, and every page. A core dump is
 * left to the units, which forbid it: a program cannot do that for itself.
 */
async function nothingLeaks(world: World): Promise<void> {
  const { server, honest, secrets, outputs } = world;
  outputs.push(...server.lines, ...server.run.lines, ...honest.run.lines);
  for (const { run } of [server, honest]) {
    for (const file of ['cmdline', 'environ']) outputs.push(readFileSync(`/proc/${run.pid}/${file}`, 'utf8'));
  }
  for (const json of [[], ['--json']]) {
    for (const asked of ['status', 'agents']) {
      outputs.push(await command('server', asked, '--control-socket', server.controlSocket, ...json));
    }
    outputs.push(await honest.status(...json));
  }
  for (const path of ['/', '/metrics', '/api/v1/agents', '/-/healthy', '/-/ready', '/nothing']) {
    outputs.push(await (await server.get(path)).text());
  }
  assert.ok(outputs.length > 50, 'that there is something to look through');
  for (const hex of secrets) {
    const bytes = Buffer.from(hex, 'hex');
    for (const text of [hex, bytes.toString('base64').replace(/=+$/, ''), bytes.toString('latin1')]) {
      const found = outputs.find((output) => output.toLowerCase().includes(text.toLowerCase()));
      assert.equal(found, undefined);
    }
  }
  for (const unit of ['agent', 'server']) {
    assert.match(readFileSync(rootFile(`systemd/sysmon-${unit}.service`), 'utf8'), /^LimitCORE=0$/m);
  }
}

/** A program that does not start: its exit code and what it printed. */
async function refusal(context: TestContext, program: 'agent' | 'server', ...argv: string[]) {
  const run = new Program(program, process.execPath, [bundleOf(program), ...argv], {
    env: { PATH: process.env['PATH'], SYSMON_CONFIG_FILE: '/dev/null' },
  });
  context.after(() => run.kill('SIGKILL'));
  const { code } = await run.ended;
  return { code, text: run.lines.join('\n') };
}

test('key files that others can read are refused with the chmod to run, by every command that reads them', async (context) => {
  const folder = temporaryFolder(context);
  const fleetKeyFile = join(folder, 'fleet.key');
  const keyFile = join(folder, 'agent.key');
  const [fleetKey, key] = [newKey(), newKey()];
  writeSecret(fleetKeyFile, `${fleetKey}\n`);
  writeSecret(keyFile, keyFileText('web-1:1:00000000', Buffer.from(key, 'hex')));
  const commands: ['agent' | 'server', string, string[]][] = [
    ['server', fleetKeyFile, ['run', '--fleet-key-file', fleetKeyFile]],
    ['server', fleetKeyFile, ['check', '--fleet-key-file', fleetKeyFile]],
    ['server', fleetKeyFile, ['enroll', 'web-1', '--fleet-key-file', fleetKeyFile]],
    ['agent', keyFile, ['run', '--key-file', keyFile]],
    ['agent', keyFile, ['check', '--key-file', keyFile]],
  ];
  for (const [program, path, argv] of commands) {
    for (const mode of [0o444, 0o460]) {
      chmodSync(path, mode);
      const { code, text } = await refusal(context, program, ...argv);
      assert.equal(code, 2, text);
      assert.ok(text.includes(`its mode is 0${mode.toString(8)}`) && text.includes(`chmod 0440 ${path}`), text);
      assert.ok(!text.includes(fleetKey) && !text.includes(key));
    }
  }
  const missing = await refusal(context, 'server', 'run', '--fleet-key-file', join(folder, 'none'));
  assert.equal(missing.code, 2);
  assert.match(missing.text, /fleet-key-file.*'.*none': there is no such file/);
});

test('without a key only the loopback is served, unless it is told otherwise, and then it says so', async (context) => {
  const { code, text } = await refusal(context, 'server', 'run', '--listen', '0.0.0.0:0');
  assert.equal(code, 2);
  assert.match(text, /--listen.*--fleet-key-file.*--allow-plaintext/);

  const [port, webPort] = [await freePort(), await freePort()];
  const options = [
    '--listen',
    `0.0.0.0:${port}`,
    '--web.listen-address',
    `${loopback}:${webPort}`,
    '--allow-plaintext',
  ];
  const argv = [bundleOf('server'), 'run', ...options, '--control-socket', join(temporaryFolder(context), 's.sock')];
  const server = new Program('server', process.execPath, argv, { env: { SYSMON_CONFIG_FILE: '/dev/null' } });
  context.after(() => server.kill('SIGKILL'));
  await server.line(/warning: agents connect without keys \(--allow-plaintext\)/);
  assert.match(await (await fetch(`http://${loopback}:${webPort}/`)).text(), /connect without keys/);
});

test('an agent with a key does not speak to a server without', async (context) => {
  const server = await ServerProgram.start(context);
  const folder = temporaryFolder(context);
  const keyFile = join(folder, 'agent.key');
  writeSecret(keyFile, keyFileText('web-1:1:00000000', randomBytes(32)));
  const agent = await AgentProgram.start(context, {
    ...{ name: 'web-1', port: server.port, schedule: '500ms', flags: ['--key-file', keyFile] },
  });
  await agent.run.line(/warning: cannot connect to .*; \d+ reports? waiting, retrying in/);
  assert.deepEqual((await server.agents()).agents, []);
  const fleetKeyFile = join(folder, 'fleet.key');
  const options = ['--control-socket', server.controlSocket, '--fleet-key-file', fleetKeyFile];
  await assert.rejects(command('server', 'revoke', 'web-1', ...options), /without keys/);
  assert.equal(existsSync(join(folder, 'revoked.json')), false);
});

const floodReports = 150;
const floodSeries = 8000;
const floodAgents = 4;

test('agents that send all that they may stay within the memory of the server', {
  timeout: 120_000,
}, async (context) => {
  const folder = temporaryFolder(context);
  const fleetKeyFile = join(folder, 'fleet.key');
  writeSecret(fleetKeyFile, `${newKey()}\n`);
  const boundBytes = 16 * 1024 * 1024;
  const server = await ServerProgram.start(context, [
    ...['--fleet-key-file', fleetKeyFile, '--memory-max', String(boundBytes)],
  ]);
  const world = { server, fleetKeyFile, secrets: new Set<string>() };
  const nowMs = Date.now();
  const [older, newer] = await Promise.all(
    ['older', 'newer'].map(async (name) => Flooder.connect(context, await enroll({ ...world, name }), server.port)),
  );
  // One report that is older than all others, and one that is newer.
  older!.declare(1);
  await older!.report(nowMs - 1_000_000, [1]);
  newer!.declare(1);
  await newer!.report(nowMs, [1]);
  await eventually(10_000, async () => assert.equal((await server.agents()).agents.length, 2));

  const flooders = await Promise.all(
    Array.from({ length: floodAgents }, async (_, at) =>
      Flooder.connect(context, await enroll({ ...world, name: `flood-${at}` }), server.port),
    ),
  );
  let isOver = false;
  const watch = async () => {
    while (!isOver) {
      const { windowBytes } = (await server.agents()).server as unknown as { windowBytes: number };
      assert.ok(windowBytes <= boundBytes, `${windowBytes} bytes`);
    }
  };
  const flood = async (flooder: Flooder) => {
    flooder.declare(floodSeries);
    for (let at = 0; at < floodReports; at++) {
      const values = Array.from({ length: floodSeries }, (_, series) => Math.sin(series * floodReports + at));
      await flooder.report(nowMs - 900_000 + at * 100, values);
    }
    await flooder.flushed();
  };
  const watching = watch();
  await Promise.all(flooders.map(flood));
  isOver = true;
  await watching;

  const stored = await server.metric('sysmon_server_reports_total{outcome="stored"}');
  const evicted = await server.metric('sysmon_server_reports_evicted_total{reason="memory"}');
  assert.equal(stored, 2 + floodAgents * floodReports);
  const { agents } = await server.agents();
  const held = agents.reduce((sum, { windowReports }) => sum + windowReports, 0);
  assert.equal(held, stored - evicted);
  assert.ok(evicted > stored / 2, `${evicted} of ${stored}`);
  const heldBy = (name: string) => agents.find((agent) => agent.name === name)?.windowReports;
  assert.equal(heldBy('older'), 0, 'the oldest goes first');
  assert.equal(heldBy('newer'), 1, 'the newest is kept');
  // A process without agents has 60 MiB. What a megabyte of frames is decoded into lives until it is collected.
  const peakKiB = Number(/^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${server.run.pid}/status`, 'utf8'))?.[1]);
  assert.ok(peakKiB < 400 * 1024, `${peakKiB} KiB`);
});

/** An agent that has a key and sends what it likes. */
class Flooder {
  readonly #connection: Connection;
  #seq = 0;
  #pongs = 0;

  private constructor(connection: Connection) {
    this.#connection = connection;
  }

  static async connect(context: TestContext, { identity, key, agentName }: AgentKey, port: number): Promise<Flooder> {
    const { signal } = new AbortController();
    const connection = await dial({ host: loopback, port, timeoutMs: 20_000, psk: { identity, key }, signal });
    context.after(() => connection.destroy());
    const flooder = new Flooder(connection);
    void flooder.#read();
    await connection.write(encodeFrame(hello(agentName)));
    await connection.write(encodeFrame(encodeMessage(beginOf())));
    return flooder;
  }

  declare(seriesCount: number): void {
    const labelValues = Array.from({ length: seriesCount }, (_, series) => String(series));
    const family = { name: 'flood', type: 'gauge', help: '', divisor: 1, labelNames: ['series'] } as const;
    for (const payload of encodeSchema(0, [groupOf(family, labelValues)])) {
      this.#connection.write(encodeFrame(payload)).catch(() => {}); // the next report finds out
    }
  }

  /** Every one a key, with every value: as many bytes as there can be. */
  report(timeMs: number, values: readonly number[]): Promise<void> {
    const sums = Float64Array.from(values);
    const pairs = encodeKey({ sums, present: new Uint8Array(sums.length).fill(1) });
    const message = { kind: 'report', key: true, source: 0, seq: ++this.#seq, timeMs, pairs } as const;
    return this.#connection.write(encodeFrame(encodeMessage(message)));
  }

  /** The server has read everything up to here. */
  async flushed(): Promise<void> {
    const pongs = this.#pongs;
    await this.#connection.write(encodeFrame(encodeMessage(pingOf(pongs))));
    await eventually(60_000, () => assert.ok(this.#pongs > pongs));
  }

  async #read(): Promise<void> {
    const decoder = new FrameDecoder({ payloadBytesMax: limits.agentBoundFrameBytesMax });
    try {
      for await (const chunk of this.#connection) {
        for (const payload of decoder.push(chunk)) {
          if (decodeServerMessage(payload).kind === 'pong') this.#pongs++;
        }
      }
    } catch {
      // Ended at the end of the test, or a write tells it.
    }
  }
}
