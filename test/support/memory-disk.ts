import type { SpoolDisk } from '../../src/agent/spool/mirror.ts';

interface MemoryFile {
  bytes: Buffer;
  /** What a power cut leaves; undefined: nothing, not even the name. */
  synced: Buffer | undefined;
}

/** A folder in memory that can be full, refuse to work, and lose what was not synced. */
export class MemoryDisk implements SpoolDisk {
  readonly path = '/spool';
  readonly #files = new Map<string, MemoryFile>();
  /** All files together take no more than this. */
  bytesMax = Number.POSITIVE_INFINITY;
  /** Every call of this kind throws. */
  readonly broken = new Set<'list' | 'read' | 'write' | 'truncate' | 'sync' | 'remove'>();
  syncCount = 0;

  get bytes(): number {
    let bytes = 0;
    for (const file of this.#files.values()) bytes += file.bytes.length;
    return bytes;
  }

  list(): readonly string[] {
    this.#fail('list');
    return [...this.#files.keys()];
  }

  read(name: string): Uint8Array {
    this.#fail('read');
    return Buffer.from(this.#file(name).bytes);
  }

  write(name: string, position: number, bytes: Uint8Array): void {
    this.#fail('write');
    const file = this.#files.get(name) ?? { bytes: Buffer.alloc(0), synced: undefined };
    if (position > file.bytes.length) throw new Error(`a hole in '${name}' at ${file.bytes.length}`);
    const growth = Math.max(0, position + bytes.length - file.bytes.length);
    // A full disk takes what fits, as the real one does.
    const taken = bytes.subarray(0, bytes.length - Math.max(0, growth - Math.max(0, this.bytesMax - this.bytes)));
    const length = Math.max(file.bytes.length, position + taken.length);
    const grown = Buffer.concat([file.bytes, Buffer.alloc(length - file.bytes.length)]);
    grown.set(taken, position);
    file.bytes = grown;
    this.#files.set(name, file);
    if (taken.length < bytes.length)
      throw Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' });
  }

  truncate(name: string, bytes: number): void {
    this.#fail('truncate');
    const file = this.#file(name);
    file.bytes = file.bytes.subarray(0, bytes);
  }

  sync(name: string): void {
    this.#fail('sync');
    const file = this.#file(name);
    file.synced = Buffer.from(file.bytes);
    this.syncCount++;
  }

  remove(name: string): void {
    this.#fail('remove');
    this.#files.delete(name);
  }

  /** Puts a file there, or other bytes into it. */
  put(name: string, bytes: Uint8Array): void {
    this.#files.set(name, { bytes: Buffer.from(bytes), synced: Buffer.from(bytes) });
  }

  /** The power goes: of each file what was synced is left, and of what was not as many bytes as `keep` says. */
  cutPower(keep: (unsyncedBytes: number) => number = () => 0): void {
    for (const [name, file] of this.#files) {
      const safe = file.synced?.length ?? 0;
      const left = safe + keep(Math.max(0, file.bytes.length - safe));
      if (file.synced === undefined && left === 0) this.#files.delete(name);
      else file.bytes = Buffer.concat([file.synced ?? Buffer.alloc(0), file.bytes.subarray(safe, left)]);
    }
  }

  #file(name: string): MemoryFile {
    const file = this.#files.get(name);
    if (file === undefined) throw Object.assign(new Error(`ENOENT: no such file '${name}'`), { code: 'ENOENT' });
    return file;
  }

  #fail(kind: 'list' | 'read' | 'write' | 'truncate' | 'sync' | 'remove'): void {
    if (this.broken.has(kind)) throw Object.assign(new Error(`EIO: i/o error, ${kind}`), { code: 'EIO' });
  }
}
