import { formatIp, type Ip } from '../core/ip.ts';
import { type PeerCounters, SLOT_OF_OTHERS } from '../dataplane/peer-counters.ts';

/** Another node whose VTEP is known. */
export interface PlacedPeer {
  /** Id of the node. */
  readonly node: string;
  readonly hostname?: string;
  readonly address: Ip;
  readonly port: number;
  /** Where it is counted. */
  readonly slot: number;
}

/** What went to and came from a direction's other end. */
interface Directions {
  readonly in: number;
  readonly out: number;
}

/** The name of a node for people: its hostname, or its id where that is not known. */
export function peerName({ hostname, node }: PlacedPeer): string {
  return hostname ?? node;
}

/** What `weft status` and the metrics show of another node. */
export interface PeerReport {
  readonly id: string;
  readonly name: string;
  /** Of its VTEP. */
  readonly address: string;
  readonly port: number;
  readonly datagrams: Directions;
  /** Payload bytes of the datagrams. */
  readonly bytes: Directions;
  readonly drops: Directions;
}

/** What was counted of each peer that is counted apart, by name. */
export function peerReports(peers: readonly PlacedPeer[], counters: PeerCounters): PeerReport[] {
  const apart = peers.filter(({ slot }) => slot !== SLOT_OF_OTHERS);
  const reports = apart.map((peer) => {
    const counted = counters.read(peer.slot);
    return {
      id: peer.node,
      name: peerName(peer),
      address: formatIp(peer.address),
      port: peer.port,
      datagrams: { in: counted['datagrams-in'], out: counted['datagrams-out'] },
      bytes: { in: counted['bytes-in'], out: counted['bytes-out'] },
      drops: { in: counted['drops-in'], out: counted['drops-out'] },
    };
  });
  return reports.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
}
