import { CAPTURES_MAX, type CaptureFilter, isPeerCrossing } from '../dataplane/capture-taps.ts';
import { SLOT_OF_OTHERS } from '../dataplane/peer-counters.ts';
import { HOST_SCOPE } from '../routing-mesh/verdict.ts';
import { findNamed, type Named } from './find-named.ts';
import { LocalApiError } from './local-api-error.ts';

/** What an operator wants to see. */
export interface CaptureRequest {
  /** Name or id of a network. */
  readonly network: string;
  /** Name, id or address of another node: only what it sends and gets. */
  readonly peer?: string | undefined;
  /** Name or id of a task of this node: only what it sends and gets. */
  readonly task?: string | undefined;
  /** Bytes to keep of each frame. */
  readonly snaplen: number;
  /** Frames after which the capture ends. */
  readonly count?: number | undefined;
  /** Milliseconds after which it ends. */
  readonly durationMs?: number | undefined;
}

/** A port of the switch, under the id and name (`web.1`) of its task. */
export interface NamedPort extends Named {
  readonly portId: number;
  readonly networkId: string;
  readonly address: string;
}

/** Another node. Its address is an alias. */
export interface NamedPeer extends Named {
  /** Of its VTEP. */
  readonly address: string;
  /** Where it is counted; {@link SLOT_OF_OTHERS} if not apart. */
  readonly slot: number;
}

/** What there is to capture on this node. */
export interface CaptureNames {
  readonly networks: readonly (Named & { readonly vni: number; readonly ingress: boolean })[];
  readonly ports: readonly NamedPort[];
  /** The host's own port, `weft0`. */
  readonly hostPortId?: number | undefined;
  readonly peers: readonly NamedPeer[];
}

/** An interface of a capture file. */
export interface InterfaceName {
  readonly name: string;
  readonly description: string;
}

/**
 * Which frames a request is about. The host's own port belongs to the ingress network.
 *
 * @throws {LocalApiError} if it names something that is not here, with what is
 */
export function captureFilter(request: CaptureRequest, names: CaptureNames): CaptureFilter {
  const network = findNamed('networks', request.network, names.networks);
  const { snaplen } = request;
  const scopes = network.ingress ? [network.vni, HOST_SCOPE] : [network.vni];
  if (request.task !== undefined && request.peer !== undefined) {
    throw new LocalApiError(400, 'Cannot capture by task and by peer: expected one of them');
  }
  if (request.task !== undefined) {
    const here = names.ports.filter(({ networkId }) => networkId === network.id);
    const these = `tasks of this node on the network ${network.name}`;
    return { scopes, snaplen, port: findNamed(these, request.task, here).portId };
  }
  if (request.peer === undefined) return { scopes, snaplen };
  const peer = findNamed('peers', request.peer, names.peers);
  if (peer.slot === SLOT_OF_OTHERS) {
    throw new LocalApiError(
      409,
      `Cannot capture the peer ${peer.name} alone: this node has too many peers to tell them apart`,
    );
  }
  return { scopes, snaplen, peer: peer.slot };
}

/** What the place where a frame crossed is called. What has gone meanwhile has its number only. */
export function captureInterface(
  crossing: number,
  point: number,
  names: CaptureNames,
): InterfaceName {
  if (isPeerCrossing(crossing)) {
    const peer = names.peers.find(({ slot }) => slot === point);
    if (peer === undefined || point === SLOT_OF_OTHERS) {
      return { name: `peer ${point}`, description: 'another node' };
    }
    return { name: `peer ${peer.name}`, description: `node ${peer.id} at ${peer.address}` };
  }
  if (point === names.hostPortId) {
    return { name: 'weft0', description: "the host's own interface, with published ports" };
  }
  const port = names.ports.find(({ portId }) => portId === point);
  if (port === undefined) return { name: `port ${point}`, description: 'a task that has ended' };
  const network = names.networks.find(({ id }) => id === port.networkId)?.name ?? port.networkId;
  return { name: port.name, description: `task ${port.id}, ${port.address} on ${network}` };
}

/** The refusal of one capture too many. */
export function tooManyCaptures(): LocalApiError {
  return new LocalApiError(
    409,
    `Cannot start a capture: ${CAPTURES_MAX} run on this node already, end one of them first`,
  );
}
