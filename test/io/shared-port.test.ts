import { type Test, test } from 'tap';
import { parseIpv4 } from '../../src/core/address.ts';
import { AddressWords } from '../../src/core/address-words.ts';
import { type Ip, isIpv6, parseIp } from '../../src/core/ip.ts';
import { Arena } from '../../src/io/linux/arena.ts';
import { DatagramQueue } from '../../src/io/linux/datagram-queue.ts';
import { Epoll } from '../../src/io/linux/epoll.ts';
import { close } from '../../src/io/linux/ffi.ts';
import { openSender, openSharedPort } from '../../src/io/linux/shared-port.ts';
import { openUdp, udpPort } from '../../src/io/linux/udp-socket.ts';
import { VxlanReceiver } from '../../src/io/linux/vxlan-socket.ts';

const LOOPBACK = parseIpv4('127.0.0.1');
const LOOPBACK6 = parseIp('::1');
const SENDERS = 4;

/** A port with `count` sockets, and senders to it with source ports of all kinds. */
function makePort(t: Test, address: Ip, count: number) {
  const arena = new Arena(8 * 1024 * 1024);
  const isV6 = isIpv6(address);
  const fds = openSharedPort(address, 0, count);
  const receivers = fds.map((fd) => new VxlanReceiver(arena, fd, isV6));
  const senders = Array.from({ length: SENDERS }, (_, index) =>
    openSender(address, index, SENDERS),
  );
  const epoll = new Epoll(arena);
  for (const [index, fd] of fds.entries()) epoll.add(fd, index);
  t.teardown(() => {
    epoll.close();
    for (const fd of [...fds, ...senders]) close(fd);
  });
  const at = arena.allocate(64);
  const port = udpPort(fds[0] ?? -1);
  const destination = { words: AddressWords.of(address), port };

  /** Which socket gets what the socket `fd` sends. */
  function receiverOf(fd: number): number {
    const queue = new DatagramQueue(arena, fd, isV6, () => t.fail('a send failed'));
    queue.add(destination, at, 10);
    queue.flush();
    t.equal(epoll.wait(5_000), 1, 'one socket has something');
    const index = epoll.token(0);
    t.equal(receivers[index]?.receive(), 10);
    t.equal(receivers[index]?.sourcePort, udpPort(fd));
    return index;
  }
  return { fds, port, senders, receiverOf };
}

for (const [name, address] of [
  ['IPv4', LOOPBACK],
  ['IPv6', LOOPBACK6],
] as const) {
  test(`a shared port: the source port chooses the socket, ${name}`, (t) => {
    for (const [count, expected] of [
      [1, [0, 0, 0, 0]],
      [2, [0, 1, 0, 1]],
      [4, [0, 1, 2, 3]],
    ] as const) {
      const { fds, port, senders, receiverOf } = makePort(t, address, count);
      t.equal(fds.length, count);
      t.ok(fds.every((fd) => udpPort(fd) === port));
      t.same(
        senders.map((fd) => udpPort(fd) % SENDERS),
        [0, 1, 2, 3],
      );
      t.same(senders.map(receiverOf), expected, `${count} sockets`);
      t.same(senders.map(receiverOf), expected, 'the same again');
    }
    t.end();
  });
}

test('a shared port: three sockets get what any source port sends', (t) => {
  const { receiverOf } = makePort(t, LOOPBACK, 3);
  for (let attempt = 0; attempt < 20; attempt += 1) {
    const fd = openUdp(LOOPBACK, 0);
    t.equal(receiverOf(fd), udpPort(fd) % 3);
    close(fd);
  }
  t.end();
});

test('a shared port is not joined by accident', (t) => {
  for (const [held, wanted] of [
    [1, 1],
    [1, 2],
    [2, 1],
    [2, 2],
  ] as const) {
    const { port } = makePort(t, LOOPBACK, held);
    t.throws(() => openSharedPort(LOOPBACK, port, wanted), { code: 'EADDRINUSE' });
  }
  t.end();
});
