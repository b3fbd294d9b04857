import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import type { Lab, LabHost } from '../../test/support/lab.ts';
import type { Ground, Path, Side } from '../ground.ts';
import { startDaemon } from './daemon.ts';

const PORT = 51820;

/** WireGuard in user space, as Debian has it: one tunnel with the defaults of `wg`. */
export const wireguardGo: Side = {
  name: 'wireguard-go',
  programs: { 'wireguard-go': 'wireguard-go', wg: 'wireguard-tools' },
  build,
};

async function build(ground: Ground): Promise<Path> {
  const { lab } = ground;
  const [from, to] = ground.ends((host, index) => {
    const privateKey = wg(['genkey']);
    const publicKey = wg(['pubkey'], privateKey);
    return { host, privateKey, publicKey, address: `10.71.0.${index + 1}` };
  });
  for (const [near, far] of [
    [from, to],
    [to, from],
  ] as const) {
    const file = `${lab.folder}/wg-${near.host.name}.conf`;
    const lines = [
      ...['[Interface]', `PrivateKey = ${near.privateKey}`, `ListenPort = ${PORT}`],
      ...['[Peer]', `PublicKey = ${far.publicKey}`, `AllowedIPs = ${far.address}/32`],
      `Endpoint = ${far.host.address}:${PORT}`,
    ];
    writeFileSync(file, `${lines.join('\n')}\n`, { mode: 0o600 });
    const pid = await start(lab, near.host);
    execFileSync('nsenter', [`--target=${pid}`, '--mount', '--net', 'wg', 'setconf', 'wg0', file]);
    lab.ip([`addr add ${near.address}/24 dev wg0`, 'link set wg0 up'], near.host);
  }
  return { from: from.host, to: to.host, address: to.address };
}

/**
 * Starts wireguard-go with a /run of its own: there it makes a socket by the interface's name, which both
 * hosts have, and leaves it behind when it is killed.
 *
 * @returns its process id
 */
async function start(lab: Lab, host: LabHost): Promise<number> {
  const script =
    'mount -t tmpfs tmpfs /run && LOG_LEVEL=verbose exec wireguard-go --foreground wg0';
  const command = ['unshare', '--mount', '--propagation', 'private', 'sh', '-c', script];
  const { pid } = await startDaemon(lab, host, command, /UAPI listener started/);
  return pid ?? 0;
}

function wg(args: readonly string[], input = ''): string {
  return execFileSync('wg', args, { input, encoding: 'utf8' }).trim();
}
