import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { compareSync } from 'bcryptjs';

/** A question to the worker, and its answer. */
export interface PasswordQuestion {
  readonly id: number;
  readonly password: string;
  readonly hash: string;
}

export interface PasswordAnswer {
  readonly id: number;
  readonly isRight: boolean;
}

/**
 * A thread that checks passwords: a check takes a tenth of a second or more of CPU. It runs this file, or the bundle that
 * this file is part of; see main.ts.
 */
export function startPasswordWorker(): Worker {
  const worker = new Worker(new URL(import.meta.url), { workerData: passwordWork, argv: [], env: {}, execArgv: [] });
  worker.unref();
  return worker;
}

const passwordWork = 'sysmon passwords';

if (!isMainThread && workerData === passwordWork) {
  parentPort?.on('message', ({ id, password, hash }: PasswordQuestion) => {
    parentPort?.postMessage({ id, isRight: compareSync(password, hash) } satisfies PasswordAnswer);
  });
}
