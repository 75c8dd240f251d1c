import type { Lab } from './lab.ts';

/**
 * All files of a host with type, mode, owner and contents, and its users and units: two that are equal are the same
 * host. What other programs write by themselves is left out, and the releases and join lines in /root.
 */
export async function listing(lab: Lab, host: string, folder = '/'): Promise<string> {
  const skip = (paths: readonly string[]) => `\\( ${paths.map((path) => `-path '${path}'`).join(' -o ')} \\) -prune`;
  const files = await lab.sh(
    host,
    `cd ${folder} && { find . -xdev ${skip(leftOut)} -o -type d -printf '%p d %m %u:%g\\n' -o -printf '%p %y %m %u:%g %s %l\\n'; ` +
      `find . -xdev ${skip([...leftOut, ...bySize])} -o -type f -exec sha256sum {} +; } | sort`,
  );
  const rest =
    folder === '/' ? await lab.sh(host, 'getent passwd; getent group; systemctl list-unit-files --no-legend') : '';
  return `${files}\n${rest}`;
}

/** Large, and written by nobody here: their sizes will do. */
const bySize = ['./usr/bin', './usr/lib', './usr/share', './usr/sbin', './var/lib/dpkg', './var/cache'];

const leftOut = [
  './root',
  './proc',
  './sys',
  './dev',
  './run',
  './tmp',
  './var/tmp',
  './var/log',
  './var/lib/systemd',
  './var/lib/private',
  './var/lib/sysmon-agent/*',
  './var/lib/sysmon-server/*',
  // What the tools for users keep beside their files.
  './etc/*-',
  './etc/.pwd.lock',
  './etc/machine-id',
];
