import type { SpoolDisk } from '../../src/agent/spool/mirror.ts';

interface MemoryFile {
  bytes: Buffer;
  /** What a power cut leaves; undefined: nothing, not even the name. */
  safe: Buffer | undefined;
  /** What the kernel has not written to the disk yet. */
  dirty: { from: number; to: number } | undefined;
}

export type Call = 'list' | 'read' | 'write' | 'writeSynced' | 'truncate' | 'sync' | 'replace' | 'remove';

/** A folder in memory that can be full, refuse to work, not answer, and lose what was not synced. */
export class MemoryDisk implements SpoolDisk {
  readonly path = '/spool';
  readonly #files = new Map<string, MemoryFile>();
  /** All files together take no more than this. */
  bytesMax = Number.POSITIVE_INFINITY;
  /** Every call of this kind throws. */
  readonly broken = new Set<Call>();
  /** Every call of this kind waits until it is taken out by `goOn`. */
  readonly #stalled = new Set<Call>();
  #waiting: (() => void)[] = [];
  #underWay = 0;
  /** The most calls that were under way at one time. */
  underWayMax = 0;
  readonly callCounts: Record<Call, number> = {
    ...{ list: 0, read: 0, write: 0, writeSynced: 0, truncate: 0, sync: 0, replace: 0, remove: 0 },
  };

  get names(): string[] {
    return [...this.#files.keys()].sort();
  }

  get bytes(): number {
    let bytes = 0;
    for (const file of this.#files.values()) bytes += file.bytes.length;
    return bytes;
  }

  /** Calls after which something is safe from a power cut. */
  get syncCount(): number {
    return this.callCounts.sync + this.callCounts.writeSynced;
  }

  bytesOf(name: string): Buffer {
    return Buffer.from(this.#file(name).bytes);
  }

  stall(...calls: Call[]): void {
    for (const call of calls) this.#stalled.add(call);
  }

  /** What was called meanwhile is done now. */
  goOn(): void {
    this.#stalled.clear();
    for (const wake of this.#waiting.splice(0)) wake();
  }

  list(): Promise<readonly string[]> {
    return this.#call('list', () => this.names);
  }

  read(name: string): Promise<Uint8Array> {
    return this.#call('read', () => this.bytesOf(name));
  }

  write(name: string, position: number, bytes: Uint8Array): Promise<void> {
    return this.#call('write', () => this.#write(name, position, bytes));
  }

  writeSynced(name: string, position: number, bytes: Uint8Array): Promise<void> {
    const done = () => {
      this.#write(name, position, bytes);
      const file = this.#file(name);
      const safe = Buffer.alloc(Math.max(file.safe?.length ?? 0, position + bytes.length));
      safe.set(file.safe ?? Buffer.alloc(0));
      // Only these: what was written before and lies elsewhere is as unsafe as it was.
      safe.set(bytes, position);
      file.safe = safe;
    };
    // As a sync that fails: the pages never reach the disk.
    const failed = () => {
      this.#write(name, position, bytes);
      this.#file(name).dirty = undefined;
    };
    return this.#call('writeSynced', done, failed);
  }

  truncate(name: string, bytes: number): Promise<void> {
    return this.#call('truncate', () => {
      const file = this.#file(name);
      file.bytes = file.bytes.subarray(0, bytes);
    });
  }

  async sync(name: string): Promise<void> {
    const file = this.#file(name);
    try {
      await this.#call('sync', () => {
        const safe = Buffer.alloc(file.bytes.length);
        safe.set((file.safe ?? Buffer.alloc(0)).subarray(0, safe.length));
        if (file.dirty !== undefined) safe.set(file.bytes.subarray(file.dirty.from, file.dirty.to), file.dirty.from);
        file.safe = safe;
      });
    } finally {
      // Also where it fails: Linux calls the pages clean then, although they never reached the disk, and the next sync
      // succeeds without them. https://wiki.postgresql.org/wiki/Fsync_Errors
      file.dirty = undefined;
    }
  }

  replace(name: string, bytes: Uint8Array): Promise<void> {
    return this.#call('replace', () => this.put(name, bytes));
  }

  remove(name: string): Promise<void> {
    return this.#call('remove', () => void this.#files.delete(name));
  }

  /** Puts a file there, or other bytes into it. */
  put(name: string, bytes: Uint8Array): void {
    this.#files.set(name, { bytes: Buffer.from(bytes), safe: Buffer.from(bytes), dirty: undefined });
  }

  /** The power goes: of each file what was synced is left, and of what was not as many bytes as `keep` says. */
  cutPower(keep: (unsyncedBytes: number) => number = () => 0): void {
    for (const [name, file] of this.#files) {
      const safe = file.safe ?? Buffer.alloc(0);
      const kept = file.bytes.subarray(safe.length, safe.length + keep(Math.max(0, file.bytes.length - safe.length)));
      if (file.safe === undefined && kept.length === 0) this.#files.delete(name);
      else file.bytes = Buffer.concat([safe, kept]);
      file.dirty = undefined;
    }
  }

  /** As it is now, for another process. */
  copy(): MemoryDisk {
    const copy = new MemoryDisk();
    for (const [name, { bytes }] of this.#files) copy.put(name, bytes);
    return copy;
  }

  async #call<T>(call: Call, work: () => T, failed: () => void = () => {}): Promise<T> {
    this.callCounts[call]++;
    this.underWayMax = Math.max(this.underWayMax, ++this.#underWay);
    try {
      // Never at once: nobody may count on that.
      await Promise.resolve();
      while (this.#stalled.has(call)) await new Promise<void>((resolve) => this.#waiting.push(resolve));
      if (!this.broken.has(call)) return work();
      failed();
      throw Object.assign(new Error(`EIO: i/o error, ${call}`), { code: 'EIO' });
    } finally {
      this.#underWay--;
    }
  }

  #write(name: string, position: number, bytes: Uint8Array): void {
    const file = this.#files.get(name) ?? { bytes: Buffer.alloc(0), safe: undefined, dirty: undefined };
    if (position > file.bytes.length) throw new Error(`a hole in '${name}' at ${file.bytes.length}`);
    const growth = Math.max(0, position + bytes.length - file.bytes.length);
    // A full disk takes what fits, as the real one does.
    const taken = bytes.subarray(0, bytes.length - Math.max(0, growth - Math.max(0, this.bytesMax - this.bytes)));
    const to = position + taken.length;
    const length = Math.max(file.bytes.length, to);
    const grown = Buffer.concat([file.bytes, Buffer.alloc(length - file.bytes.length)]);
    grown.set(taken, position);
    file.bytes = grown;
    const { dirty } = file;
    file.dirty = { from: Math.min(position, dirty?.from ?? position), to: Math.max(to, dirty?.to ?? to) };
    this.#files.set(name, file);
    if (taken.length < bytes.length)
      throw Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' });
  }

  #file(name: string): MemoryFile {
    const file = this.#files.get(name);
    if (file === undefined) throw Object.assign(new Error(`ENOENT: no such file '${name}'`), { code: 'ENOENT' });
    return file;
  }
}
