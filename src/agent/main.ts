import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { realClock } from '../runtime/clock.ts';
import { ControlError } from '../runtime/control.ts';
import { leaveProcess, systemdLifecycle } from '../runtime/lifecycle.ts';
import { lastWords, stderrIsJournal, stderrLog } from '../runtime/log.ts';
import { helpOrVersion } from '../runtime/option-help.ts';
import { readOptions, UsageError } from '../runtime/options.ts';
import { standardOutput } from '../runtime/standard-output.ts';
import { becomeUnitUser } from '../runtime/unit.ts';
import { version } from '../runtime/version.ts';
import { poolThreads } from './collect/slow-lane.ts';
import { check, collect, join, reload, status } from './commands.ts';
import { JoinError } from './join/error.ts';
import { program } from './options.ts';
import { run } from './run.ts';
import { logLevelOf } from './settings.ts';
import { SpoolFolderError } from './spool/folder.ts';

/** Exit codes: 0 success, 1 failure, 2 wrong usage. */
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
  const log = stderrLog({ level: logLevelOf(options), journal: stderrIsJournal(process.env), name: program.name });
  const clock = realClock;
  const warn = (text: string) => void process.stderr.write(`${program.name}: ${text}\n`);
  const leave = (reason: string) => {
    warn(reason);
    leaveProcess();
  };
  switch (options.command) {
    case 'collect':
      return collect(options, { clock, log, out, leave });
    case 'check': {
      const unit = becomeUnitUser(program.name);
      if (unit !== undefined) out(`looking as the user '${unit.user}', as whom the unit runs\n`);
      return check(unit === undefined ? options : read(), { clock, hostName: hostname(), unit, out, leave });
    }
    case 'reload':
      return reload(options, out);
    case 'status':
      return status(options, { clock, hostName: hostname(), out });
    case 'join':
      return join(options, { clock, hostName: hostname(), out, warn });
    default:
      await run(options, { clock, log, lifecycle: systemdLifecycle({ clock, log }), reread: read });
      return 0;
  }
}

// Read when the first thread is needed, which is later.
process.env['UV_THREADPOOL_SIZE'] = String(poolThreads);
main().then(
  (code) => {
    process.exitCode = code;
  },
  (error: unknown) => {
    // As a shell has it, after Ctrl-C.
    if (error instanceof JoinError && error.code === 'interrupted') process.exit(130);
    const isUsage = error instanceof UsageError || (error instanceof SpoolFolderError && error.code === 'access');
    // One line for what a person can correct; anything else is a bug, and needs its stack.
    const isExpected =
      isUsage || error instanceof ControlError || error instanceof SpoolFolderError || error instanceof JoinError;
    const text = isExpected ? error.message : String((error as Error).stack);
    process.stderr.write(lastWords(program.name, text, { journal: stderrIsJournal(process.env) }));
    process.exit(isUsage ? 2 : 1);
  },
);
