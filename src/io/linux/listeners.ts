import { readdir, readFile, readlink } from 'node:fs/promises';

/** A socket that holds a port on this host. */
export interface Listener {
  /** `a.b.c.d`, or an IPv6 address in eight groups. */
  readonly address: string;
  readonly port: number;
  /** Inode of the socket: links it to the processes that have it open. */
  readonly inode: number;
}

/** Socket states in /proc/net (include/net/tcp_states.h); an unconnected UDP socket is "closed". */
const HOLDING_STATE = { tcp: '0A', udp: '07' } as const;

/**
 * Reads /proc/net/tcp, tcp6, udp or udp6 and keeps the sockets that wait for clients: listening TCP
 * sockets, and UDP sockets without a peer.
 *
 * @param text - The file: a heading, then one socket per line (proc(5)). Addresses are hexadecimal
 *   words in the machine's byte order; little-endian is assumed, as on every platform of Node.
 */
export function parseListeners(protocol: 'tcp' | 'udp', text: string): readonly Listener[] {
  const listeners: Listener[] = [];
  for (const line of text.split('\n').slice(1)) {
    const fields = line.trim().split(/\s+/);
    const [addressHex = '', portHex = ''] = (fields[1] ?? '').split(':');
    if (fields[3] !== HOLDING_STATE[protocol] || portHex === '') continue;
    listeners.push({
      address: formatHexAddress(addressHex),
      port: Number.parseInt(portHex, 16),
      inode: Number(fields[9]),
    });
  }
  return listeners;
}

function formatHexAddress(hex: string): string {
  const bytes = (hex.match(/.{8}/g) ?? []).flatMap((word) =>
    (word.match(/../g) ?? []).reverse().map((byte) => Number.parseInt(byte, 16)),
  );
  if (bytes.length === 4) return bytes.join('.');
  return bytes
    .flatMap((byte, at) => (at % 2 === 0 ? [(byte * 256 + (bytes[at + 1] ?? 0)).toString(16)] : []))
    .join(':');
}

/**
 * Names what listens on a port of this host, so that publishing it can be refused with the culprit.
 *
 * @returns such as `nginx (pid 123)`; undefined when the port is free
 */
export async function portHolder(
  protocol: 'tcp' | 'udp',
  port: number,
): Promise<string | undefined> {
  // A host without IPv6 has no tcp6.
  const texts = await Promise.all(
    [protocol, `${protocol}6`].map((file) => readFile(`/proc/net/${file}`, 'utf8').catch(() => '')),
  );
  const inodes = texts
    .flatMap((text) => parseListeners(protocol, text))
    .filter((listener) => listener.port === port)
    .map((listener) => listener.inode);
  if (inodes.length === 0) return undefined;
  return (await processWithSocket(new Set(inodes))) ?? 'the kernel or a hidden process';
}

async function processWithSocket(inodes: ReadonlySet<number>): Promise<string | undefined> {
  const pids = (await readdir('/proc')).filter((entry) => /^\d+$/.test(entry));
  // The lowest process id is the likeliest owner: workers inherit the socket of their parent.
  for (const pid of pids.sort((a, b) => Number(a) - Number(b))) {
    // Processes and descriptors come and go while we look.
    const descriptors = await readdir(`/proc/${pid}/fd`).catch(() => []);
    const links = await Promise.all(
      descriptors.map((fd) => readlink(`/proc/${pid}/fd/${fd}`).catch(() => '')),
    );
    const holds = links.some((link) => inodes.has(Number(/^socket:\[(\d+)\]$/.exec(link)?.[1])));
    if (!holds) continue;
    const name = (await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => '?')).trim();
    return `${name} (pid ${pid})`;
  }
  return undefined;
}
