import type { Log } from '../../src/runtime/log.ts';
import type { Random } from '../support/random.ts';
import type { Process } from './machine.ts';
import type { Timeline } from './timeline.ts';

/** What every node sees of the world that it is in. */
export interface Surroundings {
  readonly timeline: Timeline;
  random(name: string): Random;
  logOf(process: Process): Log;
  trace(line: string): void;
  /** Something that must never happen has happened. */
  violated(what: string): void;
  crashed(process: Process, error: unknown): void;
}
