import type { Clock, Log, Random } from '../core/capabilities.ts';
import type { Json } from '../core/store.ts';
import type { GossipEvent } from '../gossip/effects.ts';
import { Gossip } from '../gossip/gossip.ts';
import type { MemberState, MemberView } from '../gossip/member.ts';
import { GossipTransport } from '../io/gossip-transport.ts';
import { removeFile } from '../io/json-file.ts';
import { splitHostPort } from '../io/manager-client.ts';
import type { NodeDescription } from '../manager/session-protocol.ts';
import type { PlacedEndpoint } from './desired-tables.ts';
import { VTEP_KEY } from './endpoint-record.ts';
import { type PlacedVtep, placedEndpoints, vtepRecords } from './gossip-view.ts';
import type { Identity } from './identity.ts';
import { RememberedEndpoints } from './remembered-endpoints.ts';

/** What {@link Peers} works with. */
export interface PeersDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** Something that {@link Peers.view} shows may have changed. */
  readonly onChanged: () => void;
  /** Gossip has declared another node dead. */
  readonly onFailed: (nodeId: string) => void;
}

/** The other nodes, what they announce, and what this node announces to them. */
export class Peers {
  readonly #deps: PeersDeps;
  readonly #identity: Identity;
  readonly #memoryFile: string;
  readonly #gossip: Gossip;
  readonly #transport: GossipTransport;
  readonly #remembered: RememberedEndpoints;
  #closed = false;

  /**
   * @param description - This machine's, for the people of the other nodes.
   * @param memoryFile - Where the last view is kept for the next agent: on a tmpfs.
   */
  constructor(
    deps: PeersDeps,
    identity: Identity,
    description: Pick<NodeDescription, 'hostname' | 'agentVersion'>,
    memoryFile: string,
  ) {
    const { hostname, agentVersion } = description;
    const { clock, random, log } = deps;
    this.#deps = deps;
    this.#identity = identity;
    this.#memoryFile = memoryFile;
    this.#gossip = new Gossip(
      { random },
      {
        name: identity.nodeId,
        address: identity.advertiseAddress,
        port: identity.gossipPort,
        generation: identity.generation,
        tags: new Map([
          ['hostname', hostname],
          ['version', agentVersion],
        ]),
      },
      clock.nowMs(),
    );
    this.#transport = new GossipTransport(
      { clock, log, gossip: this.#gossip },
      { onEvent: (event) => this.#hear(event) },
    );
    this.#remembered = new RememberedEndpoints(memoryFile, () => deps.onChanged());
    // Not announced as a change: who made this object cannot be told of it yet.
    const vtep = { address: identity.advertiseAddress, port: identity.dataPathPort, hostname };
    this.#gossip.table.setLocal(VTEP_KEY, vtep);
  }

  /** Recalls what the last agent of this host knew; gossip itself is silent until {@link start}. */
  async recall(): Promise<void> {
    await this.#remembered.load();
  }

  /** @throws {Error} if the gossip port is taken */
  async start(): Promise<void> {
    await this.#transport.start();
  }

  /**
   * Looks for the other nodes.
   *
   * @param seeds - `host:port` of members; this node's own address among them does no harm.
   */
  join(seeds: readonly string[]): void {
    const { advertiseAddress, gossipPort } = this.#identity;
    const addresses = seeds.map((seed) => splitHostPort(seed, gossipPort));
    const others = addresses.filter(
      ({ host, port }) => host !== advertiseAddress || port !== gossipPort,
    );
    this.#transport.join(others.map(({ host, port }) => ({ address: host, port })));
  }

  /** Puts an entry into this node's own record, or takes it out (`undefined`). */
  announce(key: string, value: Json | undefined): void {
    if (this.#closed) return;
    if (value === undefined) this.#gossip.table.deleteLocal(key);
    else this.#gossip.table.setLocal(key, value);
    this.#deps.onChanged();
  }

  /** Endpoints of all live nodes, this one included, and the VTEPs of the others. */
  view(): { readonly endpoints: readonly PlacedEndpoint[]; readonly vteps: readonly PlacedVtep[] } {
    const { nodeId } = this.#identity;
    const told = [...this.#gossip.table.visible()];
    const visible = this.#remembered.complete(told, this.#membersIn(['dead', 'left']));
    this.#remembered.remember(visible.filter(({ node }) => node !== nodeId));
    return {
      endpoints: placedEndpoints(visible, nodeId, this.#membersIn(['suspect'])),
      vteps: vtepRecords(visible, nodeId),
    };
  }

  /** All known members, this node first. */
  members(): readonly MemberView[] {
    return this.#gossip.members();
  }

  /** Lifeguard's awareness: 0 if this node keeps up with the protocol. */
  get healthScore(): number {
    return this.#gossip.localHealth;
  }

  /** Messages dropped and streams failed, by reason. */
  faults(): Record<string, number> {
    return this.#transport.counters();
  }

  /** Tells the others that this node is gone for good, and forgets them. */
  async leave(): Promise<void> {
    await this.#transport.leave();
    await this.close();
    await removeFile(this.#memoryFile);
  }

  /** Falls silent: to the others it looks like a crash, until the next agent starts. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#transport.close();
    await this.#remembered.close();
  }

  #hear(event: GossipEvent): void {
    const { log, onChanged, onFailed } = this.#deps;
    if (event.kind === 'member') {
      const { name, address } = event.member;
      log.info({ node: name, address, change: event.change }, 'member changed');
      if (event.change === 'failed') onFailed(name);
    } else if (event.kind === 'conflict') {
      log.error(
        { node: event.member.name, claimed: event.claimed },
        'two nodes have the same name',
      );
    }
    onChanged();
  }

  #membersIn(states: readonly MemberState[]): ReadonlySet<string> {
    const members = this.#gossip.members().filter(({ state }) => states.includes(state));
    return new Set(members.map(({ name }) => name));
  }
}
