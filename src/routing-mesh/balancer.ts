import { PROTO_TCP } from '../core/packet.ts';
import { ACTION_FORWARD, ACTION_RETURN, ACTION_REVERSE, NO_SLOT } from './flow-entry.ts';
import { pickHash } from './flow-hash.ts';
import { FlowKey, packOwner, packPorts, protocolOf, scopeOf } from './flow-key.ts';
import type { FlowTable } from './flow-table.ts';
import { Rewrite } from './nat.ts';
import type { Service } from './services.ts';
import {
  FLOW_CLOSING,
  FLOW_DATAGRAM,
  firstTcpState,
  MARK_GONE,
  opensConnection,
} from './tcp-tracking.ts';

/** Answers of {@link Balancer.open} that are no slots. */
export const OPEN_NO_BACKEND = -1;
export const OPEN_NO_PORT = -2;

/** Source ports tried before a flow is refused: free ones are the rule, so more would only cost time. */
const PORT_TRIES = 16;
/** Source ports given to clients whose own is taken: none that means something (RFC 6335). */
const FIRST_PORT = 1024;
const PORTS = 0x1_0000 - FIRST_PORT;

/** Makes flows: picks a backend and records both directions. Allocates nothing. */
export class Balancer {
  readonly #flows: FlowTable;
  readonly #key = new FlowKey();
  readonly #rewrite = new Rewrite();

  constructor(flows: FlowTable) {
    this.#flows = flows;
  }

  /**
   * Makes a flow for a TCP or UDP packet to a VIP that has none. The client keeps its address and port,
   * with two exceptions: a task that meets itself behind its own VIP comes from the gateway, or it would
   * answer itself directly; and a port that another flow to the same backend port uses is replaced,
   * or replies could not be told apart.
   *
   * A direct connection of the client to the backend is no flow, so that its port is not seen as used. The
   * flow table's lock must be held.
   *
   * @param client - The key of the packet, which is for `service`.
   * @param tcpFlags - Of the packet; 0 for UDP.
   * @param attempt - How many backends were given up on.
   * @returns the slot of the forward entry, {@link OPEN_NO_BACKEND} or {@link OPEN_NO_PORT}
   */
  open(client: FlowKey, tcpFlags: number, service: Service, attempt: number): number {
    const protocol = protocolOf(client.owner);
    const sourcePort = client.ports >>> 16;
    const destinationPort = client.ports & 0xffff;
    const { source, destination } = client;
    const hash = pickHash(source, destination, (sourcePort << 16) | protocol);
    const target = service.pick(hash, attempt);
    if (target === undefined) return OPEN_NO_BACKEND;
    const rewrite = this.#rewrite;
    rewrite.source.copy(target.address.equals(source) ? service.gatewayWords : source);
    rewrite.destination.copy(target.address);
    rewrite.destinationPort = destinationPort;
    if (!this.#claimSourcePort(client, tcpFlags, target.scope, hash)) return OPEN_NO_PORT;

    const flows = this.#flows;
    const { entries } = flows;
    const reverse = flows.insert(this.#key, ACTION_REVERSE, NO_SLOT);
    const forward = flows.insert(client, ACTION_FORWARD, reverse);
    entries.link(forward, reverse);
    entries.setStatus(forward, protocol === PROTO_TCP ? firstTcpState(tcpFlags) : FLOW_DATAGRAM);
    entries.setAttempt(forward, attempt);
    entries.setRewrite(forward, rewrite, target.scope);
    rewrite.source.copy(destination);
    rewrite.destination.copy(source);
    rewrite.sourcePort = destinationPort;
    rewrite.destinationPort = sourcePort;
    entries.setRewrite(reverse, rewrite, scopeOf(client.owner));
    return forward;
  }

  /** Finds a source port whose replies belong to no one else; leaves it and the reverse key in the fields. */
  #claimSourcePort(client: FlowKey, tcpFlags: number, scope: number, hash: number): boolean {
    const owner = packOwner(scope, protocolOf(client.owner));
    const destinationPort = client.ports & 0xffff;
    const key = this.#key;
    const rewrite = this.#rewrite;
    for (let attempt = 0; attempt < PORT_TRIES; attempt++) {
      const port =
        attempt === 0
          ? client.ports >>> 16
          : FIRST_PORT + (((hash >>> 1) + attempt * 7919) % PORTS);
      key.set(owner, rewrite.destination, rewrite.source, packPorts(destinationPort, port));
      rewrite.sourcePort = port;
      const taken = this.#flows.find(key);
      if (taken === NO_SLOT) return true;
      if (this.#mayTakeOver(taken, tcpFlags)) {
        this.#flows.remove(taken);
        return true;
      }
    }
    return false;
  }

  /**
   * Whether the flow in `slot` gives up its place: it is over; or it is a client's way back through another
   * node, and the client has begun to come in by this one. A SYN cannot tell the latter.
   */
  #mayTakeOver(slot: number, tcpFlags: number): boolean {
    const { entries } = this.#flows;
    const status = entries.status(slot);
    if ((status & 0xff) === FLOW_CLOSING || ((status >>> 8) & MARK_GONE) !== 0) return true;
    return entries.action(slot) === ACTION_RETURN && !opensConnection(tcpFlags);
  }
}
