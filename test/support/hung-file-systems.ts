// Runs as root in a mount namespace of its own (test/e2e/hung-devices.long.test.ts): mounts file systems whose server hangs.
// It answers the kernel's first question and then nothing, whoever asks. How much of the rest it takes is the first argument:
// `deaf`, nothing; `mute`, every question; `once` ends as soon as it has mounted. A thread whose question was taken cannot be
// killed, also not by SIGKILL. The other arguments are the mount points. https://docs.kernel.org/filesystems/fuse/fuse.html
//     fuse_in_header   length u32, opcode u32, unique u64, node u64, uid, gid, pid, padding
//     fuse_out_header  length u32, error i32, unique u64
//     fuse_init_out    major u32, minor u32, max_readahead, flags, …: 64 bytes
import { spawnSync } from 'node:child_process';
import { openSync, read, readSync, writeSync } from 'node:fs';

const [kind, ...mountPoints] = process.argv.slice(2);
const opcodeInit = 26;
const outHeaderBytes = 16;
const initBytes = 64;
// The kernel refuses to read into less than a header and the most that may be written at a time.
const question = Buffer.alloc(256 * 1024);

for (const mountPoint of mountPoints) {
  const device = openSync('/dev/fuse', 'r+');
  const options = 'fd=3,rootmode=40000,user_id=0,group_id=0';
  const { status, stderr } = spawnSync('mount', ['-i', '-t', 'fuse', '-o', options, 'hung', mountPoint], {
    stdio: ['ignore', 'ignore', 'pipe', device],
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(`cannot mount at '${mountPoint}': ${stderr}`);
  answerInit(device);
  if (kind === 'mute') takeAll(device);
}
console.log(`mounted ${mountPoints.length}`);
if (kind !== 'once') setInterval(() => {}, 1 << 30);

function answerInit(device: number): void {
  readSync(device, question);
  const opcode = question.readUInt32LE(4);
  if (opcode !== opcodeInit) throw new Error(`the first question is ${opcode}, expected ${opcodeInit}`);
  const answer = Buffer.alloc(outHeaderBytes + initBytes);
  answer.writeUInt32LE(answer.length, 0);
  question.copy(answer, 8, 8, 16);
  answer.writeUInt32LE(7, outHeaderBytes);
  answer.writeUInt32LE(31, outHeaderBytes + 4);
  // max_write
  answer.writeUInt32LE(4096, outHeaderBytes + 20);
  writeSync(device, answer);
}

function takeAll(device: number): void {
  read(device, Buffer.alloc(question.length), 0, question.length, null, (error) => {
    if (error === null) takeAll(device);
  });
}
