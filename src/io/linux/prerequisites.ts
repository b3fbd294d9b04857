import { closeSync, constants, openSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { findExecutable, SYSTEM_PATH } from '../process.ts';

/** Something that this host lacks, said so that an operator can act on it. */
export interface MissingPrerequisite {
  /** Such as `CAP_NET_ADMIN`, `/dev/net/tun` or `nft`. */
  readonly what: string;
  /** What weft needs it for. */
  readonly why: string;
  /** The command that fixes it on Debian and its kin. */
  readonly fix: string;
}

/** What {@link missingPrerequisites} asks the host. Injected, so that every answer can be tested. */
export interface HostProbes {
  /** Effective capabilities as a bit set (capabilities(7)). */
  capabilities(): Promise<bigint>;
  /** Opens /dev/net/tun; `undefined` when that works, else the errno's name. */
  openTun(): string | undefined;
  hasProgram(name: string): Promise<boolean>;
}

// linux/capability.h
const CAP_NET_ADMIN = 12n;
const CAP_SYS_ADMIN = 21n;

const PROGRAMS = [
  { name: 'ip', why: 'it makes network namespaces and interfaces', package: 'iproute2' },
  { name: 'tc', why: 'it sets up interfaces of several packet threads', package: 'iproute2' },
  { name: 'nft', why: 'it publishes ports', package: 'nftables' },
  { name: 'nsenter', why: 'it starts tasks in their network namespace', package: 'util-linux' },
  { name: 'setpriv', why: 'it starts tasks as their user', package: 'util-linux' },
] as const;

/**
 * Looks for everything that an agent needs of its host.
 *
 * @returns all that is missing, not only the first; empty when the agent can start
 */
export async function missingPrerequisites(
  probes: HostProbes = LINUX_PROBES,
): Promise<readonly MissingPrerequisite[]> {
  const missing: MissingPrerequisite[] = [];
  const capabilities = await probes.capabilities();
  const lacks = (bit: bigint) => (capabilities & (1n << bit)) === 0n;
  if (lacks(CAP_NET_ADMIN)) {
    missing.push({
      what: 'CAP_NET_ADMIN',
      why: 'weft makes interfaces, routes and nftables rules',
      fix: 'run weft as root: sudo weft … (in a container: --cap-add NET_ADMIN)',
    });
  }
  if (lacks(CAP_SYS_ADMIN)) {
    missing.push({
      what: 'CAP_SYS_ADMIN',
      why: 'weft makes and enters network namespaces',
      fix: 'run weft as root: sudo weft … (in a container: --cap-add SYS_ADMIN)',
    });
  }
  const tunError = probes.openTun();
  if (tunError !== undefined) {
    missing.push({
      what: `/dev/net/tun (${tunError})`,
      why: 'every task is connected through a TAP device',
      fix: tunFix(tunError),
    });
  }
  const isThere = await Promise.all(PROGRAMS.map(({ name }) => probes.hasProgram(name)));
  for (const [index, program] of PROGRAMS.entries()) {
    if (isThere[index]) continue;
    missing.push({
      what: program.name,
      why: program.why,
      fix: `apt-get install ${program.package}`,
    });
  }
  return missing;
}

function tunFix(code: string): string {
  // The node is there and no driver answers it.
  if (code === 'ENODEV' || code === 'ENXIO') return 'modprobe tun';
  if (code === 'ENOENT') {
    return 'modprobe tun; mkdir -p /dev/net; mknod -m 666 /dev/net/tun c 10 200';
  }
  return 'run weft as root: sudo weft … (in a container: --device /dev/net/tun)';
}

const LINUX_PROBES: HostProbes = {
  async capabilities() {
    const status = await readFile('/proc/self/status', 'utf8');
    return BigInt(`0x${/^CapEff:\s*([0-9a-f]+)/m.exec(status)?.[1] ?? '0'}`);
  },
  openTun() {
    try {
      closeSync(openSync('/dev/net/tun', constants.O_RDWR));
      return undefined;
    } catch (error) {
      return (error as NodeJS.ErrnoException).code ?? String(error);
    }
  },
  async hasProgram(name) {
    return (await findExecutable(name, SYSTEM_PATH, '/')).found;
  },
};
