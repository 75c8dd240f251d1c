import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { createInterface } from 'node:readline';
import { isMainThread } from 'node:worker_threads';
import { realClock } from '../runtime/clock.ts';
import { ControlError } from '../runtime/control.ts';
import { FileLockError } from '../runtime/files.ts';
import { systemdLifecycle } from '../runtime/lifecycle.ts';
import { ListenError } from '../runtime/listen.ts';
import { lastWords, stderrIsJournal, stderrLog } from '../runtime/log.ts';
import { helpOrVersion } from '../runtime/option-help.ts';
import { readOptions, UsageError } from '../runtime/options.ts';
import { standardOutput } from '../runtime/standard-output.ts';
import { becomeUnitUser } from '../runtime/unit.ts';
import { version } from '../runtime/version.ts';
import { check } from './check.ts';
import { agents, forgetScraper, revoke, status } from './commands.ts';
import { enroll } from './enroll.ts';
import { RevocationsError } from './ingest/revocations.ts';
import { program } from './options.ts';
import { realNetwork } from './reach.ts';
import { reload } from './reload.ts';
import { RotateError, rotateKey } from './rotate-key.ts';
import { run } from './run.ts';
import { logLevelOf } from './settings.ts';

/** Exit codes: 0 success, 1 failure, 2 wrong usage, 3 `check` found a Prometheus that does not answer or does not suit. */
async function main(): Promise<number> {
  const argv = process.argv.slice(2);
  const out = standardOutput(program.name);
  const help = helpOrVersion(program, version, argv);
  if (help !== undefined) {
    out(help);
    return 0;
  }
  const read = () => readOptions(program, { argv, env: process.env, readFile: (path) => readFileSync(path, 'utf8') });
  const options = read();
  switch (options.command) {
    case 'enroll':
      return enroll(options, {
        network: realNetwork(hostname()),
        architecture: process.arch,
        isTerminal: process.stdout.isTTY,
        out,
        warn: (text) => void process.stderr.write(lastWords(program.name, text, { journal: false })),
      });
    case 'revoke':
      return revoke(options, out);
    case 'rotate-key':
      return rotateKey(options, { out, ask: process.stdin.isTTY ? askPerson : undefined });
    case 'reload':
      return reload(options, out);
    case 'forget-scraper':
      return forgetScraper(options, out);
    case 'agents':
      return agents(options, { nowMs: realClock.nowMs(), out });
    case 'status':
      return status(options, { nowMs: realClock.nowMs(), out });
    case 'check': {
      const unit = becomeUnitUser(program.name);
      if (unit !== undefined)
        out(`looking as the user '${unit.user}', as whom the unit runs
`);
      return check(unit === undefined ? options : read(), { network: realNetwork(hostname()), unit, out });
    }
    default: {
      const log = stderrLog({
        level: logLevelOf(options),
        journal: stderrIsJournal(process.env),
        name: program.name,
      });
      const lifecycle = systemdLifecycle({ clock: realClock, log });
      await run(options, { clock: realClock, log, lifecycle, reread: read });
      return 0;
    }
  }
}

/** A line from the terminal; "" where it ends instead. */
async function askPerson(question: string): Promise<string> {
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  try {
    return await new Promise((resolve) => {
      terminal.once('close', () => resolve(''));
      terminal.question(question, resolve);
    });
  } finally {
    terminal.close();
  }
}

// The thread that checks passwords runs the same file.
if (isMainThread) {
  main().then(
    (code) => {
      process.exitCode = code;
    },
    (error: unknown) => {
      const isUsage = error instanceof UsageError;
      // One line for what a person can correct; anything else is a bug, and needs its stack.
      const isExpected =
        isUsage ||
        error instanceof ListenError ||
        error instanceof ControlError ||
        error instanceof FileLockError ||
        error instanceof RevocationsError ||
        error instanceof RotateError;
      const text = isExpected ? error.message : String((error as Error).stack);
      process.stderr.write(lastWords(program.name, text, { journal: stderrIsJournal(process.env) }));
      process.exit(isUsage ? 2 : 1);
    },
  );
}
