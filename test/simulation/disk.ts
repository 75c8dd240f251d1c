import type { SpoolDisk } from '../../src/agent/spool/mirror.ts';
import type { StateDisk } from '../../src/server/delivery/state-file.ts';
import type { Random } from '../support/random.ts';
import type { Process } from './machine.ts';

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
  /** Every change fails. */
  #isBroken = false;
  /** No call is answered. */
  #isStalled = false;
  #stalledCalls: (() => void)[] = [];
  #faultSinceMs: number | undefined;
  #healedMs = Number.NEGATIVE_INFINITY;

  /** Full where there is room for so many bytes more. */
  fault(nowMs: number, kind: 'broken' | 'stalled' | { readonly roomBytes: number }): void {
    this.#faultSinceMs = this.badSinceMs(nowMs) ?? nowMs;
    this.#healedMs = Number.POSITIVE_INFINITY;
    if (kind === 'broken') this.#isBroken = true;
    else if (kind === 'stalled') this.#isStalled = true;
    else this.#bytesMax = this.bytes + kind.roomBytes;
  }

  heal(nowMs: number): void {
    this.#isBroken = false;
    this.#isStalled = false;
    this.#bytesMax = Number.POSITIVE_INFINITY;
    this.#healedMs = nowMs;
    for (const call of this.#stalledCalls.splice(0)) call();
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

  /** The folder as a process has it. Each call takes its time; what a dead one had called for does not happen. */
  openBy(process: Process, random: Random): SpoolDisk {
    const call = <T>(work: () => T): Promise<T> => {
      if (!process.isAlive) throw new Error('simulation: a process that has ended touches its disk');
      const { timeline } = process;
      return new Promise((resolve, reject) => {
        const answer = () => {
          if (!process.isAlive) return;
          const outcome = outcomeOf(work);
          timeline.after(random.between(...latencyMs), () => process.deliver(this, () => outcome(resolve, reject)));
        };
        timeline.after(random.between(...latencyMs), () => {
          if (this.#isStalled) this.#stalledCalls.push(answer);
          else answer();
        });
      });
    };
    const change = (work: () => void): Promise<void> => {
      return call(() => {
        this.#check();
        work();
      });
    };
    return {
      path: '/spool',
      list: () => call(() => [...this.#files.keys()]),
      read: (name) => call(() => Buffer.from(this.#file(name).bytes.subarray(0, this.#file(name).length))),
      write: (name, position, bytes) => change(() => this.#write(name, position, bytes)),
      writeSynced: (name, position, bytes) =>
        change(() => {
          const syncedLength = this.#files.get(name)?.syncedLength ?? 0;
          this.#write(name, position, bytes);
          // Only these bytes: what lies before them may be on disk or not.
          if (position <= syncedLength) {
            this.#file(name).syncedLength = Math.max(syncedLength, position + bytes.length);
          }
        }),
      truncate: (name, length) =>
        change(() => {
          const file = this.#file(name);
          file.length = length;
          if (file.syncedLength !== undefined) file.syncedLength = Math.min(file.syncedLength, length);
        }),
      sync: (name) =>
        change(() => {
          const file = this.#file(name);
          file.syncedLength = file.length;
        }),
      replace: (name, bytes) =>
        change(() => {
          // Another file by the same name: of the old one nothing is left, of the new one all.
          const old = this.#files.get(name);
          this.#files.delete(name);
          try {
            this.#write(name, 0, bytes);
            this.#file(name).syncedLength = bytes.length;
          } catch (error) {
            if (old === undefined) this.#files.delete(name);
            else this.#files.set(name, old);
            throw error;
          }
        }),
      remove: (name) => change(() => void this.#files.delete(name)),
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

/** What a call comes to, for whoever waits for it. */
function outcomeOf<T>(work: () => T): (resolve: (value: T) => void, reject: (reason: unknown) => void) => void {
  try {
    const value = work();
    return (resolve) => resolve(value);
  } catch (error) {
    return (_, reject) => reject(error);
  }
}

// A call, and again its answer.
const latencyMs = [0.05, 4] as const;
// The mirror tries again every 10 s, and syncs every 10 s.
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

  /** The file is gone. */
  lose(): void {
    this.#text = undefined;
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
