import { readFileSync, readlinkSync } from 'node:fs';
import { parseListeners } from '../../src/io/linux/listeners.ts';

/** The UDP port that the kernel gave the socket `fd` of this process. */
export function udpPortOf(fd: number): number {
  const inode = Number(/\d+/.exec(readlinkSync(`/proc/self/fd/${fd}`))?.[0]);
  const sockets = ['udp', 'udp6'].flatMap((table) =>
    parseListeners('udp', readFileSync(`/proc/self/net/${table}`, 'utf8')),
  );
  const port = sockets.find((socket) => socket.inode === inode)?.port;
  if (port === undefined) throw new Error(`No UDP socket has the inode ${inode}`);
  return port;
}
