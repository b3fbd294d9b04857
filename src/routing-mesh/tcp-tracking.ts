import { TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN } from '../core/packet.ts';
import { toTicks } from './ticks.ts';

/** What a flow is doing. Stored in one byte of the flow table: never renumber. */
export const FLOW_SYN_SENT = 1;
export const FLOW_ESTABLISHED = 2;
export const FLOW_CLOSING = 3;
/** UDP, and any protocol but TCP and ICMP. */
export const FLOW_DATAGRAM = 4;
export const FLOW_ICMP = 5;
/** A fragmented datagram under way; only in the table of fragments. */
export const FLOW_FRAGMENTS = 6;

/** Names of the states, by number. */
export const FLOW_STATE_NAMES = [
  'free',
  'syn-sent',
  'established',
  'closing',
  'datagram',
  'icmp',
  'fragments',
] as const;
export type FlowStateName = (typeof FLOW_STATE_NAMES)[number];

/** Half-open: Linux's `nf_conntrack_tcp_timeout_syn_recv`. */
const SYN_SENT_IDLE_TICKS: number = toTicks(60_000);
/** Linux's `nf_conntrack_tcp_timeout_established`: never less, or idle connections die (IPVS: 900 s). */
const ESTABLISHED_IDLE_TICKS: number = toTicks(5 * 24 * 3600 * 1000);
/** Linux's `nf_conntrack_tcp_timeout_time_wait`. */
const CLOSING_IDLE_TICKS: number = toTicks(120_000);
/** An assured UDP stream: RFC 4787 REQ-5 asks for 2 minutes at least; IPVS keeps 300, kube-proxy 180 s. */
const DATAGRAM_IDLE_TICKS: number = toTicks(180_000);
/** Linux's `nf_conntrack_icmp_timeout`. */
const ICMP_IDLE_TICKS: number = toTicks(30_000);
/** Linux's `ipfrag_time`: whoever waits for the rest gives up then. */
const FRAGMENTS_IDLE_TICKS: number = toTicks(30_000);

/** How long a flow in `state` may be quiet before it expires, in ticks. */
export function flowIdleLimit(state: number): number {
  switch (state) {
    case FLOW_ESTABLISHED:
      return ESTABLISHED_IDLE_TICKS;
    case FLOW_DATAGRAM:
      return DATAGRAM_IDLE_TICKS;
    case FLOW_CLOSING:
      return CLOSING_IDLE_TICKS;
    case FLOW_SYN_SENT:
      return SYN_SENT_IDLE_TICKS;
    case FLOW_FRAGMENTS:
      return FRAGMENTS_IDLE_TICKS;
    default:
      return ICMP_IDLE_TICKS;
  }
}

/**
 * A SYN on an established flow that was quiet for so long opens a new connection. Longer than the 64 s
 * between a Linux client's last SYNs: those of a handshake that the server has answered must not move.
 */
export const FLOW_STALE_TICKS: number = toTicks(120_000);

/** Set in a TCP flow's marks when that side has sent its FIN. */
export const MARK_CLIENT_FIN = 1;
export const MARK_SERVER_FIN = 2;
/** Set on a flow whose backend has left the service. */
export const MARK_GONE = 4;
const BOTH_FINS: number = MARK_CLIENT_FIN | MARK_SERVER_FIN;
const EVENTFUL: number = TCP_SYN | TCP_FIN | TCP_RST;

/** Whether the segment asks for a new connection: SYN alone, or with ECN flags. */
export function opensConnection(tcpFlags: number): boolean {
  return (tcpFlags & (TCP_SYN | TCP_ACK | TCP_RST)) === TCP_SYN;
}

/** The state in which a segment starts a flow: not every one of them is a SYN, see mid-stream pick-up. */
export function firstTcpState(tcpFlags: number): number {
  if (opensConnection(tcpFlags)) return FLOW_SYN_SENT;
  return (tcpFlags & TCP_RST) === 0 ? FLOW_ESTABLISHED : FLOW_CLOSING;
}

/**
 * Follows a connection by one segment. It judges no sequence numbers: the ends do, and a forged RST or FIN
 * only shortens the time that a quiet flow is kept.
 *
 * @param status - State in the low byte, marks in the next one.
 * @param fromClient - Whether the side that opened the connection sent it.
 * @returns the new status; the same number if nothing changed
 */
export function nextTcpStatus(status: number, tcpFlags: number, fromClient: boolean): number {
  const state = status & 0xff;
  if ((tcpFlags & EVENTFUL) === 0 && state !== FLOW_SYN_SENT) return status;
  let marks = status >>> 8;
  if ((tcpFlags & TCP_RST) !== 0) return FLOW_CLOSING | (marks << 8);
  if ((tcpFlags & TCP_FIN) !== 0) marks |= fromClient ? MARK_CLIENT_FIN : MARK_SERVER_FIN;
  if ((marks & BOTH_FINS) === BOTH_FINS) return FLOW_CLOSING | (marks << 8);
  // The server's SYN-ACK, or anything that only a client which saw it can send.
  const answered = state === FLOW_SYN_SENT && (tcpFlags & TCP_ACK) !== 0;
  return (answered ? FLOW_ESTABLISHED : state) | (marks << 8);
}
