import { isEchoRequest, type Packet, PROTO_TCP, TCP_RST } from '../core/packet.ts';
import { ACTION_RETURN, ACTION_REVERSE, Flow, NO_SLOT } from './flow-entry.ts';
import { FlowKey, packPorts } from './flow-key.ts';
import type { FlowTable } from './flow-table.ts';
import {
  FLOW_CLOSING,
  FLOW_DATAGRAM,
  FLOW_ICMP,
  FLOW_STALE_TICKS,
  firstTcpState,
  nextTcpStatus,
  opensConnection,
} from './tcp-tracking.ts';
import type { VtepOrigin } from './verdict.ts';

/**
 * The ways back of packets that another node routed to a task of this node: replies must leave by the
 * node that the client talks to, which holds the other half of the NAT. Allocates nothing.
 */
export class ReturnFlows {
  readonly #flows: FlowTable;
  readonly #key = new FlowKey();
  readonly #flow = new Flow();

  constructor(flows: FlowTable) {
    this.#flows = flows;
  }

  /**
   * Notes how the reply to a routed packet finds its way back, and that the flow lives.
   *
   * @param client - The key of the packet.
   */
  record(packet: Packet, client: FlowKey, origin: VtepOrigin): void {
    if (packet.isIcmp && !isEchoRequest(packet)) return;
    const flows = this.#flows;
    const key = this.#key;
    const ports = packPorts(client.ports & 0xffff, client.ports >>> 16);
    key.set(client.owner, client.destination, client.source, ports);
    if (flows.read(key, this.#flow) && this.#isAsNoted(packet, origin)) {
      flows.touch(this.#flow.slot);
      return;
    }
    flows.lock();
    this.#note(packet, origin);
    flows.unlock();
  }

  /** Whether the flow just read would not be changed by this packet. */
  #isAsNoted(packet: Packet, origin: VtepOrigin): boolean {
    const { action, status, vtep, vtepPort } = this.#flow;
    if (action !== ACTION_RETURN || vtepPort !== origin.vtepPort || !vtep.equals(origin.vtep)) {
      return false; // the client may have changed nodes
    }
    if (packet.protocol !== PROTO_TCP) return true;
    return (
      !opensConnection(packet.tcpFlags) && nextTcpStatus(status, packet.tcpFlags, true) === status
    );
  }

  /** Makes the flow or brings it up to date; the lock is held. */
  #note(packet: Packet, origin: VtepOrigin): void {
    const flows = this.#flows;
    const key = this.#key;
    let slot = flows.find(key);
    if (slot !== NO_SLOT && flows.entries.action(slot) !== ACTION_RETURN) {
      if (!this.#mayReplace(slot, packet)) return;
      flows.remove(slot);
      slot = NO_SLOT;
    }
    if (slot === NO_SLOT && (packet.tcpFlags & TCP_RST) !== 0) return; // nothing will come back
    if (slot === NO_SLOT) {
      slot = flows.insert(key, ACTION_RETURN, NO_SLOT);
      flows.entries.setStatus(slot, firstStatus(packet));
    } else if (this.#startsAnew(slot, packet)) {
      flows.touch(slot);
      flows.entries.setStatus(slot, firstStatus(packet));
    } else {
      flows.touch(slot);
      if (packet.protocol === PROTO_TCP) flows.follow(key, slot, packet, true);
    }
    flows.change(slot);
    flows.entries.setVtep(slot, origin.vtep, origin.vtepPort);
  }

  /** Whether the packet opens a connection with the addresses and ports of one that is over. */
  #startsAnew(slot: number, packet: Packet): boolean {
    if (!opensConnection(packet.tcpFlags)) return false;
    const state = this.#flows.entries.status(slot) & 0xff;
    return state === FLOW_CLOSING || this.#flows.idleTicks(slot) >= FLOW_STALE_TICKS;
  }

  /**
   * Whether a routed packet takes the place of this node's own flow with the same addresses and ports: the
   * client came in here before, and now by another node. A SYN does not show that: left alone, it
   * stays unanswered, and the node that sent it picks another backend.
   */
  #mayReplace(slot: number, packet: Packet): boolean {
    const { entries } = this.#flows;
    if (entries.action(slot) !== ACTION_REVERSE) return false;
    if ((entries.status(slot) & 0xff) === FLOW_CLOSING) return true;
    return !opensConnection(packet.tcpFlags) && (packet.tcpFlags & TCP_RST) === 0;
  }
}

function firstStatus(packet: Packet): number {
  if (packet.protocol === PROTO_TCP) return firstTcpState(packet.tcpFlags);
  return packet.isIcmp ? FLOW_ICMP : FLOW_DATAGRAM;
}
