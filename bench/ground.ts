import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import type { Lab, LabHost } from '../test/support/lab.ts';

/** Two ends that can talk, and by which address the second one is reached. */
export interface Path {
  /** A host, or the name of a network namespace. */
  readonly from: string | LabHost;
  readonly to: string | LabHost;
  /** IPv4 or IPv6. */
  readonly address: string;
}

/** One of those that are measured beside each other: weft in some form, or a peer. */
export interface Side {
  /** As in `peer` of a row. */
  readonly name: string;
  /** What it runs, by program, with the Debian package that has it. */
  readonly programs?: Readonly<Record<string, string>>;
  /** Builds it, with all that must run for it. */
  readonly build: (ground: Ground) => Promise<Path>;
}

/** A host of the ground: both families reach it on the underlay. */
export interface DualStackHost extends LabHost {
  readonly address6: string;
}

const UNDERLAY6_PREFIX = 'fd00:beef:0:1';

/**
 * Where all sides of a bench are built: one lab, whose first two hosts are the peers'. Agents get hosts
 * of their own, because their firewall rules would slow down peers that run beside them.
 */
export class Ground {
  readonly lab: Lab;
  /** The peers' hosts. */
  readonly hosts: readonly [DualStackHost, DualStackHost];
  /** Further flags of agents. */
  readonly agentFlags: Readonly<Record<string, string>>;
  readonly #made = new Map<unknown, Promise<unknown>>();

  /** @param packetThreads - Of each agent; as many as it chooses itself when absent. */
  constructor(lab: Lab, packetThreads?: number) {
    this.lab = lab;
    this.agentFlags = packetThreads === undefined ? {} : { 'packet-threads': `${packetThreads}` };
    this.hosts = [this.addHost('a'), this.addHost('b')];
  }

  /** Adds a host with both families. */
  addHost(name: string): DualStackHost {
    const host = this.lab.addHost(name);
    const address6 = `${UNDERLAY6_PREFIX}::${this.lab.hosts.length}`;
    this.lab.ip([`addr add ${address6}/64 dev eth0 nodad`], host);
    return { ...host, address6 };
  }

  /** Makes something of each of the peers' hosts. */
  ends<End>(make: (host: DualStackHost, index: number) => End): readonly [End, End] {
    const [first, second] = this.hosts;
    return [make(first, 0), make(second, 1)];
  }

  /** What `make` makes on this ground: several sides share what they have in common. */
  once<Thing>(make: (ground: Ground) => Promise<Thing>): Promise<Thing> {
    const known = this.#made.get(make) as Promise<Thing> | undefined;
    if (known !== undefined) return known;
    const made = make(this);
    this.#made.set(make, made);
    return made;
  }
}

/** Debian packages of those of a side's programs that this machine does not have. */
export function missingPackages({ programs = {} }: Side): readonly string[] {
  const missing = Object.entries(programs).filter(([program]) => !isOnPath(program));
  return [...new Set(missing.map(([, name]) => name))];
}

function isOnPath(program: string): boolean {
  const folders = (process.env.PATH ?? '').split(delimiter);
  return folders.some((folder) => {
    try {
      accessSync(join(folder, program), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}
