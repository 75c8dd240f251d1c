import type { SpoolDisk } from '../../src/agent/spool/mirror.ts';
import type { StateDisk } from '../../src/server/delivery/state-file.ts';
import type { Process } from './machine.ts';
import type { Random } from './random.ts';

interface File {
  bytes: Buffer;
  length: number;
  /** Up to here a power cut leaves it; undefined: not even its name. */
  syncedLength: number | undefined;
}

/** A folder of an agent's host. It outlives its processes. */
export class SpoolVolume {
  readonly #files = new Map<string, File>();
  /** All files together. */
  #bytesMax = Number.POSITIVE_INFINITY;
  /** Every write, sync and removal fails. */
  #isBroken = false;
  #faultSinceMs: number | undefined;
  #healedMs = Number.NEGATIVE_INFINITY;

  /** Full where there is room for so many bytes more; broken where that is undefined. */
  fault(nowMs: number, roomBytes: number | undefined): void {
    this.#faultSinceMs = this.badSinceMs(nowMs) ?? nowMs;
    this.#healedMs = Number.POSITIVE_INFINITY;
    if (roomBytes === undefined) this.#isBroken = true;
    else this.#bytesMax = this.bytes + roomBytes;
  }

  heal(nowMs: number): void {
    this.#isBroken = false;
    this.#bytesMax = Number.POSITIVE_INFINITY;
    this.#healedMs = nowMs;
  }

  /** Since when this folder may lack what its spool holds, until the spool has tried again. */
  badSinceMs(nowMs: number): number | undefined {
    return nowMs < this.#healedMs + retriedWithinMs ? this.#faultSinceMs : undefined;
  }

  get bytes(): number {
    let bytes = 0;
    for (const { length } of this.#files.values()) bytes += length;
    return bytes;
  }

  /** The folder as a process has it: a dead one's hands do nothing. */
  openBy(process: Process): SpoolDisk {
    const whileAlive = <A extends unknown[], R>(call: (...arguments_: A) => R): ((...arguments_: A) => R) => {
      return (...arguments_) => {
        if (!process.isAlive) throw new Error('simulation: a process that has ended touches its disk');
        return call(...arguments_);
      };
    };
    return {
      path: '/spool',
      list: whileAlive(() => [...this.#files.keys()]),
      read: whileAlive((name: string) => Buffer.from(this.#file(name).bytes.subarray(0, this.#file(name).length))),
      write: whileAlive((name: string, position: number, bytes: Uint8Array) => this.#write(name, position, bytes)),
      truncate: whileAlive((name: string, length: number) => {
        this.#check();
        const file = this.#file(name);
        file.length = length;
        if (file.syncedLength !== undefined) file.syncedLength = Math.min(file.syncedLength, length);
      }),
      sync: whileAlive((name: string) => {
        this.#check();
        const file = this.#file(name);
        file.syncedLength = file.length;
      }),
      remove: whileAlive((name: string) => {
        this.#check();
        this.#files.delete(name);
      }),
    };
  }

  /**
   * The power goes: what was not synced is there as far as the kernel had written it back, whole, torn, or as zeros.
   * Returns the bytes that are lost.
   */
  cutPower(random: Random): number {
    let lost = 0;
    for (const [name, file] of this.#files) {
      const safe = file.syncedLength ?? 0;
      const kept = random.chance(0.5) ? safe : random.whole(safe, file.length);
      lost += file.length - kept;
      if (file.syncedLength === undefined && kept === 0) {
        this.#files.delete(name);
        continue;
      }
      // The length may have reached the disk before the data.
      const zeros = random.chance(0.2) ? random.whole(0, file.length - kept) : 0;
      file.bytes.fill(0, kept, kept + zeros);
      file.length = kept + zeros;
      file.syncedLength = file.length;
    }
    return lost;
  }

  #write(name: string, position: number, bytes: Uint8Array): void {
    this.#check();
    let file = this.#files.get(name);
    if (file === undefined) {
      file = { bytes: Buffer.alloc(256), length: 0, syncedLength: undefined };
      this.#files.set(name, file);
    }
    if (position > file.length) throw new Error(`simulation: a hole in '${name}' at ${file.length}`);
    const growth = Math.max(0, position + bytes.length - file.length);
    const room = Math.max(0, this.#bytesMax - this.bytes);
    // A full disk takes what fits, as the real one does.
    const taken = bytes.subarray(0, bytes.length - Math.max(0, growth - room));
    const end = position + taken.length;
    if (end > file.bytes.length) {
      const grown = Buffer.alloc(Math.max(end, file.bytes.length * 2));
      file.bytes.copy(grown, 0, 0, file.length);
      file.bytes = grown;
    }
    file.bytes.set(taken, position);
    file.length = Math.max(file.length, end);
    // What is written over is as unsafe as what is new.
    if (file.syncedLength !== undefined) file.syncedLength = Math.min(file.syncedLength, position);
    if (taken.length < bytes.length) {
      throw Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' });
    }
  }

  #file(name: string): File {
    const file = this.#files.get(name);
    if (file === undefined) throw Object.assign(new Error(`ENOENT: no such file '${name}'`), { code: 'ENOENT' });
    return file;
  }

  #check(): void {
    if (this.#isBroken) throw Object.assign(new Error('EIO: i/o error'), { code: 'EIO' });
  }
}

// The spool tries again every 10 s, when it is written or its housekeeping comes round, which is every 10 s too.
const retriedWithinMs = 25_000;

/** The server's state file: replaced as a whole, after a while; old or new after any end. */
export class StateVolume {
  #text: string | undefined;
  isBroken = false;
  readonly #random: Random;
  /** One write takes a time between these. */
  readonly latencyMs: readonly [number, number] = [1, 30];

  constructor(random: Random) {
    this.#random = random;
  }

  get hasFile(): boolean {
    return this.#text !== undefined;
  }

  openBy(process: Process, onWritten: (startedMs: number) => void): StateDisk {
    return {
      read: () => this.#text,
      write: (text) =>
        new Promise((resolve, reject) => {
          const startedMs = process.timeline.nowMs;
          // Renamed somewhere in between: a process that is killed may leave either.
          const renamedMs = this.#random.between(...this.latencyMs);
          process.timeline.after(renamedMs, () => {
            if (!process.isAlive) return;
            if (!this.isBroken) {
              this.#text = text;
              onWritten(startedMs);
            }
            process.timeline.after(this.#random.between(0.1, 5), () =>
              process.deliver(this, () => {
                if (this.isBroken)
                  reject(Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' }));
                else resolve();
              }),
            );
          });
        }),
    };
  }
}
