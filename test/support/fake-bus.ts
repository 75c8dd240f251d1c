import { mkdirSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';
import { type BusMessage, type BusValue, MessageDecoder } from '../../src/agent/collect/bus/message.ts';

/** A value with its type, as `['s', 'text']`, `['a(su)', [['a', 1]]]`, `['v', ['u', 1]]`. */
export type Typed = readonly [signature: string, value: unknown];

const sizes: Readonly<Record<string, number>> = { y: 1, n: 2, q: 2, b: 4, i: 4, u: 4, x: 8, t: 8, d: 8 };

/** Writes D-Bus values, in either byte order. */
export class BusWriter {
  readonly #isLittle: boolean;
  #bytes: number[] = [];

  constructor(isLittle = true) {
    this.#isLittle = isLittle;
  }

  get bytes(): Buffer {
    return Buffer.from(this.#bytes);
  }

  align(to: number): void {
    while (this.#bytes.length % to !== 0) this.#bytes.push(0);
  }

  raw(bytes: Iterable<number>): void {
    for (const byte of bytes) this.#bytes.push(byte);
  }

  /** Values of a signature of one or more complete types. */
  values(signature: string, values: readonly unknown[]): void {
    for (const [at, type] of completeTypes(signature).entries()) this.value(type, values[at]);
  }

  value(type: string, value: unknown): void {
    const kind = type[0]!;
    const size = sizes[kind];
    if (size !== undefined) return this.#number(kind, size, Number(value));
    switch (kind) {
      case 's':
      case 'o':
        this.#number('u', 4, Buffer.byteLength(String(value)));
        return this.raw([...Buffer.from(String(value)), 0]);
      case 'g':
        return this.raw([Buffer.byteLength(String(value)), ...Buffer.from(String(value)), 0]);
      case 'v': {
        const [signature, inner] = value as Typed;
        this.value('g', signature);
        return this.value(signature, inner);
      }
      case 'a': {
        this.#number('u', 4, 0);
        const lengthAt = this.#bytes.length - 4;
        const element = type.slice(1);
        this.align(
          '({xtd'.includes(element[0]!) ? 8 : element[0] === 'v' || element[0] === 'g' ? 1 : (sizes[element[0]!] ?? 4),
        );
        const start = this.#bytes.length;
        for (const each of value as readonly unknown[]) this.value(element, each);
        const length = new BusWriter(this.#isLittle);
        length.value('u', this.#bytes.length - start);
        this.#bytes.splice(lengthAt, 4, ...length.bytes);
        return;
      }
      default:
        this.align(8);
        this.values(type.slice(1, -1), value as readonly unknown[]);
    }
  }

  #number(kind: string, size: number, value: number): void {
    this.align(size);
    const bytes = Buffer.alloc(size);
    const view = new DataView(bytes.buffer, bytes.byteOffset, size);
    const isLittle = this.#isLittle;
    if (kind === 'd') view.setFloat64(0, value, isLittle);
    else if (size === 8) view.setBigUint64(0, BigInt.asUintN(64, BigInt(value)), isLittle);
    else if (size === 4) view.setUint32(0, value >>> 0, isLittle);
    else if (size === 2) view.setUint16(0, value & 0xffff, isLittle);
    else bytes[0] = value;
    this.raw(bytes);
  }
}

export function completeTypes(signature: string): string[] {
  const types: string[] = [];
  for (let at = 0; at < signature.length; ) {
    const start = at;
    while (signature[at] === 'a') at++;
    let depth = 0;
    do {
      if ('({'.includes(signature[at]!)) depth++;
      if (')}'.includes(signature[at]!)) depth--;
      at++;
    } while (depth > 0);
    types.push(signature.slice(start, at));
  }
  return types;
}

export interface SentMessage {
  readonly type: 'return' | 'error' | 'signal';
  readonly replySerial?: number;
  readonly errorName?: string;
  readonly path?: string;
  readonly interface?: string;
  readonly member?: string;
  readonly signature?: string;
  readonly body?: readonly unknown[];
}

export function encodeMessage(message: SentMessage, isLittle = true): Buffer {
  const { signature = '' } = message;
  const body = new BusWriter(isLittle);
  body.values(signature, message.body ?? []);
  const fields: unknown[] = [];
  const field = (code: number, type: string, value: unknown) =>
    value !== undefined && fields.push([code, [type, value]]);
  field(1, 'o', message.path);
  field(2, 's', message.interface);
  field(3, 's', message.member);
  field(4, 's', message.errorName);
  field(5, 'u', message.replySerial);
  if (signature !== '') field(8, 'g', signature);
  const header = new BusWriter(isLittle);
  header.raw([isLittle ? 0x6c : 0x42, { return: 2, error: 3, signal: 4 }[message.type], 0, 1]);
  header.value('u', body.bytes.length);
  header.value('u', 7);
  header.value('a(yv)', fields);
  header.align(8);
  return Buffer.concat([header.bytes, body.bytes]);
}

export interface FakeUnit {
  readonly load?: string;
  active: string;
  /** NRestarts of a service, LastTriggerUSec of a timer. */
  value?: number;
  readonly type?: string;
}

/** A bus with systemd on it, at a path of the file system. */
export class FakeBus {
  readonly units = new Map<string, FakeUnit>();
  /** `ListUnits`, `Get NRestarts`: how often each was called. */
  readonly calls = new Map<string, number>();
  /** What else it knows: `Get NTPMessage` → the value. */
  readonly more = new Map<string, Typed>();
  connections = 0;
  systemState = 'running';
  /** What it does instead of answering calls. */
  mood: 'well' | 'silent' | 'refuses' | 'garbage' | 'rejects' = 'well';
  readonly #server: Server;
  readonly #path: string;
  readonly #sockets = new Set<Socket>();

  private constructor(path: string) {
    this.#path = path;
    this.#server = createServer((socket) => this.#serve(socket));
  }

  static async listen(path: string): Promise<FakeBus> {
    mkdirSync(dirname(path), { recursive: true });
    const bus = new FakeBus(path);
    await new Promise<void>((resolve) => bus.#server.listen(path, resolve));
    return bus;
  }

  /** The value of a unit changes, and who has subscribed hears of it. */
  change(name: string, value: number): void {
    this.units.get(name)!.value = value;
    const isTimer = name.endsWith('.timer');
    const property = isTimer ? 'LastTriggerUSec' : 'NRestarts';
    this.#send({
      ...{
        type: 'signal',
        path: pathOf(name),
        interface: 'org.freedesktop.DBus.Properties',
        member: 'PropertiesChanged',
      },
      signature: 'sa{sv}as',
      body: [
        isTimer ? 'org.freedesktop.systemd1.Timer' : 'org.freedesktop.systemd1.Service',
        [
          ['Other', ['s', 'x']],
          [property, [isTimer ? 't' : 'u', value]],
        ],
        ['Gone'],
      ],
    });
  }

  hangUp(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  async close(): Promise<void> {
    this.hangUp();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
    rmSync(this.#path, { force: true });
  }

  #serve(socket: Socket): void {
    this.connections++;
    this.#sockets.add(socket);
    socket.on('close', () => this.#sockets.delete(socket));
    socket.on('error', () => {}); // it was hung up
    const decoder = new MessageDecoder();
    let greeting: string | undefined = '';
    socket.on('data', (chunk: Buffer) => {
      if (this.mood === 'silent') return;
      if (greeting === undefined) {
        for (const call of decoder.push(chunk)) this.#answer(socket, call);
        return;
      }
      greeting += chunk.toString('latin1');
      if (greeting === `\0AUTH EXTERNAL ${Buffer.from(String(process.getuid?.())).toString('hex')}\r\n`) {
        socket.write(this.mood === 'rejects' ? 'REJECTED EXTERNAL\r\n' : 'OK 0123456789abcdef0123456789abcdef\r\n');
        return;
      }
      const begin = greeting.indexOf('BEGIN\r\n');
      if (begin < 0) return;
      const rest = Buffer.from(greeting.slice(begin + 7), 'latin1');
      greeting = undefined;
      for (const call of decoder.push(rest)) this.#answer(socket, call);
    });
  }

  #answer(socket: Socket, call: BusMessage): void {
    const what = call.member === 'Get' ? `Get ${call.body[1]}` : call.member!;
    this.calls.set(what, (this.calls.get(what) ?? 0) + 1);
    if (this.mood === 'garbage' && what === 'ListUnits') return void socket.write('l is no message of any kind');
    const [signature, value] = (this.mood === 'refuses' ? undefined : this.#valueOf(what, call)) ?? [];
    socket.write(
      signature === undefined
        ? encodeMessage({
            ...{ type: 'error', replySerial: call.serial, errorName: 'org.freedesktop.DBus.Error.AccessDenied' },
            ...{ signature: 's', body: ['no'] },
          })
        : encodeMessage({ type: 'return', replySerial: call.serial, signature, body: signature === '' ? [] : [value] }),
    );
  }

  #valueOf(what: string, { path }: BusMessage): Typed | undefined {
    const variant = (signature: string, value: BusValue): Typed => ['v', [signature, value]];
    const known = this.more.get(what);
    if (known !== undefined) return known;
    const unit = [...this.units].find(([name]) => pathOf(name) === path)?.[1];
    switch (what) {
      case 'Hello':
        return ['s', ':1.42'];
      case 'Subscribe':
      case 'AddMatch':
        return ['', undefined];
      case 'Get Version':
        return variant('s', '252.39-1~deb12u2');
      case 'Get Virtualization':
        return variant('s', 'kvm');
      case 'Get SystemState':
        return variant('s', this.systemState);
      case 'Get NRestarts':
        return unit && variant('u', unit.value ?? 0);
      case 'Get LastTriggerUSec':
        return unit && variant('t', unit.value ?? 0);
      case 'Get Type':
        return unit && variant('s', unit.type ?? 'simple');
      case 'ListUnits':
        return [
          'a(ssssssouso)',
          [...this.units].map(([name, { load = 'loaded', active }]) => [
            name,
            '',
            load,
            active,
            '',
            '',
            pathOf(name),
            0,
            '',
            '/',
          ]),
        ];
      default:
        return undefined;
    }
  }

  #send(message: SentMessage): void {
    for (const socket of this.#sockets) socket.write(encodeMessage(message));
  }
}

function pathOf(unit: string): string {
  return `/org/freedesktop/systemd1/unit/${unit.replaceAll(/[^A-Za-z0-9]/g, (one) => `_${one.charCodeAt(0).toString(16)}`)}`;
}
