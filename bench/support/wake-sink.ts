import { once } from 'node:events';
import { readdirSync, readlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createServer } from 'node:tls';
import { fileURLToPath } from 'node:url';
import { tlsParameters } from '../../src/runtime/tls.ts';
import type { Workshop } from './processes.ts';

export const wakePsk = { identity: 'wake', psk: Buffer.alloc(32, 0x5a) };

const program = fileURLToPath(new URL('wake.js', import.meta.url));

/** Starts wake.ts, which reads what an agent has open and sends as many bytes. Returns its process. */
export async function startWake(
  workshop: Workshop,
  agentPid: number,
  {
    intervalMs,
    bytes,
    flags,
  }: { readonly intervalMs: number; readonly bytes: number; readonly flags: readonly string[] },
): Promise<{ readonly pid: number; readonly files: number; readonly close: () => void }> {
  const files = filesOf(agentPid);
  const list = join(workshop.folder, 'wake.json');
  writeFileSync(list, JSON.stringify(files));
  const sink = createServer({ ...tlsParameters, pskCallback: () => wakePsk.psk }, (socket) => socket.resume());
  sink.listen(0, '127.0.0.1');
  await once(sink, 'listening');
  const address = sink.address();
  if (address === null || typeof address === 'string') throw new Error('a listening server has a port');
  const numbers = [address.port, intervalMs, bytes].map(String);
  const pid = workshop.start(process.execPath, [...flags, program, ...numbers, join(workshop.folder, 'wake'), list]);
  return { pid, files: files.length, close: () => sink.close() };
}

/** The files of the kernel, or of a tree in their place, that a process has open. */
function filesOf(pid: number): string[] {
  const folder = `/proc/${pid}/fd`;
  return readdirSync(folder)
    .map((fd) => {
      try {
        return readlinkSync(join(folder, fd));
      } catch {
        return '';
      }
    })
    .filter((path) => /\/(proc|sys)\//.test(path) && !path.endsWith(' (deleted)'));
}
