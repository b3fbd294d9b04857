import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import type { Ground, Path, Side } from '../ground.ts';
import { startDaemon } from './daemon.ts';

const PORT = 4242;

/** Nebula as Debian has it: AES, and its defaults otherwise; two nodes that know each other. */
export const nebula: Side = {
  name: 'nebula',
  programs: { nebula: 'nebula', 'nebula-cert': 'nebula' },
  build,
};

async function build(ground: Ground): Promise<Path> {
  const { lab } = ground;
  const ca = ['-ca-crt', `${lab.folder}/nebula-ca.crt`, '-ca-key', `${lab.folder}/nebula-ca.key`];
  execFileSync('nebula-cert', [
    ...['ca', '-name', 'bench', '-duration', '24h'],
    ...['-out-crt', `${lab.folder}/nebula-ca.crt`, '-out-key', `${lab.folder}/nebula-ca.key`],
  ]);
  const [from, to] = ground.ends((host, index) => ({ host, address: `10.72.0.${index + 1}` }));
  for (const [near, far] of [
    [from, to],
    [to, from],
  ] as const) {
    const files = `${lab.folder}/nebula-${near.host.name}`;
    execFileSync('nebula-cert', [
      ...['sign', ...ca, '-name', near.host.name, '-ip', `${near.address}/24`],
      ...['-out-crt', `${files}.crt`, '-out-key', `${files}.key`],
    ]);
    const anything = [{ port: 'any', proto: 'any', host: 'any' }];
    const settings = {
      pki: { ca: `${lab.folder}/nebula-ca.crt`, cert: `${files}.crt`, key: `${files}.key` },
      static_host_map: { [far.address]: [`${far.host.address}:${PORT}`] },
      listen: { host: '0.0.0.0', port: PORT },
      tun: { dev: 'nebula0' },
      firewall: { inbound: anything, outbound: anything },
    };
    // JSON is YAML.
    writeFileSync(`${files}.yml`, JSON.stringify(settings));
    const command = ['nebula', '-config', `${files}.yml`];
    await startDaemon(lab, near.host, command, /Nebula interface is active/);
  }
  return { from: from.host, to: to.host, address: to.address };
}
