import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { test } from 'node:test';
import { portsKey, TcpQueues, tcpRows } from '../../../src/server/web/tcp-queue.ts';
import { portOf } from '../../support/sockets.ts';
import { until } from './http-harness.ts';

test('what the kernel has not got acknowledged is seen, until the peer reads', { timeout: 20_000 }, async () => {
  for (const host of ['127.0.0.1', '::']) {
    const queues = new TcpQueues();
    const server = createServer();
    server.listen(0, host);
    await once(server, 'listening');
    const peer = connect(portOf(server), '127.0.0.1');
    const [socket] = (await once(server, 'connection')) as [Socket];
    assert.equal(queues.isAcknowledged(socket), true);
    let isWritten = false;
    // More than both kernels hold for a peer that does not read.
    socket.write(Buffer.alloc(32 * 1024 * 1024), () => {
      isWritten = true;
    });
    await until(() => !queues.isAcknowledged(socket));
    assert.equal(isWritten, false);
    peer.resume();
    await until(() => isWritten && queues.isAcknowledged(socket));
    peer.destroy();
    socket.destroy();
    server.close();
  }
});

test('a connection without ports, or where there is no table, counts as acknowledged', () => {
  const queues = new TcpQueues();
  assert.equal(queues.isAcknowledged({}), true);
  assert.equal(queues.isAcknowledged({ localPort: 1, remotePort: undefined }), true);
  assert.equal(new TcpQueues(() => ['', '']).isAcknowledged({ localPort: 1, remotePort: 2 }), true);
});

test('a connection that was reset counts as not acknowledged', { timeout: 20_000 }, async () => {
  const queues = new TcpQueues();
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const peer = connect(portOf(server), '127.0.0.1');
  const [socket] = (await once(server, 'connection')) as [Socket];
  const { localPort, remotePort } = socket;
  assert.equal(queues.isAcknowledged({ localPort, remotePort }), true);
  socket.on('error', () => {});
  peer.resetAndDestroy();
  await until(() => !queues.isAcknowledged({ localPort, remotePort }));
  socket.destroy();
  server.close();
});

// https://docs.kernel.org/networking/proc_net_tcp.html: local port 9733 is 2605, remote port 48879 BEEF.
const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:2605 00000000:0000 0A 00000007:00000000 00:00000000 00000000     0        0 1 1 0000000000000000 100 0 0 10 0
   1: 0100007F:2605 0100007F:BEEF 01 0000001A:00000005 01:00000014 00000000     0        0 2 1 0000000000000000 20 4 30 10 -1
   2: 0100007F:BEEF 0100007F:2605 01 00000063:00000000 00:00000000 00000000     0        0 3 1 0000000000000000 20 4 30 10 -1
   3: 0200007F:2605 0100007F:BEEF 01 00000001:00000000 00:00000000 00000000     0        0 4 1 0000000000000000 20 4 30 10 -1
 104: 0000000000000000FFFF00000100007F:2605 0000000000000000FFFF00000100007F:BEE0 01 00000002:00000000 00:00000000 00000000     0        0 5 1 0000000000000000 20 4 30 10 -1
   5: 0100007F:2605 0100007F:BEE1 01 00000000:00000005 00:00000000 00000000     0        0 6 1 0000000000000000 20 4 30 10 -1
`;

test('the bytes are those of the connections from this port to that one', () => {
  const rows = tcpRows([table, table.replaceAll('BEEF', 'BEE2')]);
  assert.equal(rows.get(portsKey(9733, 48_879))?.bytes, 0x1a + 1);
  assert.equal(rows.get(portsKey(48_879, 9733))?.bytes, 0x63);
  assert.equal(rows.get(portsKey(9733, 0xbee0))?.bytes, 2 * 2);
  assert.equal(rows.get(portsKey(9733, 0xbee2))?.bytes, 0x1a + 1);
  assert.equal(rows.get(portsKey(9733, 1))?.bytes, undefined);
  assert.equal(tcpRows(['', ' cut: 0100007F:2605 0100007F:BEEF ', '   1: 0100007F:2605 0100007F:BE']).size, 0);
});

test('the table is read once a turn for all connections', async () => {
  let reads = 0;
  const queues = new TcpQueues(() => {
    reads++;
    return [table];
  });
  for (let turn = 1; turn <= 3; turn++) {
    for (let look = 0; look < 100; look++) {
      assert.equal(queues.isAcknowledged({ localPort: 9733, remotePort: 48_879 }), false);
      assert.equal(queues.isAcknowledged({ localPort: 9733, remotePort: 0xbee1 }), true);
    }
    assert.equal(reads, turn);
    await new Promise((resolve) => setImmediate(resolve));
  }
});
