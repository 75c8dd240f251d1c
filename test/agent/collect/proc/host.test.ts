import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  statfsSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { test } from 'node:test';
import { NoDataError, UnreadableError } from '../../../../src/agent/collect/proc/errors.ts';
import { Host } from '../../../../src/agent/collect/proc/host.ts';
import { type FixtureTree, makeTree } from '../../../support/fixture-proc.ts';

function withTree(files: Record<string, string>, run: (tree: FixtureTree, host: Host) => void): void {
  const tree = makeTree(Object.entries(files));
  const host = new Host(tree.roots);
  try {
    run(tree, host);
  } finally {
    host.close();
    tree.remove();
  }
}

function firstLine(host: Host, path: string): string {
  const text = host.read(path);
  text.nextLine();
  return text.rest();
}

test('each tree is where its root says', () => {
  const files = { 'proc/a': 'p\n', 'sys/a': 's\n', 'root/etc/a': 'r\n', 'udev/b8:0': 'u\n' };
  withTree(files, (tree, host) => {
    assert.deepEqual(
      Object.keys(files).map((path) => firstLine(host, path)),
      ['p', 's', 'r', 'u'],
    );
    assert.equal(host.path('root/etc/a'), tree.path('root/etc/a'));
    assert.throws(() => host.path('etc/a'), /starts with proc, sys, root or udev/);
  });
});

test('a file is read once at an instant and anew at the next, from its beginning', () => {
  withTree({ 'proc/a': 'one\n' }, (tree, host) => {
    assert.equal(firstLine(host, 'proc/a'), 'one');
    tree.write('proc/a', 'two, and longer\n');
    assert.equal(firstLine(host, 'proc/a'), 'one');
    host.beginInstant();
    assert.equal(firstLine(host, 'proc/a'), 'two, and longer');
    tree.write('proc/a', '3\n');
    host.beginInstant();
    assert.equal(firstLine(host, 'proc/a'), '3');
  });
});

test('two files can be held at a time', () => {
  withTree({ 'proc/a': 'a\n', 'proc/b': 'b\n' }, (_, host) => {
    const [a, b] = [host.read('proc/a'), host.read('proc/b')];
    a.nextLine();
    b.nextLine();
    assert.deepEqual([a.rest(), b.rest()], ['a', 'b']);
  });
});

test('a file longer than any buffer is read to its end', () => {
  const lines = Array.from({ length: 50_000 }, (_, at) => `line ${at}`);
  withTree({ 'proc/a': `${lines.join('\n')}\n`, 'sys/a': `${lines.join('\n')}\n` }, (_, host) => {
    for (const path of ['proc/a', 'sys/a']) {
      const text = host.read(path);
      let count = 0;
      while (text.nextLine()) assert.equal(text.rest(), lines[count++]);
      assert.equal(count, lines.length);
    }
  });
});

test('a file that grows and shrinks is read to its end each time, wherever it fits', () => {
  const paths = ['proc/a', 'proc/stat', 'proc/sys/kernel/a', 'sys/a', 'root/a'];
  withTree({}, (tree, host) => {
    // Where it was the last time there is room for a quarter and 16 bytes more.
    for (const length of [1, 17, 18, 19, 20, 39, 40, 41, 20_000, 16_383, 16_384, 16_385, 2, 40_000, 32_768]) {
      host.beginInstant();
      for (const path of paths) {
        const line = `${length}`.padEnd(length - 1, '.').slice(0, length - 1);
        tree.write(path, `${line}\n`);
        assert.equal(firstLine(host, path), line, `${path} of ${length} bytes`);
      }
    }
  });
});

test('missing is an error of its own, or undefined; it is looked for again', () => {
  withTree({ 'proc/file': '' }, (tree, host) => {
    for (const path of ['proc/a', 'proc/no/a', 'proc/file/a']) {
      assert.throws(
        () => host.read(path),
        (error) => error instanceof NoDataError && error.message === `'${tree.path(path)}' does not exist`,
      );
      assert.equal(host.readIfThere(path), undefined);
    }
    assert.throws(() => host.list('sys/no'), NoDataError);
    tree.write('proc/a', 'there\n');
    assert.equal(firstLine(host, 'proc/a'), 'there');
  });
});

test('unreadable is another error, with the reason', (t) => {
  withTree({ 'proc/a': 'a\n' }, (tree, host) => {
    mkdirSync(tree.path('proc/folder'));
    assert.throws(
      () => host.readIfThere('proc/folder'),
      (error) =>
        error instanceof UnreadableError &&
        error.message === `'${tree.path('proc/folder')}' cannot be read: EISDIR: illegal operation on a directory`,
    );
    if (process.getuid?.() === 0) return t.diagnostic('root may read what has no permissions: EACCES was not tried');
    chmodSync(tree.path('proc/a'), 0);
    assert.throws(() => host.read('proc/a'), /proc\/a' cannot be read: EACCES: permission denied/);
  });
});

test('a value that cannot be read or parsed costs itself alone, and is one of the parse errors', () => {
  withTree({ 'sys/good': '7\n', 'sys/bad': 'x\n', 'sys/empty': '' }, (tree, host) => {
    mkdirSync(tree.path('sys/folder'));
    const value = (path: string) => host.value(path, (text) => text.unsigned('the count'));
    assert.equal(value('sys/good'), 7);
    assert.equal(value('sys/missing'), undefined);
    assert.deepEqual(host.takeErrors(), [], 'what is missing is no error');
    assert.deepEqual([value('sys/bad'), value('sys/empty'), value('sys/folder')], [undefined, undefined, undefined]);
    assert.deepEqual(
      host.takeErrors().map(({ code, path }) => [code, path]),
      [
        ['format', tree.path('sys/bad')],
        ['unreadable', tree.path('sys/empty')],
        ['unreadable', tree.path('sys/folder')],
      ],
    );
    assert.deepEqual(host.takeErrors(), [], 'they are taken once');
    assert.equal(
      host.binary('sys/good', (bytes) => bytes.length),
      2,
    );
    assert.equal(
      host.binary('sys/missing', () => assert.fail('there is nothing')),
      undefined,
    );
    assert.throws(() => host.value('sys/good', () => assert.fail('a bug')), /a bug/);
    assert.deepEqual([host.exists('sys/good'), host.exists('sys/missing')], [true, false]);
  });
});

test('a value that the kernel does not know is none, and one need not end with a newline', () => {
  const files = { 'sys/a': '<unknown>\n', 'sys/b': '<unsupported>\n', 'sys/c': '<b>\n', 'proc/d': '12' };
  withTree(files, (tree, host) => {
    const value = (path: string) => host.value(path, (text) => text.rest());
    for (let instant = 0; instant < 2; instant++) {
      host.beginInstant();
      assert.deepEqual(Object.keys(files).map(value), [undefined, undefined, '<b>', '12']);
      assert.deepEqual(
        host.takeErrors().map((error) => [error.path, error instanceof UnreadableError ? error.errno : error.code]),
        [
          [tree.path('sys/a'), 'unknown'],
          [tree.path('sys/b'), 'unknown'],
        ],
      );
    }
  });
});

// Root may read everything, so the kernel's answer is made up here.
test('a private value is no error for those who may not read it, and read like others by those who may', () => {
  const tree = makeTree(Object.entries({ 'sys/energy': '12\n', 'sys/name': 'core\n' }));
  const answers: Record<string, string> = {};
  class Guarded extends Host {
    protected override file(path: string) {
      const code = answers[path];
      const file = super.file(path);
      return code === undefined ? file : { text: file.text, error: Object.assign(new Error(code), { code }) };
    }
  }
  const host = new Guarded(tree.roots);
  const energy = () => host.privateValue('sys/energy', (text) => text.unsigned('the energy'));
  try {
    assert.deepEqual([energy(), host.rareText('sys/name'), host.rareText('sys/none')], [12, 'core', undefined]);
    for (const code of ['EACCES', 'EPERM']) {
      answers['sys/energy'] = code;
      assert.equal(energy(), undefined);
      assert.deepEqual(host.takeErrors(), [], code);
    }
    answers['sys/energy'] = 'EIO';
    assert.deepEqual([energy(), host.takeErrors().length], [undefined, 1]);
  } finally {
    host.close();
    tree.remove();
  }
});

test('several files of one collector: each that cannot be read costs itself', () => {
  withTree({ 'proc/a': '1\n', 'proc/b': 'x\n', 'proc/c': '3\n' }, (tree, host) => {
    const read = (...paths: string[]) => {
      host.beginInstant();
      const found: [number, number][] = [];
      host.readEach(paths, (text, at) => {
        text.firstLine();
        found.push([at, text.unsigned('n')]);
      });
      return found;
    };
    assert.deepEqual(read('proc/a', 'proc/b', 'proc/none', 'proc/c'), [
      [0, 1],
      [3, 3],
    ]);
    assert.deepEqual(
      host.takeErrors().map(({ path }) => path),
      [tree.path('proc/b')],
    );
    // A folder cannot be read by anybody.
    mkdirSync(tree.path('proc/d'));
    assert.deepEqual(read('proc/d', 'proc/c', 'proc/b'), [[1, 3]]);
    assert.deepEqual(
      host.takeErrors().map(({ path }) => path),
      [tree.path('proc/d'), tree.path('proc/b')],
    );
    assert.throws(() => read('proc/none', 'proc/b'), /proc\/b', line 1: n is "x"/);
    assert.throws(() => read('proc/d', 'proc/none'), /proc\/d' cannot be read/);
    assert.throws(
      () => read('proc/none', 'proc/nothing'),
      (error) => error instanceof NoDataError && error.message.includes(tree.path('proc/none')),
    );
    assert.throws(() => host.readEach(['proc/a'], () => assert.fail('a bug')), /a bug/);
    host.part('proc/none', () => assert.fail('there is nothing'));
    host.part('proc/b', (text) => {
      text.firstLine();
      text.unsigned('n');
    });
    assert.equal(host.takeErrors().length, 1);
  });
});

test('devices come and go', () => {
  withTree({ 'sys/class/x/st1/a': '1\n', 'sys/class/x/st0/a': '0\n', 'sys/class/x/nst0/a': '2\n' }, (tree, host) => {
    const names = () => host.devices('sys/class/x', /^st\d+$/);
    assert.deepEqual(names(), ['st0', 'st1']);
    assert.deepEqual(host.devices('sys/class/x'), ['nst0', 'st0', 'st1']);
    const values = () => {
      host.beginInstant();
      return ['st0', 'st1'].map((name) => host.value(`sys/class/x/${name}/a`, (text) => text.unsigned('a')));
    };
    assert.deepEqual(values(), [0, 1]);
    tree.delete('sys/class/x/st0');
    tree.delete('sys/class/x/st1');
    host.close();
    assert.deepEqual(values(), [undefined, undefined]);
    assert.throws(
      () => names(),
      (error) => error instanceof NoDataError && error.message === `'${tree.path('sys/class/x')}' has no such device`,
    );
    assert.deepEqual(host.devicesIfThere('sys/class/x', /^st\d+$/), []);
    assert.deepEqual(host.devicesIfThere('sys/class/none'), []);
    tree.write('sys/class/x/st1/a', '9\n');
    assert.deepEqual(values(), [undefined, 9]);
    assert.deepEqual(host.takeErrors(), [], 'what is missing is no error');
  });
});

// The loopback has no speed, nothing is mapped at 0, and a process that has ended is gone as a device may be.
test('what the kernel answers instead of a value', { skip: process.platform !== 'linux' && 'not Linux' }, async () => {
  const child = spawn('/bin/sleep', ['60'], { stdio: 'ignore' });
  const exited = once(child, 'exit');
  const host = new Host();
  const paths = ['sys/class/net/lo/speed', 'proc/self/mem', `proc/${child.pid}/comm`];
  const answers = () => {
    host.beginInstant();
    const values = paths.map((path) => host.value(path, (text) => text.rest()));
    const errors = host.takeErrors().map((error) => error instanceof UnreadableError && [error.errno, error.isUsual]);
    return { values, errors };
  };
  const alive = {
    values: [undefined, undefined, 'sleep'],
    errors: [
      ['EINVAL', true],
      ['EIO', false],
    ],
  };
  try {
    assert.deepEqual(answers(), alive);
    const before = openFiles();
    assert.deepEqual(answers(), alive);
    // The descriptors are kept, but for that of the one that is broken.
    assert.equal(openFiles(), before);
    child.kill();
    await exited;
    assert.deepEqual(answers(), {
      values: [undefined, undefined, undefined],
      errors: [...alive.errors, ['ESRCH', true]],
    });
    assert.equal(openFiles(), before - 1);
    assert.deepEqual(answers().errors, alive.errors, 'what is gone is missing');
    assert.equal(host.readIfThere(paths[2]!), undefined);
  } finally {
    host.close();
    child.kill();
  }
});

test('a file that was replaced is seen in the trees where files are replaced', () => {
  withTree({ 'root/etc/a': 'old\n', 'udev/a': 'old\n' }, (tree, host) => {
    for (const path of ['root/etc/a', 'udev/a']) {
      assert.equal(firstLine(host, path), 'old');
      writeFileSync(`${tree.path(path)}.new`, 'new\n');
      renameSync(`${tree.path(path)}.new`, tree.path(path));
      host.beginInstant();
      assert.equal(firstLine(host, path), 'new');
    }
  });
});

function openFiles(): number {
  return readdirSync('/proc/self/fd').length;
}

test('files stay open, up to a number; those no longer asked for are closed; close closes all', () => {
  const files = Object.fromEntries(Array.from({ length: 2200 }, (_, at) => [`sys/${at}`, `${at}\n`]));
  withTree(files, (_, host) => {
    const before = openFiles();
    const readAll = () => {
      host.beginInstant();
      for (let at = 0; at < 2200; at++) assert.equal(firstLine(host, `sys/${at}`), `${at}`);
    };
    readAll();
    readAll();
    assert.equal(openFiles() - before, 2048);
    for (let instant = 0; instant < 240; instant++) {
      host.beginInstant();
      firstLine(host, 'sys/7');
    }
    assert.equal(openFiles() - before, 1);
    readAll();
    host.close();
    assert.equal(openFiles() - before, 0);
    assert.equal(firstLine(host, 'sys/7'), '7', 'and it can be read again');
  });
});

test('names in a folder come sorted', () => {
  withTree({ 'sys/b': '', 'sys/a': '', 'sys/c/d': '' }, (_, host) => {
    assert.deepEqual(host.list('sys'), ['a', 'b', 'c']);
  });
});

test('files that come whole lack no line', { skip: process.platform !== 'linux' && 'not Linux' }, () => {
  const host = new Host();
  try {
    for (let instant = 0; instant < 3; instant++) {
      host.beginInstant();
      for (const path of ['proc/loadavg', 'proc/meminfo', 'proc/stat', 'proc/uptime', 'proc/sys/kernel/version']) {
        const text = host.read(path);
        let count = 0;
        while (text.nextLine()) count++;
        assert.equal(count, readFileSync(`/${path}`, 'utf8').split('\n').length - 1, path);
      }
    }
  } finally {
    host.close();
  }
});

test('the real /proc and /sys are read like others', { skip: process.platform !== 'linux' && 'not Linux' }, () => {
  const host = new Host();
  try {
    for (let instant = 0; instant < 3; instant++) {
      host.beginInstant();
      assert.match(firstLine(host, 'proc/stat'), /^cpu +\d+/);
      assert.match(firstLine(host, 'proc/sys/kernel/ostype'), /^Linux$/);
    }
    assert.ok(host.list('sys').includes('class'));
  } finally {
    host.close();
  }
});

test('what stat says, and where a symbolic link leads', () => {
  withTree({ 'sys/devices/a/b': '12345', 'root/x': '' }, (tree, host) => {
    symlinkSync('devices/a', tree.path('sys/link'));
    symlinkSync('nowhere', tree.path('sys/broken'));
    const stat = host.stat('sys/link/b');
    assert.equal(stat?.size, 5);
    assert.equal(stat?.mtimeMs, statSync(tree.path('sys/devices/a/b')).mtimeMs);
    assert.equal(stat?.ino, statSync(tree.path('sys/devices/a/b')).ino);
    assert.equal(host.stat('sys/none'), undefined);
    assert.equal(host.stat('root/x/y'), undefined, 'a file is no folder');
    assert.equal(host.realPath('sys/link'), realpathSync(tree.path('sys/devices/a')));
    assert.equal(host.realPath('sys/broken'), undefined);
    assert.deepEqual(host.takeErrors(), []);
    symlinkSync('loop', tree.path('sys/loop'));
    assert.equal(host.realPath('sys/loop'), undefined);
    assert.throws(
      () => host.stat('sys/loop'),
      (error) => error instanceof UnreadableError && error.errno === 'ELOOP',
    );
    assert.deepEqual(
      host.takeErrors().map((error) => error instanceof UnreadableError && error.errno),
      ['ELOOP'],
    );
  });
});

test('the size of a file system, or why there is none', () => {
  withTree({ 'root/srv/a': '' }, (tree, host) => {
    const { bsize, blocks } = statfsSync(tree.path('root/srv'));
    assert.deepEqual((({ bsize, blocks }) => ({ bsize, blocks }))(host.fileSystem('root/srv')!), { bsize, blocks });
    assert.throws(
      () => host.fileSystem('root/none'),
      (error) => error instanceof UnreadableError && error.errno === 'ENOENT' && error.path === tree.path('root/none'),
    );
  });
});

test('a file of somebody else is read whole, up to a size, and only if it is a file', () => {
  withTree({ 'root/a.prom': 'abcdef' }, (tree, host) => {
    const before = openFiles();
    const read = (path: string, bytesMax = 6) => {
      const bytes = host.readForeign(path, bytesMax);
      return bytes && Buffer.from(bytes).toString();
    };
    assert.equal(read('root/a.prom'), 'abcdef');
    assert.equal(read('root/none'), undefined);
    assert.throws(() => read('root/a.prom', 5), /a\.prom' cannot be read: it has 6 bytes, more than 5$/);
    assert.throws(() => read('root'), /cannot be read: it is no regular file$/);
    // Nobody writes to it: a read would never end.
    execFileSync('mkfifo', [tree.path('root/pipe')]);
    assert.throws(() => read('root/pipe'), UnreadableError);
    assert.equal(openFiles(), before);
  });
});

test('a passing file is read to its end, is not kept open, and is replaced by the next one', () => {
  const long = 'x'.repeat(100_000);
  withTree({ 'proc/1/stat': 'one\n', 'proc/2/stat': `${long}\n` }, (tree, host) => {
    const before = openFiles();
    const rest = (path: string) => {
      const text = host.passing(path);
      return text?.nextLine() ? text.rest() : undefined;
    };
    assert.equal(rest('proc/1/stat'), 'one');
    assert.equal(rest('proc/2/stat'), long);
    tree.write('proc/1/stat', 'again\n');
    assert.equal(rest('proc/1/stat'), 'again', 'also at the same instant');
    assert.equal(host.passing('proc/3/stat'), undefined);
    assert.equal(openFiles(), before);
    assert.throws(() => host.passing('proc/1'), /\/proc\/1' cannot be read: EISDIR/);
  });
});

test('only errors about the host are passed over', () => {
  withTree({ 'sys/a': '1\n' }, (_, host) => {
    host.passOver(new NoDataError('/x', ' is gone'));
    assert.deepEqual(
      host.takeErrors().map(({ code }) => code),
      ['no-data'],
    );
    assert.throws(() => host.passOver(new RangeError('a bug')), RangeError);
    assert.deepEqual(host.takeErrors(), []);
    assert.equal(
      host.rareValue('sys/a', (text) => text.unsigned('a')),
      1,
    );
  });
});
