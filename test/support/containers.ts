import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { rootFile } from './files.ts';

const programs = { podman: 'podman', '/usr/sbin/runc': 'runc', mmdebstrap: 'mmdebstrap' } as const;

/** Why containers cannot be built and run here; undefined where they can. */
export function noContainers(): string | undefined {
  if (process.getuid?.() !== 0) return 'containers are built and run as root here';
  for (const [program, name] of Object.entries(programs)) {
    if (spawnSync(program, ['--version']).error !== undefined) return `no ${program}: apt-get install ${name}`;
  }
  return undefined;
}

/** Images and containers of their own, in a folder: nothing of them is left. */
export class Containers {
  readonly #folder: string;

  constructor(folder: string) {
    this.#folder = folder;
    mkdirSync(folder);
  }

  /**
   * Builds the Containerfile with a folder of archives, on a base that is made of this Debian's packages: no registry of
   * images is asked.
   */
  build(name: string, archives: string): void {
    const sources = '/etc/apt/sources.list.d/debian.sources';
    const base = join(this.#folder, 'base.tar');
    const options = ['--quiet', '--mode=root', '--variant=essential', '--include=libstdc++6'];
    const without = '--dpkgopt=path-exclude=/usr/share/{doc,man,locale,info}/*';
    const input = existsSync(sources) ? readFileSync(sources) : readFileSync('/etc/apt/sources.list');
    execFileSync('mmdebstrap', [...options, without, 'bookworm', base, '-'], {
      input,
      stdio: ['pipe', 'ignore', 'pipe'],
    });
    this.podman('import', base, 'base');
    // chroot: a machine that is a container itself can do it.
    const how = ['--isolation=chroot', '--build-arg=BASE=localhost/base', `--file=${rootFile('Containerfile')}`];
    this.podman('build', ...how, `--tag=${name}`, archives);
  }

  /** What it prints, errors too. Throws where it does not end with 0. */
  podman(...args: readonly string[]): string {
    const own = ['--root', join(this.#folder, 'root'), '--runroot', join(this.#folder, 'run')];
    const { status, stdout, stderr } = spawnSync('podman', [...own, '--runtime=runc', ...args], { encoding: 'utf8' });
    if (status !== 0) throw new Error(`podman ${args.join(' ')}: ${stderr}${stdout}`);
    return `${stdout}${stderr}`;
  }

  /** Limits that a machine which is a container itself may set. */
  static readonly runOptions = ['--network=host', '--ulimit=nofile=1024:1024', '--ulimit=nproc=1024:1024'];

  close(): void {
    this.podman('rm', '--all', '--force', '--volumes');
    this.podman('rmi', '--all', '--force');
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
