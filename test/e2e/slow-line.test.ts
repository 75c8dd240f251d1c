import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { keyFileText } from '../support/key-file.ts';
import { bundleOf, command, Program, temporaryFolder } from '../support/programs.ts';
import { slowLine } from '../support/slow-line.ts';

// A handshake that takes 0.4 s, and names of a server that have a second address of which nothing comes.
const names = {
  'one.example': ['10.98.0.2'],
  'unrouted.example': ['10.98.0.2', 'fd12:3456::2'],
  'dead.example': ['10.98.0.2', '10.98.0.77'],
  'refusing.example': ['10.98.0.2', 'fd98::2'],
};

const hosts = Object.entries(names)
  .flatMap(([name, addresses]) => addresses.map((address) => `${address} ${name}`))
  .join('\n');

test('over a slow line a name with an address that does not work is connected to all the same', async (context) => {
  const line = await slowLine(context, { delayMs: 200, hosts });
  if (line === undefined) return;
  const folder = temporaryFolder(context);
  const fleetKeyFile = join(folder, 'fleet.key');
  writeFileSync(fleetKeyFile, `${randomBytes(32).toString('hex')}\n`, { mode: 0o600 });
  // Ports of a namespace of our own: nobody else can have them. On IPv4 alone.
  const plain = { listen: '0.0.0.0:9732', flags: ['--allow-plaintext'] };
  const tls = { listen: '0.0.0.0:9742', flags: ['--fleet-key-file', fleetKeyFile] };
  for (const { listen, flags } of [plain, tls]) {
    const web = `127.0.0.1:${Number(listen.split(':')[1]) + 1}`;
    const server = start(context, line.far, 'server', '--listen', listen, '--web.listen-address', web, ...flags);
    await server.line(/agents on/);
  }
  const agents: [name: string, agent: Program][] = [];
  for (const name of Object.keys(names)) {
    const enrol = await command('server', 'enroll', name, ...tls.flags, '--listen', tls.listen);
    const [, , identity = '', key = ''] = enrol.trim().split(' ');
    const keyFile = join(folder, `${name}.key`);
    writeFileSync(keyFile, keyFileText(identity, Buffer.from(key, 'hex')), { mode: 0o600 });
    agents.push([name, start(context, line.near, 'agent', '--server', `${name}:9732`, '--name', name)]);
    agents.push([name, start(context, line.near, 'agent', '--server', `${name}:9742`, '--key-file', keyFile)]);
  }
  await Promise.all(
    agents.map(async ([name, agent]) => {
      const connected = await agent.line(/connected to/);
      assert.match(connected, new RegExp(`connected to '${name}:97\\d2' \\(10\\.98\\.0\\.2:97\\d2\\)`));
      assert.deepEqual(
        agent.lines.filter((each) => /cannot connect/.test(each)),
        [],
        'an address that fails is not the end of a try',
      );
    }),
  );
});

function start(context: TestContext, where: readonly string[], name: 'agent' | 'server', ...argv: string[]): Program {
  const [file = '', ...words] = where;
  const program = new Program(`sysmon-${name}`, file, [
    ...words,
    ...[process.execPath, bundleOf(name), 'run', '--config.file', '/dev/null'],
    ...['--control-socket', join(temporaryFolder(context), 'control.sock'), ...argv],
  ]);
  context.after(() => program.kill('SIGKILL'));
  return program;
}
