import type { Clock } from '../core/capabilities.ts';
import { formatIp } from '../core/ip.ts';
import { type DataPlane, FLOW_CAPACITY } from '../dataplane/data-plane.ts';
import type { MemberView } from '../gossip/member.ts';
import { mapFile } from '../io/linux/mapped-file.ts';
import { packageVersion } from '../io/package-version.ts';
import type { AssignmentSet } from '../manager/session-protocol.ts';
import { flowTableBytes } from '../routing-mesh/flow-table.ts';
import { FlowTableReader } from '../routing-mesh/flow-table-reader.ts';
import type { CaptureNames, NamedPort } from './capture-target.ts';
import { Captures } from './captures.ts';
import {
  announcingNodes,
  type DigestReport,
  digestReports,
  type EndpointReport,
  type EndpointRequest,
  endpointReports,
} from './endpoint-report.ts';
import type { EndpointView, VisibleEntry } from './endpoint-view.ts';
import { namedTask } from './find-named.ts';
import { type FlowNames, type FlowPage, type FlowRequest, flowPage } from './flow-report.ts';
import { type MemberReport, memberReports } from './member-report.ts';
import { type PeerReport, type PlacedPeer, peerName, peerReports } from './peer-report.ts';
import type { PeerSlots } from './peer-slots.ts';

/** What {@link Insight} looks at. All functions are asked anew each time. */
export interface InsightDeps {
  readonly clock: Clock;
  readonly dataPlane: DataPlane;
  /** The file that the packet thread's flow table lives in. */
  readonly flowFile: string;
  readonly slots: PeerSlots;
  readonly assignments: () => AssignmentSet | undefined;
  /** Ports of this node's tasks. */
  readonly ports: () => readonly NamedPort[];
  /** Id of the host's own port. */
  readonly hostPortId: () => number | undefined;
  readonly members: () => readonly MemberView[];
  /** What gossip shows. */
  readonly entries: () => readonly VisibleEntry[];
  /** What the nodes announce. */
  readonly view: Pick<EndpointView, 'endpoints' | 'vteps'>;
}

/** What an operator can see of the packets of this node, under the names that people use. */
export class Insight {
  readonly captures: Captures;
  readonly #deps: InsightDeps;
  #flows: FlowTableReader | undefined;

  constructor(deps: InsightDeps) {
    this.#deps = deps;
    this.captures = new Captures({
      clock: deps.clock,
      capture: (filter) => deps.dataPlane.capture(filter),
      names: () => this.#captureNames(),
      application: `weft ${packageVersion()}`,
    });
  }

  /** What went to and came from each other node. */
  peers(): PeerReport[] {
    return peerReports(this.#peers(), this.#deps.dataPlane.peerCounters);
  }

  /**
   * Some of the flows that are live now. The packet thread is not asked: its table is read where it lies.
   *
   * @throws {LocalApiError} if the request names something that is not here, with what is
   */
  flows(request: FlowRequest): FlowPage {
    this.#flows ??= new FlowTableReader(
      mapFile(this.#deps.flowFile, flowTableBytes(FLOW_CAPACITY)),
      FLOW_CAPACITY,
    );
    return flowPage(this.#flows, this.#flowNames(), request, this.#deps.clock.epochMs());
  }

  /** The members that gossip knows, this node first. */
  members(): MemberReport[] {
    return memberReports(this.#deps.members(), announcingNodes(this.#deps.entries()));
  }

  /**
   * The endpoints that gossip shows.
   *
   * @throws {LocalApiError} if the request names something that is not here, with what is
   */
  endpoints(request: EndpointRequest): EndpointReport[] {
    const { networks = [], services = [], tasks = [] } = this.#deps.assignments() ?? {};
    const names = { networks, services, tasks: tasks.map(namedTask) };
    return endpointReports(this.#deps.entries(), names, request);
  }

  /** The same in a few numbers, by which nodes are compared. */
  digests(): DigestReport[] {
    return digestReports(this.#deps.entries(), this.#deps.assignments()?.networks ?? []);
  }

  #peers(): PlacedPeer[] {
    const { slots, view } = this.#deps;
    return Array.from(view.vteps(), (vtep) => ({ ...vtep, slot: slots.slotOf(vtep.address) }));
  }

  #captureNames(): CaptureNames {
    const { assignments, ports, hostPortId } = this.#deps;
    return {
      networks: assignments()?.networks ?? [],
      ports: ports(),
      hostPortId: hostPortId(),
      peers: this.#peers().map((peer) => {
        const address = formatIp(peer.address);
        const { node: id, slot } = peer;
        return { id, name: peerName(peer), aliases: [address], address, slot };
      }),
    };
  }

  #flowNames(): FlowNames {
    const { assignments, view } = this.#deps;
    const { networks = [], services = [], tasks = [] } = assignments() ?? {};
    return {
      networks,
      services,
      tasks: tasks.map(namedTask),
      endpoints: Array.from(view.endpoints(), ({ record }) => record),
    };
  }
}
