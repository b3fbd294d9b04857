import { type Test, test } from 'tap';
import { parseIpv4 } from '../../src/core/address.ts';
import { AddressWords } from '../../src/core/address-words.ts';
import { type Ip, parseIp } from '../../src/core/ip.ts';
import { Arena } from '../../src/io/linux/arena.ts';
import { DatagramQueue, type Destination } from '../../src/io/linux/datagram-queue.ts';
import { Epoll } from '../../src/io/linux/epoll.ts';
import { close } from '../../src/io/linux/ffi.ts';
import { openUdp } from '../../src/io/linux/udp-socket.ts';
import { VxlanReceiver } from '../../src/io/linux/vxlan-socket.ts';
import { udpPortOf } from '../support/udp-port.ts';

const LOOPBACK = parseIpv4('127.0.0.1');
const LOOPBACK6 = parseIp('::1');

function destination(address: Ip, port: number): Destination {
  return { words: AddressWords.of(address), port };
}

/** A queue whose socket is on the loopback, and receivers there. */
function makeQueue(t: Test, address: Ip = LOOPBACK) {
  const arena = new Arena(3 * 1024 * 1024);
  const failures: number[] = [];
  const fd = openUdp(address, 0);
  const isIpv6 = typeof address === 'string';
  const queue = new DatagramQueue(arena, fd, isIpv6, (_to, datagrams) => failures.push(datagrams));
  const receivers = [1, 2].map(() => new VxlanReceiver(arena, openUdp(address, 0), isIpv6));
  const targets = receivers.map((one) => destination(address, udpPortOf(one.fd)));
  const epoll = new Epoll(arena);
  t.teardown(() => {
    epoll.close();
    close(fd);
    for (const receiver of receivers) close(receiver.fd);
  });
  const at = arena.allocate(200_000);
  arena.bytes.forEach((_, index) => {
    if (index >= at) arena.bytes[index] = (index - at) % 251;
  });
  for (const [index, { fd: socket }] of receivers.entries()) epoll.add(socket, index);

  /** What `datagrams` datagrams to receiver `index` hold, as [first byte, length]. */
  function receive(index: number, datagrams: number): [number, number][] {
    const receiver = receivers[index];
    if (receiver === undefined) throw new Error(`There is no receiver ${index}`);
    const got: [number, number][] = [];
    while (got.length < datagrams) {
      const received = receiver.receive();
      if (received < 0) {
        if (epoll.wait(5_000) === 0) throw new Error('Nothing has arrived for 5 seconds');
        continue;
      }
      for (let start = 0; start < received; start += receiver.segmentBytes) {
        const length = Math.min(receiver.segmentBytes, received - start);
        got.push([arena.bytes[receiver.buffer + start] ?? -1, length]);
      }
    }
    return got;
  }
  const [first, second] = targets as [Destination, Destination];
  const [receiver] = receivers as [VxlanReceiver, VxlanReceiver];
  return { arena, queue, at, first, second, receiver, receive, failures };
}

test('datagrams of one size to one destination leave in one send', (t) => {
  const { queue, at, first, receive, failures } = makeQueue(t);
  for (let index = 0; index < 10; index += 1) queue.add(first, at + index * 100, 100);
  queue.add(first, at + 1000, 40); // shorter: the last of its run
  t.equal(queue.sends, 0, 'nothing leaves before the flush');
  queue.flush();
  t.match(queue, { sends: 1, datagrams: 11, bytes: 1040 });
  const expected = Array.from({ length: 10 }, (_, index) => [(index * 100) % 251, 100]);
  t.same(receive(0, 11), [...expected, [1000 % 251, 40]]);
  queue.flush();
  t.equal(queue.sends, 1, 'there is nothing to flush');
  t.same(failures, []);
  t.end();
});

test('datagrams of any size to any destination leave in one call', (t) => {
  const { queue, at, first, second, receive } = makeQueue(t);
  const sizes = [100, 200, 200, 50, 50, 300];
  for (const [index, size] of sizes.entries()) {
    queue.add(first, at + index, size);
    queue.addTwo(second, at + index, 1, at + 100 + index, size - 1);
  }
  queue.flush();
  t.match(queue, { sends: 1, datagrams: 12, bytes: 1800 });
  t.same(
    receive(0, 6),
    sizes.map((size, index) => [index, size]),
  );
  t.same(
    receive(1, 6),
    sizes.map((size, index) => [index, size]),
    'in order',
  );
  t.end();
});

test('a run ends where the kernel’s limits are', (t) => {
  const { queue, at, first, receive } = makeQueue(t);
  for (let index = 0; index < 130; index += 1) queue.add(first, at + index, 10);
  queue.flush();
  t.same(
    receive(0, 130),
    Array.from({ length: 130 }, (_, index) => [index, 10]),
    '64 + 64 + 2 segments',
  );
  for (let index = 0; index < 5; index += 1) queue.add(first, at + index, 30_000);
  queue.flush();
  t.same(
    receive(0, 5),
    Array.from({ length: 5 }, (_, index) => [index, 30_000]),
    'two of them fit one send',
  );
  t.equal(queue.sends, 2);
  t.end();
});

test('small messages that cannot be joined are received several at a time', (t) => {
  const { queue, at, first, receiver, receive } = makeQueue(t);
  const sizes = Array.from({ length: 30 }, (_, index) => 100 + index * 10); // none joins another
  for (const [index, size] of sizes.entries()) queue.add(first, at + index, size);
  queue.flush();
  const seen: boolean[] = [];
  const got: [number, number][] = [];
  for (const _ of sizes) {
    got.push(...receive(0, 1));
    seen.push(receiver.hasMore);
  }
  t.same(
    got,
    sizes.map((size, index) => [index, size]),
    'each with its own length, in order',
  );
  t.ok(seen.filter(Boolean).length >= 20, 'most came with another one');
  t.notOk(receiver.hasMore);
  t.equal(receiver.receive(), -1, 'and then there is nothing');
  queue.add(first, at, 30_000);
  queue.add(first, at, 30_000);
  queue.flush();
  t.same(receive(0, 2), [
    [0, 30_000],
    [0, 30_000],
  ]);
  t.end();
});

test('a full queue flushes itself', (t) => {
  const { queue, at, first, second, receive } = makeQueue(t);
  for (let index = 0; index < 100; index += 1) {
    queue.add(index % 2 === 0 ? first : second, at + index, 20);
  }
  t.equal(queue.sends, 1);
  queue.flush();
  t.match(queue, { sends: 2, datagrams: 100 });
  t.same(
    receive(0, 50),
    Array.from({ length: 50 }, (_, index) => [index * 2, 20]),
  );
  t.end();
});

test('what the kernel refuses is reported and does not stop the rest', (t) => {
  const { queue, at, first, receive, failures } = makeQueue(t);
  const nowhere = destination(LOOPBACK, 0);
  queue.add(first, at, 10);
  queue.add(nowhere, at, 10);
  queue.add(nowhere, at, 10);
  queue.add(first, at + 1, 10);
  queue.add(nowhere, at, 10);
  queue.flush();
  t.same(failures, [2, 1]);
  t.equal(queue.datagrams, 2);
  t.same(receive(0, 2), [
    [0, 10],
    [1, 10],
  ]);
  t.end();
});

test('IPv6', (t) => {
  const { queue, at, first, receive } = makeQueue(t, LOOPBACK6);
  queue.add(first, at, 10);
  queue.add(first, at + 1, 10);
  queue.flush();
  t.same(receive(0, 2), [
    [0, 10],
    [1, 10],
  ]);
  t.end();
});
