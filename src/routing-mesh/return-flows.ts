import { type Packet, PROTO_ICMP, PROTO_TCP, TCP_RST } from '../core/packet.ts';
import {
  ACTION_RETURN,
  ACTION_REVERSE,
  FlowKey,
  NO_SLOT,
  packOwner,
  packPorts,
} from './flow-entry.ts';
import type { FlowTable } from './flow-table.ts';
import {
  FLOW_CLOSING,
  FLOW_DATAGRAM,
  FLOW_ICMP,
  FLOW_STALE_TICKS,
  firstTcpState,
  opensConnection,
} from './tcp-tracking.ts';
import type { VtepOrigin } from './verdict.ts';

const ICMP_ECHO_REQUEST = 8;

/**
 * The ways back of packets that another node routed to a task of this node: replies must leave by the
 * node that the client talks to, which holds the other half of the NAT. Allocates nothing.
 */
export class ReturnFlows {
  readonly #flows: FlowTable;
  readonly #key = new FlowKey();

  constructor(flows: FlowTable) {
    this.#flows = flows;
  }

  /** Notes how the reply to a routed packet finds its way back, and that the flow lives. */
  record(packet: Packet, origin: VtepOrigin): void {
    const { protocol, source, destination, sourcePort, destinationPort, tcpFlags } = packet;
    if (protocol === PROTO_ICMP && packet.icmpType !== ICMP_ECHO_REQUEST) return;
    const flows = this.#flows;
    const key = this.#key;
    const owner = packOwner(origin.scope, protocol);
    key.set(owner, destination | 0, source | 0, packPorts(destinationPort, sourcePort));
    let slot = flows.find(key);
    if (slot !== NO_SLOT && flows.entries.action(slot) !== ACTION_RETURN) {
      if (!this.#mayReplace(slot, packet)) return;
      flows.remove(slot);
      slot = NO_SLOT;
    }
    if (slot === NO_SLOT && (tcpFlags & TCP_RST) !== 0) return; // nothing will come back
    if (slot === NO_SLOT) {
      slot = flows.insert(key, ACTION_RETURN, NO_SLOT);
      flows.entries.setStatus(slot, firstStatus(packet));
    } else if (this.#startsAnew(slot, packet)) {
      flows.touch(slot);
      flows.entries.setStatus(slot, firstStatus(packet));
    } else {
      flows.observe(slot, packet, true);
    }
    flows.entries.setVtep(slot, origin.vtep | 0, origin.vtepPort); // the client may have changed nodes
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
  return packet.protocol === PROTO_ICMP ? FLOW_ICMP : FLOW_DATAGRAM;
}
