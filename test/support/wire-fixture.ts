import { readFileSync } from 'node:fs';
import { hex, join } from './messagepack.ts';

/** One frame of a recorded connection: who sent it, what it is, and all of its bytes. */
export interface RecordedFrame {
  readonly from: 'agent' | 'server';
  readonly title: string;
  readonly frame: Uint8Array;
}

export const wireFixtureText = readFileSync(new URL('../../../test/fixtures/wire/v1.hex', import.meta.url), 'utf8');

/**
 * A connection as `test/fixtures/wire/*.hex` has it: a line `> title` for a frame of the agent, `< title` for one of the
 * server, then its bytes in hex; a semicolon begins a comment.
 */
export function parseWireFixture(text: string): RecordedFrame[] {
  const frames: RecordedFrame[] = [];
  for (const line of text.split('\n')) {
    const title = /^[<>] (.*)$/.exec(line);
    if (title !== null) {
      frames.push({ from: line.startsWith('>') ? 'agent' : 'server', title: title[1]!, frame: new Uint8Array(0) });
      continue;
    }
    const bytes = hex(line.split(';')[0]!);
    const last = frames.at(-1);
    if (last !== undefined) frames[frames.length - 1] = { ...last, frame: join(last.frame, bytes) };
    else if (bytes.length > 0) throw new Error(`wire fixture: bytes before the first frame: ${line}`);
  }
  return frames;
}
