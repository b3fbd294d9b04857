import { type RunCommand, runCommand } from '../process.ts';

/** An address of an interface, as `ip -j addr` shows it. */
export interface InterfaceAddress {
  /** `a.b.c.d`, or IPv6 in the form of RFC 5952. */
  readonly address: string;
  /** Prefix length in bits. */
  readonly prefix: number;
}

/** What weft looks at of an interface. */
export interface InterfaceState {
  readonly name: string;
  /** `aa:bb:cc:dd:ee:ff`. */
  readonly mac: string;
  readonly mtuBytes: number;
  readonly isUp: boolean;
  readonly addresses: readonly InterfaceAddress[];
}

/** iproute2's `ip`. Failures are `CommandError`s that hold what `ip` said. */
export class IpCommand {
  readonly #run: RunCommand;

  /** @param run - Runs the program; give one with a prefix to work in another namespace. */
  constructor(run: RunCommand = runCommand) {
    this.#run = run;
  }

  /**
   * Runs one command.
   *
   * @param args - What follows `ip`.
   * @returns what it printed
   * @throws {CommandError} if `ip` is missing or refuses
   */
  command(args: readonly string[]): Promise<string> {
    return this.#run(['ip', ...args]);
  }

  /**
   * Runs several commands in one process, in order, up to the first that fails; what came before it
   * stays done, so use verbs that may be repeated (`replace`, `set`).
   *
   * @param netns - Name of the network namespace to work in; undefined for this one.
   * @param lines - One command each, as in `ip -batch`: words without blanks in them.
   * @throws {CommandError} naming the line that failed (`Command failed -:2`)
   */
  async batch(netns: string | undefined, lines: readonly string[]): Promise<void> {
    const input = lines.map((line) => `${line}\n`).join('');
    await this.#run(['ip', ...inNetns(netns), '-batch', '-'], { input });
  }

  /**
   * The interfaces with their lasting addresses: IPv6 link-local and temporary ones are left out.
   *
   * @param netns - Name of the network namespace to look in; undefined for this one.
   */
  async interfaces(netns?: string): Promise<readonly InterfaceState[]> {
    const text = await this.#run(['ip', ...inNetns(netns), '-j', 'addr', 'show']);
    return parseInterfaces(text);
  }
}

function inNetns(netns: string | undefined): readonly string[] {
  return netns === undefined ? [] : ['-n', netns];
}

/** The fields that {@link parseInterfaces} reads; iproute2's `print_linkinfo` writes them. */
interface IpAddrJson {
  readonly ifname: string;
  readonly address?: string;
  readonly mtu: number;
  readonly flags: readonly string[];
  readonly addr_info: readonly {
    readonly family: string;
    readonly local: string;
    readonly prefixlen: number;
    readonly scope?: string;
    /** RFC 8981: changes every day. */
    readonly temporary?: boolean;
    readonly deprecated?: boolean;
  }[];
}

/**
 * Reads what `ip -j addr show` printed.
 *
 * @throws {SyntaxError} if it is not JSON
 */
export function parseInterfaces(text: string): readonly InterfaceState[] {
  // `ip -j` prints nothing at all, not `[]`, when there is nothing to show.
  const links = JSON.parse(text.trim() || '[]') as readonly IpAddrJson[];
  return links.map((link) => ({
    name: link.ifname,
    mac: link.address ?? '',
    mtuBytes: link.mtu,
    isUp: link.flags.includes('UP'),
    addresses: link.addr_info
      .filter(isLasting)
      .map((entry) => ({ address: entry.local, prefix: entry.prefixlen })),
  }));
}

function isLasting(entry: IpAddrJson['addr_info'][number]): boolean {
  if (entry.family === 'inet') return true;
  const passes = entry.temporary === true || entry.deprecated === true || entry.scope === 'link';
  return entry.family === 'inet6' && !passes;
}
