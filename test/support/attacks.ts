import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { createConnection, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { decodeServerMessage, encodeMessage, encodeSchema } from '../../src/protocol/codec.ts';
import { encodeFrame, FrameDecoder } from '../../src/protocol/frame.ts';
import { limits } from '../../src/protocol/limits.ts';
import type { AgentMessage, Begin } from '../../src/protocol/messages.ts';
import type { Budget } from '../../src/server/delivery/budget.ts';
import { beginOf, groupOf, type LabelledFamily } from './groups.ts';

/** Where a server listens. */
export interface Target {
  readonly port: number;
  readonly webPort: number;
}

/** What one agent, or one client of the HTTP port, does to a server and to all others. */
export interface Attack {
  readonly what: string;
  /** The name of the agent; of an attack on the HTTP port, none. */
  readonly agent: string | undefined;
  /** What the server holds against it. */
  readonly budget: Budget | undefined;
  run(target: Target): Promise<void>;
}

/** Begins an attack in a process of its own, from the loopback to the loopback. It is over when the process has ended. */
export async function beginAttack({ what }: Attack, target: Target): Promise<ChildProcess> {
  const child = fork(fileURLToPath(import.meta.url), [what, JSON.stringify(target)], { execArgv: [] });
  await once(child, 'message');
  return child;
}

const gauge: LabelledFamily = { name: 'evil', type: 'gauge', help: '', divisor: 1, labelNames: ['i'] };
const counted = (count: number, prefix = '') => Array.from({ length: count }, (_, i) => `${prefix}${i.toString(36)}`);

/** An agent that says what it likes. */
class Attacker {
  readonly #socket: Socket;
  readonly name: string;
  #seq = 0;
  #epoch = 0;
  isEnded = false;

  constructor({ port }: Target, name: string) {
    this.name = name;
    this.#socket = createConnection({ port, host: '127.0.0.1' });
    const decoder = new FrameDecoder({ payloadBytesMax: limits.agentBoundFrameBytesMax });
    this.#socket.on('data', (chunk: Uint8Array) => {
      for (const payload of decoder.push(chunk)) if (decodeServerMessage(payload).kind === 'error') this.isEnded = true;
    });
    this.#socket.on('error', () => {}); // it is cut off
    this.#socket.once('close', () => {
      this.isEnded = true;
    });
    void this.send({ kind: 'hello', version: 1, agentName: name, hostId: name, software: 'evil' });
  }

  begin(fields: Partial<Begin> = {}): Promise<void> {
    return this.send(beginOf({ epoch: ++this.#epoch, intervalMs: 100, ...fields }));
  }

  async declare(family: LabelledFamily, values: readonly string[], source = 0): Promise<void> {
    for (const payload of encodeSchema(source, [groupOf(family, values)])) await this.bytes(payload);
  }

  /** A report with these pairs, a key by default. */
  report(pairs: readonly (number | null)[], { timeMs = Date.now(), key = true, source = 0 } = {}): Promise<void> {
    return this.send({ kind: 'report', key, source, seq: ++this.#seq, timeMs, pairs: [...pairs] });
  }

  send(message: AgentMessage): Promise<void> {
    return this.bytes(encodeMessage(message));
  }

  /** Resolves when the kernel has taken the frame, or the connection has ended. */
  bytes(payload: Uint8Array): Promise<void> {
    if (this.isEnded) return Promise.resolve();
    return new Promise((resolve) => {
      this.#socket.write(encodeFrame(payload), () => resolve());
    });
  }

  end(): void {
    this.#socket.destroy();
  }
}

/** Again and again; whoever is cut off comes again after a moment. */
async function again(target: Target, name: string, attack: (attacker: Attacker) => Promise<void>): Promise<never> {
  for (;;) {
    const attacker = new Attacker(target, name);
    while (!attacker.isEnded) {
      await attack(attacker);
      await sleep(10);
    }
    attacker.end();
    await sleep(50);
  }
}

/** Values that do not compress. */
const doubles = (count: number): number[] =>
  Array.from({ length: count }, () => [-1, Math.random() * 1e9]).flat() as number[];

function agentAttack(
  name: string,
  budget: Budget,
  what: string,
  attack: (attacker: Attacker) => Promise<void>,
): Attack {
  return { what, agent: name, budget, run: (target) => again(target, name, attack) };
}

function httpAttack(what: string, attack: (target: Target) => void): Attack {
  return {
    ...{ what, agent: undefined, budget: undefined },
    async run(target) {
      attack(target);
    },
  };
}

export const attacks: readonly Attack[] = [
  agentAttack('evil-names', 'messages', 'a family of hundreds of label names', async (attacker) => {
    await attacker.begin();
    const labelNames = counted(300, 'l');
    await attacker.declare({ ...gauge, labelNames }, Array<string>(300).fill(''));
  }),
  agentAttack('evil-value', 'messages', 'a label value that the scrape job does not take', async (attacker) => {
    await attacker.begin();
    await attacker.declare(gauge, ['x'.repeat(300)]);
    await attacker.report([0, 1]);
  }),
  agentAttack('evil-text', 'answer', '16 MiB of text a report', async (attacker) => {
    const text = 'x'.repeat(190);
    await attacker.begin({ labels: counted(5, 'site').map((name) => [name, text]) });
    await attacker.declare(gauge, counted(13_000));
    const pairs = doubles(13_000);
    const fromMs = Date.now() - 100_000;
    for (let report = 0; report < 1000 && !attacker.isEnded; report++) {
      await attacker.report(pairs, { timeMs: fromMs + report * 100 });
    }
  }),
  agentAttack('evil-size', 'answer', '60 000 series ten times a second', async (attacker) => {
    await attacker.begin();
    await attacker.declare(gauge, counted(60_000));
    const pairs = doubles(60_000);
    const fromMs = Date.now() - 100_000;
    for (let report = 0; report < 1000 && !attacker.isEnded; report++) {
      await attacker.report(pairs, { timeMs: fromMs + report * 100 });
    }
  }),
  agentAttack(
    'evil-holes',
    'answer',
    '20 000 series, all of them absent, in a backlog of a few bytes a report',
    async (attacker) => {
      await attacker.begin();
      const values = counted(20_000);
      await attacker.declare(gauge, values);
      const absent = values.flatMap(() => [-1, null]);
      const fromMs = Date.now() - 120_000;
      for (let report = 0; report < 1200 && !attacker.isEnded; report++) {
        const key = report % limits.reportsPerKeyMax === 0;
        await attacker.report(key ? absent : [], { timeMs: fromMs + report * 100, key });
      }
    },
  ),
  agentAttack('evil-absent', 'reports', '20 000 absent series, and deltas without end', async (attacker) => {
    await attacker.begin();
    await attacker.declare(gauge, counted(20_000));
    const fromMs = Date.now() - 100_000;
    for (let report = 0; report < 100_000 && !attacker.isEnded; report++) {
      const key = report % limits.reportsPerKeyMax === 0;
      await attacker.report(key ? [0, report] : [0, 1], { timeMs: fromMs + report, key });
    }
  }),
  agentAttack('evil-memory', 'memory', 'reports to fill the memory, newer than those of others', async (attacker) => {
    await attacker.begin();
    await attacker.declare(gauge, counted(50_000));
    const fromMs = Date.now() - 20_000;
    const pairs = doubles(50_000);
    for (let report = 0; report < 290 && !attacker.isEnded; report++) {
      await attacker.report(pairs, { timeMs: fromMs + report * 100 });
    }
  }),
  agentAttack('evil-schemas', 'schemas', 'schemas to fill the memory', async (attacker) => {
    await attacker.begin();
    for (let source = 1; source < 60 && !attacker.isEnded; source++) {
      await attacker.send(beginOf({ epoch: 1, source, name: `s${source}`, intervalMs: 100 }));
      const labelNames = counted(30, 'l');
      const values = counted(1000, `${source}-`).flatMap((i) => [i, ...Array<string>(29).fill('')]);
      await attacker.declare({ ...gauge, labelNames }, values, source);
    }
  }),
  agentAttack('evil-churn', 'series', '20 000 new series ten times a second', async (attacker) => {
    for (let round = 0; !attacker.isEnded && round < 1000; round++) {
      await attacker.begin();
      await attacker.declare(gauge, counted(20_000, `${Math.random()}-`));
      await attacker.report([0, 1]);
      await sleep(100);
    }
  }),
  agentAttack(
    'evil-times',
    'series',
    '20 000 new series again and again, between reports of 1970',
    async (attacker) => {
      let oldMs = 0;
      for (let round = 0; !attacker.isEnded && round < 100; round++) {
        await attacker.begin();
        await attacker.declare(gauge, counted(20_000, `${Math.random()}-`));
        oldMs += 32 * 60_000;
        await attacker.report([0, 1], { timeMs: oldMs });
        await attacker.report([0, 1]);
        await sleep(100);
      }
    },
  ),
  agentAttack('evil-renames', 'schemas', 'a source that is renamed again and again', async (attacker) => {
    await attacker.begin();
    for (let round = 0; !attacker.isEnded && round < 10_000; round++) {
      const name = `${'n'.repeat(50)}-${round}`;
      await attacker.send(beginOf({ epoch: 1, source: 1, name, intervalMs: 100 }));
    }
  }),
  agentAttack('evil-pace', 'reports', 'reports as fast as the line takes them', async (attacker) => {
    await attacker.begin();
    await attacker.declare(gauge, counted(10));
    const fromMs = Date.now() - 60_000;
    for (let report = 0; report < 60_000 && !attacker.isEnded; report++) {
      await attacker.report([0, report], { timeMs: fromMs + report });
    }
  }),
  {
    ...{ what: 'connections of an agent that end as soon as they are welcome', agent: undefined, budget: undefined },
    async run(target) {
      for (;;) {
        const attacker = new Attacker(target, 'evil-redials');
        await attacker.begin();
        attacker.end();
        await sleep(1);
      }
    },
  },
  httpAttack('connections that ask for /-/healthy, close, and come again', (target) => {
    const again = () => {
      const socket = request(target, '/-/healthy');
      socket.once('data', () => socket.end());
      socket.once('close', () => setTimeout(again, 5));
    };
    for (let client = 0; client < 8; client++) again();
  }),
  httpAttack('40 large answers that nobody reads', (target) => {
    for (const i of counted(40)) {
      const query = `scraper=unread-${i}&max=10000000`;
      request(target, `/metrics?${query}`, 'X-Prometheus-Scrape-Timeout-Seconds: 3600\r\n').pause();
    }
  }),
  httpAttack('600 connections that rest', (target) => {
    for (let connection = 0; connection < 600; connection++) request(target, '/-/healthy').resume();
  }),
  httpAttack('60 clients that ask for /metrics all the time', (target) => {
    for (let client = 0; client < 60; client++) {
      const socket = request(target, '/metrics');
      socket.on('data', (chunk: Buffer) => {
        if (chunk.subarray(-5).toString('latin1') === '0\r\n\r\n') socket.write(requestText('/metrics'));
      });
    }
  }),
];

const requestText = (path: string, headers = ''): string =>
  `GET ${path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: Prometheus/3.5.0\r\n${headers}\r\n`;

/** From an address of its own, as a host of its own would. */
function request({ webPort }: Target, path: string, headers = ''): Socket {
  const socket = createConnection({ port: webPort, host: '127.0.0.1', localAddress: '127.0.0.66' });
  socket.on('error', () => {}); // it is refused, or cut off
  socket.write(requestText(path, headers));
  return socket;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [what, target] = process.argv.slice(2);
  process.on('disconnect', () => process.exit(0));
  process.send!('begun');
  await attacks.find((attack) => attack.what === what)!.run(JSON.parse(target!) as Target);
}
