import { AddressWords } from '../core/address-words.ts';
import { invariant } from '../core/invariant.ts';
import { PROTO_ICMP, PROTO_ICMPV6, PROTO_TCP, PROTO_UDP } from '../core/packet.ts';
import type { Mesh } from '../routing-mesh/mesh.ts';
import { HOST_SCOPE } from '../routing-mesh/verdict.ts';
import { Endpoint, Network } from '../vxlan/fdb.ts';
import type { CaptureTaps } from './capture-taps.ts';
import type { DataPlaneCommand, DataPlaneStatus, SecureCommand, ThreadPlace } from './commands.ts';
import type { Peer, Peers } from './peers.ts';
import { Port, shareOfPort } from './port.ts';
import type { SecureSessions } from './secure-sessions.ts';
import type { Switch } from './switch.ts';

/** Told when a port starts or stops being served. */
export interface PortListener {
  readonly added: (port: Port) => void;
  readonly removed: (port: Port) => void;
}

/** Sends path probes. */
export interface ProbeSender {
  readonly send: (command: Command<'probe'>) => void;
}

/** What {@link Tables} is in charge of. */
export type TableCommand = Exclude<DataPlaneCommand, SecureCommand>;

type Command<Kind extends DataPlaneCommand['kind']> = Extract<
  DataPlaneCommand,
  { readonly kind: Kind }
>;

/** What {@link Tables} changes and tells. */
export interface TablesDeps {
  readonly decide: Switch;
  readonly mesh: Mesh;
  readonly peers: Peers;
  readonly secure: SecureSessions;
  readonly listener: PortListener;
  readonly probes: ProbeSender;
  readonly taps: CaptureTaps;
  /** Which packet thread this is. */
  readonly place: ThreadPlace;
}

/** Applies the control thread's commands to the tables that one packet loop reads. */
export class Tables {
  readonly #switch: Switch;
  readonly #mesh: Mesh;
  readonly #peers: Peers;
  readonly #secure: SecureSessions;
  readonly #probes: ProbeSender;
  readonly #taps: CaptureTaps;
  readonly #listener: PortListener;
  readonly #place: ThreadPlace;
  /** By id. BOUNDED by the attachments of this node's tasks. */
  readonly #ports = new Map<number, Port>();

  constructor(deps: TablesDeps) {
    this.#switch = deps.decide;
    this.#mesh = deps.mesh;
    this.#peers = deps.peers;
    this.#secure = deps.secure;
    this.#listener = deps.listener;
    this.#probes = deps.probes;
    this.#taps = deps.taps;
    this.#place = deps.place;
  }

  /** The port with `id`, if it is served. */
  port(id: number): Port | undefined {
    return this.#ports.get(id);
  }

  /** All ports that are served. */
  ports(): Iterable<Port> {
    return this.#ports.values();
  }

  /** @throws {Error} if the command names a network or port that does not exist */
  apply(command: TableCommand): void {
    switch (command.kind) {
      case 'setNetwork':
        this.#setNetwork(command);
        return;
      case 'removeNetwork':
        this.#removeNetwork(command.vni);
        return;
      case 'addPort':
        this.#addPort(command);
        return;
      case 'addHostPort':
        this.#addHostPort(command);
        return;
      case 'removePort':
        this.#removePort(command.id);
        return;
      case 'setEndpoint':
        this.#setEndpoint(command);
        return;
      case 'removeEndpoint':
        this.#removeEndpoint(command);
        return;
      case 'setVtep':
        this.#peers.add(command.address, command.port, command.slot);
        return;
      case 'removeVtep':
        this.#peers.remove(command.address);
        return;
      case 'setPathMtu':
        this.#setPathMtu(command);
        return;
      case 'probe':
        if (this.#place.index === 0) this.#probes.send(command);
        return;
      case 'setService':
        this.#mesh.setService(command.service);
        return;
      case 'removeService':
        this.#mesh.removeService(command.scope, command.vip);
        return;
      case 'setCapture':
        this.#setCapture(command);
        return;
      case 'clearCapture':
        this.#taps.clear(command.id);
        return;
    }
  }

  /** Gauges of the tables. */
  status(): DataPlaneStatus {
    const networks = [...this.#switch.networks.values()];
    return {
      ports: this.#ports.size,
      networks: networks.length,
      endpoints: networks.reduce((sum, network) => sum + network.size, 0),
      vteps: this.#peers.size,
      services: this.#mesh.size,
      flows: {
        tcp: this.#mesh.activeFlows(PROTO_TCP),
        udp: this.#mesh.activeFlows(PROTO_UDP),
        icmp: this.#mesh.activeFlows(PROTO_ICMP) + this.#mesh.activeFlows(PROTO_ICMPV6),
      },
      aead: this.#secure.aeadName,
    };
  }

  #network(vni: number): Network<Port, Peer> {
    const network = this.#switch.networks.get(vni);
    invariant(network !== undefined, `VNI ${vni} has a network before anything is put on it`);
    return network;
  }

  #setNetwork(command: Command<'setNetwork'>): void {
    const { vni, encrypted } = command;
    if (encrypted === true) this.#secure.encryptedVnis.add(vni);
    else this.#secure.encryptedVnis.delete(vni);
    const network = new Network<Port, Peer>(vni, command);
    for (const endpoint of this.#switch.networks.get(vni)?.endpoints() ?? []) network.set(endpoint);
    this.#switch.networks.set(vni, network);
  }

  #removeNetwork(vni: number): void {
    const network = this.#switch.networks.get(vni);
    this.#switch.networks.delete(vni);
    this.#secure.encryptedVnis.delete(vni);
    for (const endpoint of network?.endpoints() ?? []) this.#released(endpoint);
  }

  #addPort(command: Command<'addPort'>): void {
    const { id, fds, vni } = command;
    const port = new Port({ ...command, ...shareOfPort(id, fds, this.#place), scope: vni });
    const network = this.#network(vni);
    const rivals = network.rivals(command);
    network.set(new Endpoint<Port, Peer>(command, { port }));
    for (const rival of rivals) this.#released(rival);
    this.#serve(port);
  }

  #addHostPort(command: Command<'addHostPort'>): void {
    const { id, fds } = command;
    const share = shareOfPort(id, fds, this.#place);
    const port = new Port({ ...command, ...share, scope: HOST_SCOPE });
    this.#switch.hostPort = port;
    this.#serve(port);
  }

  #serve(port: Port): void {
    invariant(!this.#ports.has(port.id), `port id ${port.id} is used once`);
    this.#ports.set(port.id, port);
    this.#listener.added(port);
  }

  #removePort(id: number): void {
    const port = this.#ports.get(id);
    if (port === undefined) return;
    this.#ports.delete(id);
    this.#listener.removed(port);
    if (this.#switch.hostPort === port) this.#switch.hostPort = undefined;
    const network = this.#switch.networks.get(port.scope);
    if (network?.byAddress(port.address)?.port === port) network.delete(port.address);
  }

  #setEndpoint(command: Command<'setEndpoint'>): void {
    const network = this.#network(command.vni);
    const rivals = network.rivals(command);
    for (const { port } of rivals) if (port !== undefined) return;
    const peer = this.#peers.at(command.vtep);
    peer.endpoints += 1;
    network.set(new Endpoint<Port, Peer>(command, { peer }));
    for (const rival of rivals) this.#released(rival);
  }

  #removeEndpoint({ vni, address, vtep }: Command<'removeEndpoint'>): void {
    const network = this.#switch.networks.get(vni);
    const endpoint = network?.byAddress(address);
    if (endpoint?.peer?.address !== vtep) return;
    network?.delete(address);
    this.#released(endpoint);
  }

  #setPathMtu({ address, mtuBytes }: Command<'setPathMtu'>): void {
    const peer = this.#peers.find(AddressWords.of(address));
    if (peer?.isKnown === true) peer.setPathMtu(mtuBytes);
  }

  #setCapture({ id, filter, rings }: Command<'setCapture'>): void {
    const { index, count } = this.#place;
    const ring = rings[index];
    invariant(ring !== undefined, `capture ${id} has ${rings.length} rings for ${count} threads`);
    this.#taps.set(id, filter, ring);
  }

  /** An endpoint is out of its network. */
  #released({ peer }: Endpoint<Port, Peer>): void {
    if (peer === undefined) return;
    peer.endpoints -= 1;
    this.#peers.forgetUnused(peer);
  }
}
