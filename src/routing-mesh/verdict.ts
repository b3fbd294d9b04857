import { AddressWords } from '../core/address-words.ts';

/** The scope of the host's own port: published ports, and what the host sends. Others are VNIs. */
export const HOST_SCOPE = 0;

/**
 * What the mesh says about a packet:
 * - `pass`: not the mesh's business; unchanged, switch it by its addresses
 * - `forward`: rewritten; goes to its new destination in {@link Verdict.outScope}, which may be the host port
 * - `viaVtep`: unchanged; goes as a routed packet of its own scope to {@link Verdict.vtep}
 * - `echo`: a ping of a VIP; answer it (`writeEchoReply`)
 * - `reset`: unchanged; answer it with a TCP reset (`writeTcpReset`)
 * - `drop`: for {@link Verdict.dropReason}
 */
export type VerdictKind = 'pass' | 'forward' | 'viaVtep' | 'echo' | 'reset' | 'drop';

/**
 * Why the verdict is `drop` or `reset`, else 'none':
 * - `no-backend`: the service has no backend that takes new flows
 * - `backend-gone`: the flow's backend has left the service
 * - `fragment-without-first`: part of a datagram to a VIP whose ports were never seen
 * - `unsupported-protocol`: neither TCP nor UDP nor a ping, to a VIP
 * - `no-flow`: an ICMP error to a VIP about no flow of it
 * - `no-port`: every source port tried leads to another flow's replies
 */
export type MeshDrop =
  | 'none'
  | 'no-backend'
  | 'backend-gone'
  | 'fragment-without-first'
  | 'unsupported-protocol'
  | 'no-flow'
  | 'no-port';

/** The mesh's answer about one packet. A reused object: every field is set each time. */
export class Verdict {
  kind: VerdictKind = 'pass';
  dropReason: MeshDrop = 'none';
  /** Where a `forward` goes on: a VNI or {@link HOST_SCOPE}. */
  outScope = 0;
  /** Where a `viaVtep` goes on: address and UDP port. The address may be of another family than the packet. */
  readonly vtep: AddressWords = new AddressWords();
  vtepPort = 0;
  /** Whether the frame's bytes, and the parsed packet, were rewritten. */
  changed = false;
}

/** Where a frame from the underlay came from. A reused object: the data plane fills it per frame. */
export class VtepOrigin {
  /** The VNI that it came under. */
  scope = 0;
  readonly vtep: AddressWords = new AddressWords();
  vtepPort = 0;
  /** Whether the other node routed it (its Ethernet source is GATEWAY_MAC): its client is outside the overlay. */
  routed = false;
}
