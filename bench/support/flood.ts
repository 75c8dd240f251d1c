import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { connect as connectPlain, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { fileURLToPath } from 'node:url';
import { encodeMessage } from '../../src/protocol/codec.ts';
import { encodeFrame } from '../../src/protocol/frame.ts';
import { tlsParameters } from '../../src/runtime/tls.ts';
import { pingOf } from '../../test/support/groups.ts';
import { pskOf } from './fleet.ts';
import type { Workshop } from './processes.ts';

export interface FloodPlan {
  readonly port: number;
  readonly fleetKeyHex: string;
  /** Connected, and not a byte. */
  readonly idle: number;
  /** A byte a second of what could be a handshake. */
  readonly slow: number;
  /** With keys, asking without end and never reading an answer. */
  readonly mute: number;
}

export interface FloodCounts {
  readonly open: number;
  /** Connections made so far, those in place of others included. */
  readonly made: number;
}

/** A flood in a process of its own, from the loopback to the loopback. Whoever is cut off comes again. */
export class Flood {
  readonly #child: ChildProcess;

  constructor(workshop: Workshop, plan: FloodPlan) {
    this.#child = workshop.adopt(fork(fileURLToPath(import.meta.url), [JSON.stringify(plan)], { execArgv: [] }));
  }

  async counts(): Promise<FloodCounts> {
    const answer = once(this.#child, 'message');
    this.#child.send('counts');
    const [counts] = await answer;
    return counts as FloodCounts;
  }

  end(): void {
    this.#child.kill('SIGKILL');
  }
}

const againMs = 500;
const dripMs = 1000;

function serve(plan: FloodPlan): void {
  let open = 0;
  let made = 0;
  const keepOpen = (dial: () => Socket) => {
    const socket = dial();
    let isOpen = false;
    made++;
    socket.once('connect', () => {
      isOpen = true;
      open++;
    });
    socket.on('error', () => {}); // cut off: `close` follows
    socket.once('close', () => {
      if (isOpen) open--;
      setTimeout(keepOpen, againMs, dial);
    });
  };
  for (let at = 0; at < plan.idle; at++) keepOpen(() => idle(plan));
  for (let at = 0; at < plan.slow; at++) keepOpen(() => slow(plan));
  for (let at = 0; at < plan.mute; at++) keepOpen(() => mute(plan, at));
  process.on('message', () => process.send!({ open, made } satisfies FloodCounts));
  process.on('disconnect', () => process.exit(0));
}

const idle = ({ port }: FloodPlan): Socket => connectPlain(port, '127.0.0.1');

function slow({ port }: FloodPlan): Socket {
  const socket = connectPlain(port, '127.0.0.1');
  // The head of a TLS record of 512 bytes, which then come one by one.
  socket.write(Uint8Array.of(22, 3, 1, 2, 0));
  const drip = setInterval(() => socket.write(Uint8Array.of(0)), dripMs);
  socket.once('close', () => clearInterval(drip));
  return socket;
}

function mute({ port, fleetKeyHex }: FloodPlan, at: number): Socket {
  const agentName = `mute-${at}`;
  const { identity, key } = pskOf(fleetKeyHex, agentName);
  const socket = connectTls({
    ...{ ...tlsParameters, host: '127.0.0.1', port },
    ...{ checkServerIdentity: () => undefined, pskCallback: () => ({ identity, psk: key }) },
  });
  socket.pause();
  socket.write(
    encodeFrame(encodeMessage({ kind: 'hello', version: 1, agentName, hostId: agentName, software: 'flood' })),
  );
  const pings = Buffer.concat(Array.from({ length: 1000 }, (_, nonce) => encodeFrame(encodeMessage(pingOf(nonce)))));
  const ask = () => {
    // Some at a time, so that the others of this process have their turn.
    if (!socket.destroyed && socket.write(pings)) setTimeout(ask, 10);
  };
  socket.on('drain', () => setTimeout(ask, 10));
  socket.once('secureConnect', ask);
  return socket;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) serve(JSON.parse(process.argv[2]!) as FloodPlan);
