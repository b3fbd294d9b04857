import { execFileSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { Ground, Path, Side } from '../ground.ts';
import { startDaemon } from './daemon.ts';

/** OpenVPN as Debian has it: two peers by UDP with AES-256-GCM, in user space. */
export const openvpn: Side = {
  name: 'openvpn',
  programs: { openvpn: 'openvpn', openssl: 'openssl' },
  build,
};

async function build(ground: Ground): Promise<Path> {
  const { lab } = ground;
  const [from, to] = ground.ends((host, index) => {
    const files = `${lab.folder}/openvpn-${host.name}`;
    execFileSync('openssl', [
      ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'],
      ...['-subj', `/CN=${host.name}`, '-days', '2'],
      ...['-keyout', `${files}.key`, '-out', `${files}.crt`],
    ]);
    const certificate = new X509Certificate(readFileSync(`${files}.crt`));
    const fingerprint = certificate.fingerprint256;
    return { host, files, fingerprint, address: `10.74.0.${index + 1}` };
  });
  const pairs = [
    [from, to, '--tls-server'],
    [to, from, '--tls-client'],
  ] as const;
  await Promise.all(
    pairs.map(([{ host, files, address }, far, role]) => {
      const command = [
        ...['openvpn', '--dev', 'tun', '--topology', 'p2p', '--ifconfig', address, far.address],
        ...['--proto', 'udp', '--local', host.address, '--remote', far.host.address],
        ...[role, '--dh', 'none'],
        ...['--cert', `${files}.crt`, '--key', `${files}.key`],
        ...['--peer-fingerprint', far.fingerprint],
        ...['--cipher', 'AES-256-GCM', '--data-ciphers', 'AES-256-GCM'],
      ];
      return startDaemon(lab, host, command, /Initialization Sequence Completed/);
    }),
  );
  return { from: from.host, to: to.host, address: to.address };
}
