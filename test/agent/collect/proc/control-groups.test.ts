import assert from 'node:assert/strict';
import { test } from 'node:test';
import { controlGroups, findControlGroups } from '../../../../src/agent/collect/proc/control-groups.ts';
import { hostOf, makeTree } from '../../../support/fixture-proc.ts';

/** The names that are found in a tree with these groups, and how many are left out. */
function found(
  groups: readonly string[],
  {
    files = {},
    limits,
  }: {
    readonly files?: Readonly<Record<string, string>>;
    readonly limits?: { readonly groups: number; readonly folders: number };
  } = {},
): { readonly names: readonly string[]; readonly leftOut: number } {
  const tree = makeTree([
    ...Object.entries(files),
    ...groups.map((group) => [`${controlGroups}/${group}/cgroup.procs`, ''] as const),
  ]);
  const host = hostOf(tree, { system: new Map() });
  try {
    const { groups: all, leftOut } = findControlGroups(host, (name) => name !== 'unwanted.service', limits);
    assert.deepEqual(host.takeErrors(), []);
    return { names: all.map(({ name }) => name), leftOut };
  } finally {
    host.close();
    tree.remove();
  }
}

const wsl = [
  'wsl-user/distro-1/systemd/init.scope',
  'wsl-user/distro-1/systemd/system.slice/nginx.service',
  'wsl-user/distro-2/systemd/init.scope',
  'wsl-user/distro-2/systemd/system.slice/nginx.service',
];

test('systemd below the top: its units have their own names, those of another systemd are called after their groups', () => {
  const there = { files: { 'proc/1/cgroup': '0::/wsl-user/distro-1/systemd/init.scope\n' } };
  assert.deepEqual(found(wsl, there).names, [
    ...['init.scope', 'system.slice', 'nginx.service'],
    ...['wsl-user/distro-2/systemd/init.scope', 'wsl-user/distro-2/systemd/system.slice'],
    'wsl-user/distro-2/systemd/nginx.service',
  ]);
});

test('where the group of the first process says nothing of systemd, all are called after their groups', () => {
  const prefixed = found(wsl).names;
  assert.ok(prefixed.every((name) => name.startsWith('wsl-user/')));
  for (const text of ['0::/\n', '0::/../../init.scope\n', '0::/init.scope\n', '12:cpu:/x/init.scope\n', '\n']) {
    assert.deepEqual(found(wsl, { files: { 'proc/1/cgroup': text } }).names, prefixed, text);
  }
});

test('a name that comes twice, groups beyond the limit, and folders that are not listed are counted', () => {
  const groups = ['a.slice/lxc.payload.x', 'b.slice/lxc.payload.x', 'unwanted.service'];
  assert.deepEqual(found(groups), { names: ['a.slice', 'lxc.payload.x', 'b.slice'], leftOut: 1 });
  const limits = { groups: 2, folders: 3 };
  assert.deepEqual(found(groups, { limits }), { names: ['a.slice', 'lxc.payload.x'], leftOut: 2 });
  assert.deepEqual(found(groups, { limits: { groups: 9, folders: 2 } }), {
    names: ['a.slice', 'lxc.payload.x', 'b.slice'],
    leftOut: 1,
  });
});

test('links that lead in a circle end', () => {
  const tree = makeTree(
    [[`${controlGroups}/a.slice/cgroup.procs`, '']],
    new Map([[`${controlGroups}/a.slice/b.slice`, '.']]),
  );
  const host = hostOf(tree, { system: new Map() });
  try {
    const { groups, leftOut } = findControlGroups(host, () => true);
    assert.deepEqual(
      groups.map(({ name }) => name),
      ['a.slice', 'b.slice'],
    );
    assert.ok(leftOut > 0);
  } finally {
    host.close();
    tree.remove();
  }
});
