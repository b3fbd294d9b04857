import { formatIp, type Ip, isIpv6 } from '../core/ip.ts';
import type { MeshBackend, MeshService } from '../routing-mesh/services.ts';
import type { EndpointRecord } from './endpoint-record.ts';
import { type Announced, isAfter, isReachable } from './endpoint-view.ts';
import type { SetNetwork, VipDefinition } from './table-definitions.ts';

/** An endpoint with its address in the family of a VIP. */
interface Candidate {
  readonly announced: Announced;
  readonly address: Ip;
}

/**
 * What is behind a VIP.
 *
 * @param announced - The endpoints of its service.
 * @param networks - Those that backends may be on, by id.
 */
export function meshService(
  { scope, vip, gateway, networkId }: VipDefinition,
  announced: Iterable<Announced>,
  networks: ReadonlyMap<string, SetNetwork>,
): MeshService {
  const candidates: Candidate[] = [];
  for (const one of announced) {
    const { record } = one;
    const isBehind = networkId === undefined ? record.primary : record.networkId === networkId;
    const address = addressLike(vip, record);
    if (!isBehind || address === undefined || !isReachable(one.by)) continue;
    candidates.push({ announced: one, address });
  }
  // When all are suspect it is rather this node that is cut off: then they are as good as ever.
  const someTrusted = candidates.some(isTrusted);
  // Every node must build the same Maglev table: same backends, same order.
  const backends = candidates.sort(inOrder).flatMap((candidate): MeshBackend[] => {
    const { taskId: id, state, networkId: on } = candidate.announced.record;
    const network = networks.get(on);
    if (network === undefined || state === 'warm') return [];
    const takesFlows = someTrusted ? isTrusted(candidate) : state === 'active';
    const meshState = takesFlows ? 'active' : 'draining';
    return [{ id, address: candidate.address, scope: network.vni, weight: 1, state: meshState }];
  });
  return { scope, vip, gateway, backends };
}

/** Whether two services with the same VIP are the same in all else. */
export function isSameService(a: MeshService, b: MeshService): boolean {
  return (
    a.gateway === b.gateway &&
    a.backends.length === b.backends.length &&
    a.backends.every((backend, index) => isSameBackend(backend, b.backends[index]))
  );
}

function isSameBackend(a: MeshBackend, b: MeshBackend | undefined): boolean {
  return (
    a.id === b?.id &&
    a.address === b.address &&
    a.scope === b.scope &&
    a.weight === b.weight &&
    a.state === b.state
  );
}

function isTrusted({ announced: { by, record } }: Candidate): boolean {
  return record.state === 'active' && !by.isSuspect;
}

function inOrder(a: Candidate, b: Candidate): number {
  const [idA, idB] = [a.announced.record.taskId, b.announced.record.taskId];
  if (idA !== idB) return idA < idB ? -1 : 1;
  const [textA, textB] = [formatIp(a.address), formatIp(b.address)];
  if (textA !== textB) return textA < textB ? -1 : 1;
  return isAfter(a.announced, b.announced) ? 1 : -1;
}

/** The address of an endpoint that is of the family of `ip`, if it has one. */
function addressLike(ip: Ip, { address, address6 }: EndpointRecord): Ip | undefined {
  return isIpv6(ip) ? address6 : address;
}
