import { addressText, isLoopback } from '../runtime/options.ts';
import type { Archive } from './web/archives.ts';
import type { WebAddress } from './web/listener.ts';
import type { WebConfig } from './web/web-config-file.ts';

// The commands with which a host that has nothing gets this release. The join line is in none of them: it would be seen
// by ps and kept by the shell.

/** An archive with the SHA-256 by which a host recognizes it. */
export interface OfferedArchive extends Archive {
  readonly sha256: string;
}

/**
 * The command for the host: fetches the release for its machine from this server, compares its SHA-256, installs it, and
 * asks for the join line. What is fetched need not be trusted, since the command has been brought by a person. Nothing of
 * it stays outside of what is installed.
 */
export function fetchCommand(base: string, archives: readonly OfferedArchive[]): string {
  const [{ file } = { file: '' }] = archives;
  const name = (architecture: string) => file.replace(/(-linux-)[a-z0-9]+(?=\.tar)/, `$1${architecture}`);
  const sums = archives.map((archive) => `${archive.sha256} ${archive.file}`).join(' ');
  const isTls = base.startsWith('https:');
  return [
    '(set -e',
    'd=$(mktemp -d)',
    'trap \'rm -rf "$d"\' EXIT',
    'cd "$d"',
    `f=${name(`$(uname -m | sed 's/x86_64/x64/;s/aarch64/arm64/')`)}`,
    `u=${base}/install/$f`,
    `{ curl -fsS${isTls ? 'k' : ''}O "$u" || wget -q${isTls ? ' --no-check-certificate' : ''} "$u"; }`,
    `printf '%s  %s\\n' ${sums} | grep -F "  $f" | sha256sum -c --quiet`,
    'tar -xzf "$f" --strip-components=1',
    '$(command -v sudo) ./install.sh agent)',
  ].join('; ');
}

/** The command for this host where the other one can fetch nothing: by ssh, the join line first and the release behind it. */
export function sshCommand(name: string, { path }: Archive): string {
  return (
    `{ sudo sysmon-server enroll ${name}; cat ${path}; } | ssh ${name} ` +
    `'read -r line; d=$(mktemp -d) && trap "rm -rf $d" EXIT && cd "$d" && tar -xzf - --strip-components=1 && ` +
    `printf "%s\\n" "$line" | $(command -v sudo) ./install.sh agent'`
  );
}

/** The URL by which hosts reach the HTTP port; undefined where they cannot, or need a password or a certificate. */
export function installBase(webListen: readonly WebAddress[], webConfig: WebConfig, host: string): string | undefined {
  const { users, tls } = webConfig;
  if (users.size > 0 || tls?.clientAuth.startsWith('Require') === true) return undefined;
  for (const web of webListen) {
    if (web.kind === 'unix' || web.port === 0 || isLoopback(web.address)) continue;
    const isAny = /^(?:|0\.0\.0\.0|::)$/.test(web.address);
    return `${tls === undefined ? 'http' : 'https'}://${addressText(isAny ? host : web.address, web.port)}`;
  }
  return undefined;
}

/** The archive to begin with: that of a machine like this one. */
export function likeliest<A extends Archive>(archives: readonly A[], architecture: string): A | undefined {
  return archives.find((archive) => archive.architecture === architecture) ?? archives[0];
}
