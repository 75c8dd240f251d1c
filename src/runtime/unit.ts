import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';

/** What systemd says of the unit of a program. */
export interface UnitFacts {
  readonly user: string;
  readonly group: string;
  /** Undefined: it has no limit. */
  readonly memoryBytesMax: number | undefined;
}

/** Undefined where this host has no systemd, or no such unit, or the unit runs as root. */
export function unitFacts(name: string): UnitFacts | undefined {
  // As sd_booted(3) does it.
  if (!existsSync('/run/systemd/system')) return undefined;
  let text: string;
  try {
    text = execFileSync('systemctl', ['show', '-p', 'LoadState,User,Group,MemoryMax', `${name}.service`], {
      encoding: 'utf8',
      timeout: 5000,
      stdio: ['ignore', 'pipe', 'ignore'],
    });
  } catch {
    return undefined; // a systemd that does not answer says nothing of a unit
  }
  return parseUnitFacts(text);
}

/** `NAME=VALUE` lines of `systemctl show`. */
export function parseUnitFacts(text: string): UnitFacts | undefined {
  const values = new Map(
    text.split('\n').map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]),
  );
  const user = values.get('User') ?? '';
  if (values.get('LoadState') !== 'loaded' || user === '') return undefined;
  const memoryMax = Number(values.get('MemoryMax')); // NaN for `infinity`
  return {
    user,
    group: values.get('Group') || user,
    memoryBytesMax: Number.isFinite(memoryMax) ? memoryMax : undefined,
  };
}

/**
 * Root looks at files and ports as the unit will: becomes its user for good. Returns the unit, undefined where this process
 * is not root or there is no unit.
 */
export function becomeUnitUser(name: string): UnitFacts | undefined {
  if (process.getuid?.() !== 0) return undefined;
  const unit = unitFacts(name);
  if (unit === undefined) return undefined;
  const groups = execFileSync('id', ['-G', unit.user], { encoding: 'utf8' });
  process.setgroups!(groups.trim().split(' ').map(Number));
  process.setgid!(unit.group);
  process.setuid!(unit.user);
  return unit;
}
