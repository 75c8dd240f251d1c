import { fstatSync, readFileSync, statSync } from 'node:fs';
import type { ReadStream } from 'node:tty';
import { UsageError } from '../../runtime/options.ts';
import { reasonOf } from '../../runtime/words.ts';
import { JoinError } from './error.ts';

/** The text in which the join line is, and what a person should know of where it came from. */
export interface JoinInput {
  readonly text: string;
  readonly notices: readonly string[];
}

export function readJoinFile(path: string): JoinInput {
  try {
    const text = decoded(readFileSync(path));
    const isOpen = (statSync(path).mode & 0o077) !== 0;
    const others = isOpen ? ', and others on this host may read it' : '';
    return { text, notices: [`'${path}' holds the key${others}: delete it`] };
  } catch (error) {
    throw new UsageError(`--join-file: '${path}' cannot be read: ${reasonOf(error)}`);
  }
}

/**
 * Standard input that is no terminal, up to the end of a join line or of the input. With `waitMs` it need not come: the
 * text is empty where nothing has come by then.
 */
export async function readPipe(input: NodeJS.ReadStream, options: { readonly waitMs?: number } = {}): Promise<string> {
  const { waitMs } = options;
  const chunks: Buffer[] = [];
  let bytes = 0;
  const overdue =
    waitMs === undefined ? undefined : setTimeout(() => void (bytes === 0 && input.destroy(new NothingCame())), waitMs);
  try {
    for await (const chunk of input as AsyncIterable<Buffer>) {
      chunks.push(chunk);
      bytes += chunk.length;
      if (bytes > inputBytesMax)
        throw new UsageError(`the input is longer than ${inputBytesMax} bytes: expected a line`);
      // Its sender may keep its end open.
      if (/^\s*sysmon-join-.*\n/m.test(decoded(Buffer.concat(chunks)))) break;
    }
  } catch (error) {
    if (!(error instanceof NothingCame)) throw error;
  } finally {
    clearTimeout(overdue);
    input.destroy();
  }
  return decoded(Buffer.concat(chunks));
}

class NothingCame extends Error {}

/** Whether somebody may still write to standard input: a pipe or a socket, as opposed to a terminal or a file. */
export function isPipe(fd: number): boolean {
  const stat = fstatSync(fd);
  return stat.isFIFO() || stat.isSocket();
}

/**
 * Asks at a terminal, without an echo, since the line holds a key. However it ends, the terminal is as it was: also at
 * Ctrl-C, which is a JoinError `interrupted`.
 */
export function ask(terminal: ReadStream, question: string, print: (text: string) => void): Promise<string> {
  print(question);
  terminal.setRawMode(true);
  terminal.setEncoding('utf8');
  return new Promise<string>((resolve, reject) => {
    let text = '';
    terminal.on('data', (typed: string) => {
      for (const character of typed) {
        if (character === '\u0003') return reject(new JoinError('interrupted', 'interrupted'));
        // An empty line is not the end: the one that was pasted may follow it.
        if (/[\r\n\u0004]/.test(character) && (text.trim() !== '' || character === '\u0004')) {
          return resolve(text.replace(escapes, ''));
        }
        text = editedBy(character, text);
        if (text.length > inputBytesMax) return reject(new UsageError('the line is too long'));
      }
    });
    terminal.on('end', () => resolve(text));
    terminal.on('error', reject);
  }).finally(() => {
    terminal.setRawMode(false);
    terminal.destroy();
    print('\n');
  });
}

/** As a terminal does it: backspace, and Ctrl-U for the whole line. */
function editedBy(character: string, text: string): string {
  if (character === '\u007f' || character === '\b') return text.slice(0, -1);
  return character === '\u0015' ? '' : text + character;
}

// Of arrow keys, and of terminals that mark what is pasted.
const escapes = /\u001b\[[0-9;]*[~A-Za-z]/g;

/** UTF-8, or the UTF-16 that Windows writes to files. */
function decoded(bytes: Buffer): string {
  return bytes.toString(bytes[0] === 0xff && bytes[1] === 0xfe ? 'utf16le' : 'utf8');
}

const inputBytesMax = 64 * 1024;
