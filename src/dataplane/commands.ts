import type { Ipv4, Mac } from '../core/address.ts';
import type { Ip, Ipv6 } from '../core/ip.ts';
import type { Keypair } from '../noise/keypairs.ts';
import type { SessionActivity } from '../noise/secure-peer.ts';
import type { MeshService } from '../routing-mesh/services.ts';
import type { CaptureFilter } from './capture-taps.ts';

/** What the control thread tells each packet thread. Plain values: they cross by structured clone. */
export type DataPlaneCommand =
  /** Makes or changes a network. Its endpoints stay. */
  | {
      readonly kind: 'setNetwork';
      readonly vni: number;
      readonly subnet: { readonly address: Ipv4; readonly prefix: number };
      readonly gateway: Ipv4;
      /** Set on a network with both families. */
      readonly subnet6?: { readonly address: Ipv6; readonly prefix: number };
      readonly gateway6?: Ipv6;
      /** Nothing of it leaves or enters this node unsealed. */
      readonly encrypted?: boolean;
    }
  /** Forgets a network and its endpoints. Its ports must have been removed. */
  | { readonly kind: 'removeNetwork'; readonly vni: number }
  /** Starts to serve a TAP as an endpoint of this node. */
  | {
      readonly kind: 'addPort';
      readonly id: number;
      /** One per packet thread, or one for all of them. */
      readonly fds: readonly number[];
      readonly vni: number;
      readonly address: Ipv4;
      readonly address6?: Ipv6;
      readonly mac: Mac;
    }
  /** Starts to serve the host's own TAP. */
  | {
      readonly kind: 'addHostPort';
      readonly id: number;
      /** As for `addPort`. */
      readonly fds: readonly number[];
      readonly address: Ipv4;
      readonly address6?: Ipv6;
      readonly mac: Mac;
    }
  /** Stops serving a port; when acknowledged, its descriptors may be closed. */
  | { readonly kind: 'removePort'; readonly id: number }
  /**
   * Says behind which VTEP an address is. Never replaces an endpoint of this node. Frames go there while
   * the VTEP is set.
   */
  | {
      readonly kind: 'setEndpoint';
      readonly vni: number;
      readonly address: Ipv4;
      readonly address6?: Ipv6;
      readonly mac: Mac;
      readonly vtep: Ip;
    }
  /** Forgets a remote endpoint, if it is still behind `vtep`. */
  | {
      readonly kind: 'removeEndpoint';
      readonly vni: number;
      readonly address: Ipv4;
      readonly vtep: Ip;
    }
  /** Takes datagrams from a VTEP, and sends to its endpoints. */
  | {
      readonly kind: 'setVtep';
      readonly address: Ip;
      readonly port: number;
      /** Where it is counted in `PeerCounters`; with the others when absent. */
      readonly slot?: number;
    }
  | { readonly kind: 'removeVtep'; readonly address: Ip }
  /** Says how large an outer packet the path to a VTEP carries. Nothing if the VTEP is not known. */
  | { readonly kind: 'setPathMtu'; readonly address: Ip; readonly mtuBytes: number }
  /** Sends a path probe to a VTEP, whole or not at all. Nothing if the VTEP is not known. */
  | {
      readonly kind: 'probe';
      readonly to: Ip;
      readonly sequence: number;
      readonly nonce: bigint;
      /** UDP payload, in bytes. */
      readonly sizeBytes: number;
    }
  | { readonly kind: 'setService'; readonly service: MeshService }
  | { readonly kind: 'removeService'; readonly scope: number; readonly vip: Ip }
  /** Starts to copy frames that match into rings of the control thread's, one per packet thread. */
  | {
      readonly kind: 'setCapture';
      readonly id: number;
      readonly filter: CaptureFilter;
      readonly rings: readonly SharedArrayBuffer[];
    }
  | { readonly kind: 'clearCapture'; readonly id: number }
  | SecureCommand;

/** What the control thread says about encrypted channels: the effects of src/noise that are the data plane's. */
export type SecureCommand =
  /** Accepts messages of a session; sends by it at once, or from the first authentic one on. */
  | {
      readonly kind: 'installSession';
      readonly vtep: Ip;
      /** Where its messages go. */
      readonly address: Ip;
      readonly port: number;
      readonly keypair: Keypair;
      /** Of SESSION_LANES_MAX replay windows, all zeros; over shared memory. */
      readonly replayWords: Int32Array;
      readonly isConfirmed: boolean;
    }
  /** The peer has the session's keys, as another packet thread has seen: sends by it from now on. */
  | { readonly kind: 'confirmSession'; readonly localIndex: number }
  /** Ends a session. */
  | { readonly kind: 'removeSession'; readonly localIndex: number }
  /** Sends an empty message by the session with a VTEP, if there is one. */
  | { readonly kind: 'sendKeepalive'; readonly vtep: Ip }
  /** Sends messages of a VTEP's sessions to another address. */
  | {
      readonly kind: 'movePeer';
      readonly vtep: Ip;
      readonly address: Ip;
      readonly port: number;
    }
  /** Sends a datagram from the VXLAN port. */
  | {
      readonly kind: 'sendDatagram';
      readonly to: Ip;
      readonly port: number;
      readonly bytes: Uint8Array;
    };

/** One request to a packet thread. Commands of a batch are applied together, between packets. */
export type DataPlaneRequest =
  | {
      readonly sequence: number;
      readonly kind: 'apply';
      readonly commands: readonly DataPlaneCommand[];
    }
  | { readonly sequence: number; readonly kind: 'status' }
  /** Starts to read the underlay and the ports, if that was held back. */
  | { readonly sequence: number; readonly kind: 'serve' }
  | { readonly sequence: number; readonly kind: 'stop' };

/** Gauges of the data plane. */
export interface DataPlaneStatus {
  readonly ports: number;
  readonly networks: number;
  readonly endpoints: number;
  readonly vteps: number;
  readonly services: number;
  readonly flows: { readonly tcp: number; readonly udp: number; readonly icmp: number };
  /** What seals and opens data messages. */
  readonly aead: string;
}

/** What a packet thread says. */
export type DataPlaneEvent =
  | { readonly kind: 'done'; readonly sequence: number; readonly status?: DataPlaneStatus }
  | { readonly kind: 'refused'; readonly sequence: number; readonly message: string }
  /** The TAP behind a port is gone, for instance because its namespace was deleted. */
  | { readonly kind: 'portGone'; readonly id: number }
  | PathEvent
  | SecureEvent;

/** What the packet thread learns about a path. */
export type PathEvent =
  /** A VTEP has answered a path probe. */
  | {
      readonly kind: 'probeReply';
      readonly from: Ip;
      readonly nonce: bigint;
      /** UDP payload that arrived there, in bytes. */
      readonly sizeBytes: number;
      /** Microseconds between the probe and its answer. */
      readonly rttUs: number;
    }
  /** The kernel refused to send a packet to a VTEP as too large. */
  | {
      readonly kind: 'pathTooBig';
      readonly to: Ip;
      /** The largest packet that the kernel would send there, if it says so. */
      readonly limitBytes?: number;
    };

/** What a packet thread says about encrypted channels. */
export type SecureEvent =
  /** A handshake message came to the VXLAN port. */
  | {
      readonly kind: 'handshake';
      readonly address: Ip;
      readonly port: number;
      readonly bytes: Uint8Array;
    }
  /** There is something for, or from, a VTEP that there is no session with. */
  | { readonly kind: 'needSession'; readonly vtep: Ip }
  /** The first authentic message came under a session that was not confirmed. */
  | { readonly kind: 'sessionConfirmed'; readonly localIndex: number }
  /** Authentic messages of a session come from this address. */
  | { readonly kind: 'peerMoved'; readonly localIndex: number; readonly address: Ip }
  /** What sessions carried in the last second; those that were silent are left out. */
  | { readonly kind: 'sessionActivity'; readonly sessions: readonly SessionActivity[] };

/** One of several packet threads. */
export interface ThreadPlace {
  /** From 0. */
  readonly index: number;
  readonly count: number;
}

/** What a packet thread is started with. */
export interface DataPlaneWorkerData {
  /** Which of the packet threads this one is. */
  readonly place: ThreadPlace;
  readonly vtepAddress: Ip;
  /** Bound UDP socket on which this thread's share of VXLAN arrives. */
  readonly socket: number;
  /** Whether nothing is read before `serve`. */
  readonly held: boolean;
  /** MTU of the route to the other nodes, in bytes. */
  readonly linkMtuBytes: number;
  readonly wakeFd: number;
  /** Counters of all threads. */
  readonly counters: SharedArrayBuffer;
  readonly peerCounters: SharedArrayBuffer;
  readonly hashKey: Uint8Array;
  readonly flowCapacity: number;
  /** File that the flow table of all threads lives in, so that flows survive a restart of the agent. */
  readonly flowFile: string;
  /** What all threads know of fragmented datagrams. */
  readonly fragments: SharedArrayBuffer;
}
