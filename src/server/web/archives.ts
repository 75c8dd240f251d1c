import { createHash } from 'node:crypto';
import { constants, createReadStream, lstatSync, readdirSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import type { ServerResponse } from 'node:http';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { fileURLToPath } from 'node:url';
import type { Clock, Timer } from '../../runtime/clock.ts';
import { codeOf } from '../../runtime/words.ts';

/** A release that hosts can fetch from this server. */
export interface Archive {
  /** `sysmon-0.1.0-linux-x64.tar.gz` */
  readonly file: string;
  readonly path: string;
  /** As Node calls it: `x64` or `arm64`. */
  readonly architecture: string;
}

/** Beside the program, where install.sh and the package sysmon-agent-archives put them. */
export const archiveFolder = fileURLToPath(new URL('install/', import.meta.url));

/** The releases in a folder, by name; none where there is no folder. Nothing else in it is ever given away. */
export function archivesIn(folder: string): readonly Archive[] {
  let files: string[];
  try {
    files = readdirSync(folder).sort();
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes(codeOf(error))) return [];
    throw error;
  }
  return files.flatMap((file) => {
    const path = join(folder, file);
    const [, architecture] = archiveName.exec(file) ?? [];
    return architecture === undefined || !lstatSync(path).isFile() ? [] : [{ file, path, architecture }];
  });
}

const archiveName = /^sysmon-[0-9A-Za-z.-]{1,64}-linux-(x64|arm64)\.tar\.gz$/;

/** In hexadecimal digits. */
export async function sha256Of({ path }: Archive): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path), hash);
  return hash.digest('hex');
}

export interface ArchiveRequest {
  /** What follows `/install/`. */
  readonly file: string;
  readonly method: string;
  /** The client's address, or its /64. */
  readonly owner: string;
}

/**
 * Sends the releases that are in a folder when they are asked for, a few at a time: each takes a file and a buffer while it
 * is under way. A client that takes nothing for half a minute is cut off.
 */
export class ArchiveSender {
  readonly #clock: Clock;
  readonly #folder: string | undefined;
  /** The owner of each that is being sent. */
  readonly #underWay: string[] = [];

  /** Without a folder it has none. */
  constructor(folder: string | undefined, clock: Clock) {
    this.#clock = clock;
    this.#folder = folder;
  }

  /** Sends it whole, or cuts the connection off; a number is the status with which to refuse. */
  async send({ file, method, owner }: ArchiveRequest, response: ServerResponse): Promise<'sent' | 404 | 503> {
    if (this.#folder === undefined || !archiveName.test(file)) return 404;
    const own = this.#underWay.filter((each) => each === owner).length;
    if (this.#underWay.length >= underWayMax || own >= underWayOfOneMax) return 503;
    this.#underWay.push(owner);
    try {
      return await this.#sendFile(join(this.#folder, file), response, method === 'HEAD');
    } finally {
      this.#underWay.splice(this.#underWay.indexOf(owner), 1);
    }
  }

  async #sendFile(path: string, response: ServerResponse, isHead: boolean): Promise<'sent' | 404> {
    let file: FileHandle;
    try {
      file = await open(path, asItIs);
    } catch {
      // There is none, it is a link, or the user of the server may not read it.
      return 404;
    }
    try {
      const stat = await file.stat();
      if (!stat.isFile()) return 404;
      const { size } = stat;
      response.writeHead(200, { 'Content-Type': 'application/gzip', 'Content-Length': size });
      if (isHead) response.end();
      else await this.#stream(file.createReadStream({ autoClose: false, highWaterMark: chunkBytes }), response);
      return 'sent';
    } finally {
      await file.close();
    }
  }

  async #stream(from: NodeJS.ReadableStream, response: ServerResponse): Promise<void> {
    const { socket } = response;
    let taken = 0;
    let watch: Timer;
    const look = () => {
      const now = socket?.bytesWritten ?? 0;
      if (now === taken) return void socket?.destroy();
      taken = now;
      watch = this.#clock.after(idleMsMax, look);
    };
    watch = this.#clock.after(idleMsMax, look);
    try {
      await pipeline(from, response);
    } catch {
      // The client has disconnected, or the disk has failed: either way it has less than the length that it was given.
      socket?.destroy();
    } finally {
      watch.cancel();
    }
  }
}

// No link is followed, and a FIFO is not waited for.
const asItIs = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
const chunkBytes = 256 * 1024;
const underWayMax = 8;
const underWayOfOneMax = 2;
const idleMsMax = 30_000;
