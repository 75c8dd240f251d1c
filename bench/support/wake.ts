/**
 * The least that an agent can cost in Node.js: it wakes at multiples of its interval, reads files that stay open, sends some
 * bytes by TLS, and writes as many to disk, with a sync each 10 s. Arguments: the port on the loopback, the interval in ms, the
 * bytes, the file to write, and a file with the list of files to read, as JSON.
 */
import { fdatasyncSync, openSync, readFileSync, readSync, writeSync } from 'node:fs';
import { connect } from 'node:tls';
import { tlsParameters } from '../../src/runtime/tls.ts';
import { wakePsk } from './wake-sink.ts';

const [port, intervalMs, bytes] = process.argv.slice(2, 5).map(Number) as [number, number, number];
const [spoolPath, listPath] = process.argv.slice(5) as [string, string];
const files = (JSON.parse(readFileSync(listPath, 'utf8')) as string[]).flatMap((path) => {
  try {
    return [openSync(path, 'r')];
  } catch {
    // It has gone meanwhile.
    return [];
  }
});
const spool = openSync(spoolPath, 'a');
const buffer = Buffer.alloc(64 * 1024);
const report = Buffer.alloc(bytes, 1);
const socket = connect({
  ...{ host: '127.0.0.1', port, ...tlsParameters },
  pskCallback: () => wakePsk,
  checkServerIdentity: () => undefined,
});
socket.resume();
const syncEvery = Math.max(1, Math.round(10_000 / intervalMs));

function wake(round: number): void {
  for (const fd of files) read(fd);
  socket.write(report);
  writeSync(spool, report);
  if (round % syncEvery === 0) fdatasyncSync(spool);
  setTimeout(() => wake(round + 1), intervalMs - (Date.now() % intervalMs));
}

function read(fd: number): void {
  try {
    readSync(fd, buffer, 0, buffer.length, 0);
  } catch {
    // Some have no value.
  }
}

setTimeout(() => wake(1), intervalMs - (Date.now() % intervalMs));
