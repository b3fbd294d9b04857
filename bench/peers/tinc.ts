import { generateKeyPairSync } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import type { Ground, Path, Side } from '../ground.ts';
import { startDaemon } from './daemon.ts';

/** With it a packet and what tinc adds fit the underlay, so discovery of the path's MTU is not needed. */
const MTU_BYTES = 1400;

/** tinc as Debian has it (1.0: AES-256-CBC and SHA-256), routing between two nodes. */
export const tinc: Side = { name: 'tinc', programs: { tincd: 'tinc' }, build };

async function build(ground: Ground): Promise<Path> {
  const { lab } = ground;
  const [from, to] = ground.ends((host, index) => {
    const { privateKey, publicKey } = generateKeyPairSync('rsa', {
      modulusLength: 2048,
      privateKeyEncoding: { type: 'pkcs1', format: 'pem' },
      publicKeyEncoding: { type: 'pkcs1', format: 'pem' },
    });
    return { host, privateKey, publicKey, address: `10.73.0.${index + 1}` };
  });
  for (const [{ host, privateKey, address }, connectTo] of [
    [from, []],
    [to, [`ConnectTo = ${from.host.name}`]],
  ] as const) {
    const folder = `${lab.folder}/tinc-${host.name}`;
    mkdirSync(`${folder}/hosts`, { recursive: true });
    writeFileSync(`${folder}/rsa_key.priv`, privateKey, { mode: 0o600 });
    for (const end of [from, to]) {
      const lines = [
        `Address = ${end.host.address}`,
        `Subnet = ${end.address}/32`,
        'PMTUDiscovery = no',
        `PMTU = ${MTU_BYTES}`,
        end.publicKey,
      ];
      writeFileSync(`${folder}/hosts/${end.host.name}`, lines.join('\n'));
    }
    const settings = [
      `Name = ${host.name}`,
      'Interface = tinc0',
      'AddressFamily = ipv4',
      ...connectTo,
    ];
    writeFileSync(`${folder}/tinc.conf`, `${settings.join('\n')}\n`);
    const command = [
      'tincd',
      '--no-detach',
      `--config=${folder}`,
      `--pidfile=${folder}/pid`,
      '-d1',
    ];
    await startDaemon(lab, host, command, /Ready/);
    lab.ip([`addr add ${address}/24 dev tinc0`, `link set tinc0 mtu ${MTU_BYTES} up`], host);
  }
  return { from: from.host, to: to.host, address: to.address };
}
