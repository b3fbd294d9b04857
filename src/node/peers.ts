import type { Clock, Log, Random } from '../core/capabilities.ts';
import { parseIp } from '../core/ip.ts';
import type { Json } from '../core/store.ts';
import type { GossipEvent } from '../gossip/effects.ts';
import type { SyncStats } from '../gossip/endpoint-sync.ts';
import { Gossip } from '../gossip/gossip.ts';
import type { MemberView } from '../gossip/member.ts';
import { PROFILE_TUNINGS } from '../gossip/profiles.ts';
import { NodeGossipCipher } from '../io/gossip-cipher.ts';
import { GossipTransport } from '../io/gossip-transport.ts';
import { removeFile } from '../io/json-file.ts';
import { splitHostPort } from '../io/manager-client.ts';
import type { GossipSettings } from '../manager/gossip-protocol.ts';
import type { NodeDescription } from '../manager/session-protocol.ts';
import { ApplyTimes } from './apply-times.ts';
import { type EndpointRecord, endpointText, VTEP_KEY, writeVtepRecord } from './endpoint-record.ts';
import { EndpointView, type VisibleEntry } from './endpoint-view.ts';
import type { Identity } from './identity.ts';
import { RememberedEndpoints } from './remembered-endpoints.ts';

/** What {@link Peers} works with. */
export interface PeersDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** Something that {@link Peers.view} shows has changed. */
  readonly onChanged: () => void;
  /** Gossip has declared another node dead. */
  readonly onFailed: (nodeId: string) => void;
}

/** Who this node is among the others, and how it speaks to them. */
export interface PeersOptions {
  readonly identity: Identity;
  readonly settings: GossipSettings;
  /** This machine's, for the people of the other nodes. */
  readonly description: Pick<NodeDescription, 'hostname' | 'agentVersion'>;
  /** Where the last view is kept for the next agent: on a tmpfs. */
  readonly memoryFile: string;
}

/** An endpoint as a node announces it. */
export interface AnnouncedEndpoint {
  /** Id of the node that has it. */
  readonly node: string;
  readonly key: string;
  readonly record: EndpointRecord;
  /** Equal for equal endpoints, on every node and whenever they were announced. */
  readonly text: string;
  /** Whether gossip has not told of its node yet, and the last agent is believed. */
  readonly isRemembered: boolean;
}

/** The other nodes, what they announce, and what this node announces to them. */
export class Peers {
  /** What all live nodes announce. */
  readonly view: EndpointView;
  /** From when gossip tells of a change of another node until the data plane has it. */
  readonly applyTimes: ApplyTimes;
  readonly #deps: PeersDeps;
  readonly #identity: Identity;
  readonly #memoryFile: string;
  readonly #gossip: Gossip;
  readonly #transport: GossipTransport;
  readonly #remembered: RememberedEndpoints;
  /** Seeds to join by once it starts; undefined from then on. */
  #early: string[] | undefined = [];
  /** Whether what was announced goes out at the end of this turn of the event loop. */
  #isTelling = false;
  #closed = false;

  constructor(deps: PeersDeps, options: PeersOptions) {
    const { clock, random, log } = deps;
    const { identity, settings, description, memoryFile } = options;
    const { hostname, agentVersion } = description;
    const { label, compression, profile } = settings;
    this.#deps = deps;
    this.#identity = identity;
    this.#memoryFile = memoryFile;
    this.#gossip = new Gossip(
      { random, cipher: new NodeGossipCipher(), epochMs: () => clock.epochMs() },
      {
        name: identity.nodeId,
        address: identity.advertiseAddress,
        port: identity.gossipPort,
        generation: identity.generation,
        tuning: PROFILE_TUNINGS[profile],
        compression,
        ...(label === undefined ? {} : { label }),
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
    const { nodeId, advertiseAddress, dataPathPort } = identity;
    this.view = new EndpointView(nodeId);
    this.applyTimes = new ApplyTimes(() => clock.nowMs());
    this.#remembered = new RememberedEndpoints(this.view, nodeId, memoryFile, () =>
      deps.onChanged(),
    );
    // Not announced as a change: who made this object cannot be told of it yet.
    const vtep = { address: parseIp(advertiseAddress), port: dataPathPort, hostname };
    this.#set(VTEP_KEY, writeVtepRecord(vtep));
  }

  /** Recalls what the last agent of this host knew; gossip itself is silent until {@link start}. */
  async recall(): Promise<void> {
    await this.#remembered.load();
  }

  /**
   * What it seals and opens by, the first one being what it seals by.
   *
   * @param options - `seal`: nothing is sent in plaintext; `strict`: nothing is taken in plaintext.
   */
  setKeys(
    keys: readonly Uint8Array[],
    options: { readonly seal: boolean; readonly strict: boolean },
  ): void {
    this.#gossip.setKeys(keys, options);
  }

  /** Begins to speak; nothing happens if it has. @throws {Error} if the gossip port is taken */
  async start(): Promise<void> {
    if (this.isStarted || this.#closed) return;
    await this.#transport.start();
    const seeds = this.#early ?? [];
    this.#early = undefined;
    this.join(seeds);
  }

  /** Whether it speaks: not before {@link start}. */
  get isStarted(): boolean {
    return this.#early === undefined;
  }

  /**
   * Looks for the other nodes, as soon as it speaks.
   *
   * @param seeds - `host:port` of members; this node's own address among them does no harm.
   */
  join(seeds: readonly string[]): void {
    if (this.#early !== undefined) {
      this.#early = [...seeds]; // the newest are the ones to try
      return;
    }
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
    this.#set(key, value);
    this.#tellSoon();
    this.#deps.onChanged();
  }

  /** All announced endpoints that can be read, this node's included, in no particular order. */
  *entries(): Generator<AnnouncedEndpoint> {
    for (const { by, key, record } of this.view.announced()) {
      const { node } = by;
      const isRemembered = this.#remembered.isBelieved(node);
      yield { node, key, record, text: endpointText(record), isRemembered };
    }
  }

  /** What gossip shows of all live nodes, this one included. */
  visible(): readonly VisibleEntry[] {
    return [...this.#gossip.table.visible()];
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

  /** How the endpoint tables compare with those of other nodes. */
  syncStats(): SyncStats {
    return this.#gossip.syncStats();
  }

  /** Tells the others that this node is gone for good, and forgets them. */
  async leave(): Promise<void> {
    if (this.isStarted) await this.#transport.leave();
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

  /** What is announced together goes out together. */
  #tellSoon(): void {
    if (this.#isTelling || !this.isStarted) return;
    this.#isTelling = true;
    setImmediate(() => {
      this.#isTelling = false;
      if (!this.#closed) this.#transport.announce();
    });
  }

  #hear(event: GossipEvent): void {
    const { log, onChanged, onFailed } = this.#deps;
    switch (event.kind) {
      case 'member': {
        const { name, address, state } = event.member;
        log.info({ node: name, address, change: event.change }, 'member changed');
        if (event.change === 'failed') onFailed(name);
        this.#remembered.setMember(name, state);
        break;
      }
      case 'endpoints':
        if (event.node !== this.#identity.nodeId) this.applyTimes.heard();
        this.#remembered.change(event);
        break;
      case 'conflict': {
        const { member, claimed } = event;
        log.error({ node: member.name, claimed }, 'two nodes have the same name');
        return;
      }
      default:
        return;
    }
    onChanged();
  }

  #set(key: string, value: Json | undefined): void {
    if (value === undefined) this.#gossip.table.deleteLocal(key);
    else this.#gossip.table.setLocal(key, value);
    const node = this.#identity.nodeId;
    const added = value === undefined ? [] : [{ key, value }];
    const removed = value === undefined ? [key] : [];
    this.view.change({ node, added, changed: [], removed });
  }
}
