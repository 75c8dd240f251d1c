// Which control groups are a slice, a service, a scope or a container: /sys/fs/cgroup (cgroup v2).
// https://systemd.io/CONTROL_GROUP_INTERFACE/
//     system.slice/nginx.service                        user.slice/user-1000.slice/session-3.scope
//     system.slice/docker-ID.scope                      user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope
//     machine.slice/machine-qemu\x2d1\x2dweb.scope      kubepods.slice/kubepods-podUID.slice/cri-containerd-ID.scope
// Engines that ask systemd for no unit (the driver `cgroupfs`) make groups of their own:
//     docker/ID   kubepods/burstable/podUID/ID   kubepods/podUID/crio-ID   libpod_parent/libpod-ID   k8s.io/ID
//     lxc.payload.NAME   lxc/NAME
import type { Host } from './host.ts';
import type { KernelText } from './text.ts';

export interface ControlGroup {
  /** That of its unit; of other groups the path, without slices. */
  readonly name: string;
  /** The folder of its files. */
  readonly path: string;
  /** Which files it has depends on them: `cpu io memory pids`. */
  readonly controllers: string;
}

export interface ControlGroups {
  /** In the order of their paths. */
  readonly groups: readonly ControlGroup[];
  /** Groups of a tree that is too large, or has a name twice. */
  readonly leftOut: number;
}

export const controlGroups = 'sys/fs/cgroup';

const unitName = /\.(?:slice|service|scope)$/;
const userManager = /^user@\d+\.service$/;
const containerId = /^[0-9a-f]{64}$/;
const container = /^(?:(?:[a-z]+-)*[0-9a-f]{64}$|lxc\.payload\.)/;
const containerScope = /^(?:[a-z]+-)+[0-9a-f]{64}\.scope$/;
/** What a desktop starts, group by group; engines without root have their containers in user.slice. */
const desktopSlices = new Set(['app.slice', 'session.slice', 'background.slice']);

/** Groups that are found, and folders that are listed. */
const most = { groups: 10_000, folders: 10_000 };
/** A name has at most 255 characters, so that slices are at most 125 deep. */
const depthMax = 128;

/**
 * Slices with what is in them, services, scopes and containers, of those that `keeps` wants; not what these have made in
 * theirs. Of what a user's own systemd runs, only the containers: the names of its units are those of other users, too.
 */
export function findControlGroups(host: Host, keeps: (name: string) => boolean, limits = most): ControlGroups {
  const search = new Search(host, keeps, limits);
  search.look({ path: controlGroups, folder: '', prefix: '', depth: 0 });
  return search;
}

interface Folder {
  readonly path: string;
  /** The last part of its path. */
  readonly folder: string;
  /** What is put before the name of a group in it. */
  readonly prefix: string;
  readonly depth: number;
}

class Search implements ControlGroups {
  readonly groups: ControlGroup[] = [];
  leftOut = 0;
  readonly #host: Host;
  readonly #keeps: (name: string) => boolean;
  readonly #limits: typeof most;
  readonly #names = new Set<string>();
  #folders = 0;
  /** Where systemd has its units, if that is not the top. */
  #home: string | undefined;

  constructor(host: Host, keeps: (name: string) => boolean, limits: typeof most) {
    this.#host = host;
    this.#keeps = keeps;
    this.#limits = limits;
  }

  look({ path, folder: own, prefix, depth }: Folder): void {
    const listed = this.#list(path, depth);
    if (listed === undefined) return;
    if (depth === 0 && !listed.folders.includes('init.scope')) this.#home = homeOf(this.#host);
    for (const folder of listed.folders) {
      const name = unescaped(folder);
      const group = { path: `${path}/${folder}`, name: `${prefix}${name}`, controllers: listed.controllers };
      const below = { path: group.path, folder: name, depth: depth + 1 };
      if (unitName.test(name)) {
        this.#add(group);
        if (name.endsWith('.slice')) this.look({ ...below, prefix });
        else if (userManager.test(name)) this.#lookForContainers(below);
      } else if (isContainer(name, own)) {
        this.#add(group);
      } else if (isGroup(name)) {
        this.look({ ...below, prefix: group.path === this.#home ? '' : `${group.name}/` });
      }
    }
  }

  #lookForContainers({ path, depth }: Omit<Folder, 'prefix'>): void {
    const listed = this.#list(path, depth);
    for (const folder of listed?.folders ?? []) {
      const below = { path: `${path}/${folder}`, folder, depth: depth + 1 };
      if (containerScope.test(folder)) this.#add({ path: below.path, name: folder, controllers: listed!.controllers });
      else if (folder.endsWith('.slice') && !desktopSlices.has(folder)) this.#lookForContainers(below);
    }
  }

  #list(
    path: string,
    depth: number,
  ): { readonly folders: readonly string[]; readonly controllers: string } | undefined {
    if (this.#folders === this.#limits.folders || depth > depthMax) {
      this.leftOut++;
      return undefined;
    }
    this.#folders++;
    const folders = this.#host.attributes(path);
    const controllers = folders.includes(controllersFile)
      ? this.#host.value(`${path}/${controllersFile}`, rest, '')
      : '';
    return { folders, controllers: controllers ?? '' };
  }

  #add(group: ControlGroup): void {
    if (!this.#keeps(group.name)) return;
    if (this.groups.length === this.#limits.groups || this.#names.has(group.name)) {
      this.leftOut++;
      return;
    }
    this.#names.add(group.name);
    this.groups.push(group);
  }
}

/** What the groups in a group have. */
const controllersFile = 'cgroup.subtree_control';
const rest = (text: KernelText): string => text.rest();

function isContainer(name: string, parent: string): boolean {
  if (parent === 'lxc') return !isFile(name);
  // A pod of podman, which has containers in it.
  if (parent === 'libpod_parent' && containerId.test(name)) return false;
  return container.test(name);
}

function isGroup(name: string): boolean {
  return !isFile(name) || name === 'k8s.io';
}

/** The kernel's files are called after their controller: `cpu.stat`. */
function isFile(name: string): boolean {
  return name.includes('.');
}

/** systemd puts `_` before a name that a file of the kernel could have: `cpu.service` is in `_cpu.service`. */
function unescaped(folder: string): string {
  return folder.startsWith('_') ? folder.slice(1) : folder;
}

/**
 * The group of the host's systemd where it was not given the top, such as /wsl-user/distro-1/systemd: the one that its
 * first process is in, without init.scope. Undefined where there is none, or it is not to be seen.
 */
function homeOf(host: Host): string | undefined {
  const own = host.privateValue('proc/1/cgroup', (text) => (text.skip('0::/') ? text.rest() : ''));
  const scope = '/init.scope';
  if (own === undefined || !own.endsWith(scope) || own.startsWith('..')) return undefined;
  return `${controlGroups}/${own.slice(0, -scope.length)}`;
}
