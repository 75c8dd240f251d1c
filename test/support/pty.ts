import { execFile } from 'node:child_process';

/** What was shown and done at a terminal. */
export interface PtyResult {
  /** Exit code; 128 and more: the number of a signal. */
  readonly code: number;
  readonly shown: string;
  /** The terminal's settings are what they were before. */
  readonly isAsBefore: boolean;
}

/**
 * Runs a program at a terminal of its own, and types: each text when what is shown holds the one before it. Python 3 has
 * ptys, Node has not.
 */
export function atTerminal(
  argv: readonly string[],
  steps: readonly (readonly [shown: string, typed: string])[],
  env: NodeJS.ProcessEnv,
): Promise<PtyResult> {
  const job = JSON.stringify({ argv, steps });
  return new Promise((resolve, reject) => {
    execFile('python3', ['-c', script, job], { env, timeout: 60_000 }, (error, stdout, stderr) => {
      if (error !== null)
        reject(new Error(`python3: ${error.message} ${stderr}; 'apt-get install python3' installs it`));
      else resolve(JSON.parse(stdout) as PtyResult); // printed below
    });
  });
}

const script = `
import fcntl, json, os, select, subprocess, sys, termios, time
job = json.loads(sys.argv[1])
master, slave = os.openpty()
before = termios.tcgetattr(slave)
def own():
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
child = subprocess.Popen(job["argv"], stdin=slave, stdout=slave, stderr=slave, preexec_fn=own)
shown, seen, steps, end = b"", 0, job["steps"], time.time() + 45
while time.time() < end:
    ready, _, _ = select.select([master], [], [], 0.05)
    if ready:
        shown += os.read(master, 65536)
    elif child.poll() is not None:
        break
    if steps:
        at = shown.find(steps[0][0].encode(), seen)
        if at >= 0:
            # Whoever has just asked may not have changed the terminal yet.
            time.sleep(0.3)
            seen = at + len(steps[0][0])
            os.write(master, steps.pop(0)[1].encode())
else:
    child.kill()
code = child.wait()
print(json.dumps({
    "code": code if code >= 0 else 128 - code,
    "shown": shown.decode(errors="replace"),
    "isAsBefore": termios.tcgetattr(slave) == before,
}))
`;
