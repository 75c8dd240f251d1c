import { codeOf, reasonOf } from './words.ts';

/** Where a command prints. */
export type Out = (text: string) => void;

/**
 * Writes to standard output. Where nobody reads it any more, as behind a pipe into `head`, or where its disk is full, the
 * program ends with 1 and one line.
 */
export function standardOutput(program: string): Out {
  process.stdout.on('error', (error) => {
    const reason = codeOf(error) === 'EPIPE' ? 'whoever reads it has ended' : reasonOf(error);
    process.stderr.write(`${program}: not all of the output was written: ${reason}\n`);
    process.exit(1);
  });
  return (text) => void process.stdout.write(text);
}
