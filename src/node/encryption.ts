import type { Clock, Log, Random } from '../core/capabilities.ts';
import { invariant } from '../core/invariant.ts';
import { formatIp, type Ip, parseIp } from '../core/ip.ts';
import type { DataPlaneCommand, SecureEvent } from '../dataplane/commands.ts';
import { NODE_NOISE_CRYPTO } from '../io/noise-crypto.ts';
import type { AssignmentSet } from '../manager/session-protocol.ts';
import { labelBytes } from '../noise/crypto.ts';
import { HANDSHAKE_DROPS, type HandshakeDrop, type SecureEffect } from '../noise/effects.ts';
import { SESSION_LANES_MAX } from '../noise/keypairs.ts';
import { REPLAY_WINDOW_WORDS } from '../noise/replay-window.ts';
import { type SecureChannelStatus, SecureChannels } from '../noise/secure-channels.ts';

/** What {@link Encryption} works with. */
export interface EncryptionDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** Runs `task` once at `atMs` of the monotonic clock; the result takes it back. */
  readonly schedule: (atMs: number, task: () => void) => () => void;
  /** Hands commands to the data plane, in order. */
  readonly apply: (commands: readonly DataPlaneCommand[]) => Promise<void>;
}

/** Who this node is to the others. */
export interface EncryptionOptions {
  /** X25519, 32 bytes. */
  readonly privateKey: Uint8Array;
  /** Nodes of different clusters do not understand each other. */
  readonly clusterId: string;
  /** Wall-clock milliseconds that this node's handshakes are later than, in all its lives. */
  readonly generation: number;
}

/** Another node, as the manager vouches for it. */
export interface EncryptedPeer {
  readonly nodeId: string;
  readonly publicKey: Uint8Array;
  readonly vtep: Ip;
  readonly port: number;
}

/** The other nodes that the manager vouches for. Their keys come from it alone. */
export function encryptedPeers({ nodeId, nodes }: AssignmentSet): EncryptedPeer[] {
  // Assignments that an earlier version stored have no nodes.
  const others = (nodes ?? []).filter(({ id }) => id !== nodeId);
  return others.map(({ id, publicKey, address, dataPathPort }) => ({
    nodeId: id,
    publicKey: new Uint8Array(Buffer.from(publicKey, 'base64')),
    vtep: parseIp(address),
    port: dataPathPort,
  }));
}

/** Where the handshakes of encrypted networks happen: joins the state machine, the clock and the data plane. */
export class Encryption {
  readonly #deps: EncryptionDeps;
  readonly #channels: SecureChannels;
  /** By node id. BOUNDED by the nodes of the cluster, as is the other map. */
  readonly #vteps = new Map<string, Ip>();
  readonly #nodeIds = new Map<Ip, string>();
  readonly #drops = new Map<HandshakeDrop, number>(HANDSHAKE_DROPS.map((reason) => [reason, 0]));
  #cancelTick: () => void = () => {};
  #closed = false;

  constructor(deps: EncryptionDeps, options: EncryptionOptions) {
    const { clock, random } = deps;
    this.#deps = deps;
    this.#channels = new SecureChannels({
      identity: {
        crypto: NODE_NOISE_CRYPTO,
        staticKeys: NODE_NOISE_CRYPTO.keyPair(options.privateKey),
        prologue: labelBytes(`weft v1 ${options.clusterId}`),
      },
      clock,
      random,
      timestampFloorMs: options.generation,
    });
  }

  /** The whole set of nodes that sessions may be had with; the sessions of all others end at once. */
  setPeers(peers: readonly EncryptedPeer[]): void {
    const effects = this.#channels.setPeers(
      peers.map(({ nodeId, publicKey, vtep, port }) => ({
        id: nodeId,
        publicKey,
        endpoint: { address: vtep, port },
      })),
    );
    this.#perform(effects); // Removals still need the addresses of those that were removed.
    this.#vteps.clear();
    this.#nodeIds.clear();
    for (const { nodeId, vtep } of peers) {
      this.#vteps.set(nodeId, vtep);
      this.#nodeIds.set(vtep, nodeId);
    }
  }

  /** Something that the packet thread says. */
  receive(event: SecureEvent): void {
    const channels = this.#channels;
    switch (event.kind) {
      case 'handshake': {
        const { address, port, bytes } = event;
        this.#perform(channels.receive({ address, port }, bytes));
        return;
      }
      case 'needSession':
        this.#perform(channels.wantSession(this.#nodeIds.get(event.vtep) ?? ''));
        return;
      case 'sessionConfirmed': {
        const { localIndex } = event;
        this.#apply([{ kind: 'confirmSession', localIndex }]); // on all packet threads
        this.#perform(channels.confirmed(localIndex));
        return;
      }
      case 'peerMoved':
        this.#perform(channels.moved(event.localIndex, event.address));
        return;
      case 'sessionActivity':
        this.#perform(channels.active(event.sessions));
        return;
    }
  }

  /** One entry per node that the manager vouches for. */
  status(): SecureChannelStatus[] {
    return this.#channels.status();
  }

  /** Handshake messages that were not acted upon, by reason. */
  drops(): Record<HandshakeDrop, number> {
    return Object.fromEntries(this.#drops) as Record<HandshakeDrop, number>;
  }

  /** Falls silent. Sessions end with the data plane. */
  close(): void {
    this.#closed = true;
    this.#cancelTick();
  }

  #perform(effects: readonly SecureEffect[]): void {
    if (this.#closed) return;
    const commands = effects.flatMap((effect) => this.#commandsOf(effect));
    if (commands.length > 0) this.#apply(commands);
    this.#cancelTick();
    const { deadlineMs } = this.#channels;
    this.#cancelTick = Number.isFinite(deadlineMs)
      ? this.#deps.schedule(deadlineMs, () => this.#perform(this.#channels.tick()))
      : () => {};
  }

  #apply(commands: readonly DataPlaneCommand[]): void {
    if (this.#closed) return;
    this.#deps.apply(commands).catch((error: unknown) => {
      if (!this.#closed) this.#deps.log.error({ error: String(error) }, 'encryption failed');
    });
  }

  #commandsOf(effect: SecureEffect): DataPlaneCommand[] {
    switch (effect.kind) {
      case 'send': {
        const { to, bytes } = effect;
        return [{ kind: 'sendDatagram', to: to.address, port: to.port, bytes }];
      }
      case 'install': {
        const { keypair, isConfirmed, to } = effect;
        const words = SESSION_LANES_MAX * REPLAY_WINDOW_WORDS;
        const memory = new SharedArrayBuffer(words * Int32Array.BYTES_PER_ELEMENT);
        const replayWords = new Int32Array(memory);
        const vtep = this.#vtepOf(effect.peerId);
        const { address, port } = to;
        return [{ kind: 'installSession', vtep, address, port, keypair, replayWords, isConfirmed }];
      }
      case 'remove':
        return [{ kind: 'removeSession', localIndex: effect.localIndex }];
      case 'keepalive':
        return [{ kind: 'sendKeepalive', vtep: this.#vtepOf(effect.peerId) }];
      case 'move': {
        const vtep = this.#vtepOf(effect.peerId);
        this.#deps.log.info(
          { node: effect.peerId, vtep: formatIp(vtep), address: formatIp(effect.to.address) },
          'a node is heard from another address',
        );
        return [{ kind: 'movePeer', vtep, address: effect.to.address, port: effect.to.port }];
      }
      case 'giveUp':
        this.#deps.log.warn({ node: effect.peerId }, 'a node does not answer handshakes');
        return [];
      case 'drop':
        this.#drops.set(effect.reason, (this.#drops.get(effect.reason) ?? 0) + 1);
        return [];
    }
  }

  #vtepOf(nodeId: string): Ip {
    const vtep = this.#vteps.get(nodeId);
    invariant(vtep !== undefined, 'only peers have sessions');
    return vtep;
  }
}
