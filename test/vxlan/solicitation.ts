import { macOfIpv4 } from '../../src/core/address.ts';
import { formatIp, ipFromWords, ipWords, parseIp, writeIp16 } from '../../src/core/ip.ts';
import { PROTO_ICMPV6, writeMac } from '../../src/core/packet.ts';
import { endpoint, frame, type PacketSpec } from '../routing-mesh/packets.ts';

/** What a test says of a Neighbor Solicitation; everything else has a plain default. */
export interface SolicitationSpec {
  /** `::` for a probe. */
  readonly from: string;
  readonly target: string;
  /** That of the source address when absent. */
  readonly fromMac?: number;
  /** To whom it goes: to the target's solicited-node address when absent. */
  readonly to?: string;
  /** A source link-layer option when absent; none for a probe. */
  readonly options?: Uint8Array;
  readonly type?: number;
  readonly hopLimit?: number;
  readonly ip?: Partial<PacketSpec>;
}

/** `ff02::1:ffXX:XXXX` of an address (RFC 4291 section 2.7.1). */
export function solicitedNode(target: string): string {
  const low = ipWords(parseIp(target))[3];
  return formatIp(ipFromWords(0xff02_0000 | 0, 0, 1, 0xff00_0000 | (low & 0xff_ffff)));
}

function linkLayerOption(mac: number): Uint8Array {
  const option = new Uint8Array(8);
  option.set([1, 1]);
  writeMac(new DataView(option.buffer), 2, mac);
  return option;
}

/** A frame with right checksums that asks who has the target (RFC 4861 section 4.3). */
export function solicitation(spec: SolicitationSpec): Uint8Array<ArrayBuffer> {
  const { from, target, type = 135, hopLimit = 255 } = spec;
  const mac = spec.fromMac ?? macOfIpv4(ipWords(endpoint(from).address)[3] >>> 0);
  const to = spec.to ?? solicitedNode(target);
  const options = spec.options ?? (from === '::' ? new Uint8Array(0) : linkLayerOption(mac));
  const payload = new Uint8Array(16 + options.length);
  writeIp16(new DataView(payload.buffer), 0, parseIp(target));
  payload.set(options, 16);
  const view = frame({ from, to, protocol: PROTO_ICMPV6, icmpType: type, payload, ...spec.ip });
  writeMac(view, 0, 0x3333_0000_0000 + (ipWords(parseIp(to))[3] >>> 0));
  writeMac(view, 6, mac);
  view.setUint8(21, hopLimit);
  return new Uint8Array(view.buffer as ArrayBuffer);
}
