import { basename } from 'node:path';
import { formatIpv4, type Ipv4, macOfIpv4, parseCidr, parseIpv4 } from '../core/address.ts';
import type { Log } from '../core/capabilities.ts';
import { parseIpv6Cidr } from '../core/cidr.ts';
import { type Ipv6, parseIpv6 } from '../core/ip.ts';
import type { Json } from '../core/store.ts';
import type { DataPlane } from '../dataplane/data-plane.ts';
import { canHaveIpv6, configureInterface, type InterfaceIpv6 } from '../io/linux/netns.ts';
import { closeTap } from '../io/linux/tap.ts';
import type { TapOpener } from '../io/linux/tap-opener.ts';
import type {
  AddressAssignment,
  NetworkAssignment,
  TaskAssignment,
} from '../manager/session-protocol.ts';
import type { TaskNetwork } from '../runtime/task-runtime.ts';
import type { NamedPort } from './capture-target.ts';
import { type EndpointState, endpointKey, writeEndpointRecord } from './endpoint-record.ts';
import { namedTask } from './find-named.ts';
import { openPortTap } from './port-tap.ts';

/**
 * Largest superframe that a task's interface hands over, in bytes: with the headers of its segments
 * it still fits one 64 KiB datagram.
 */
export const GSO_BYTES_MAX = 60_000;

/**
 * How long a task that is to stop still runs after it was announced as draining. Gossip reaches n nodes
 * in about log2(n) rounds of 200 ms; nodes do not confirm, so this is a deadline and not a proof.
 */
const DRAIN_MS = 1_000;

/** What {@link Attachments} works with. */
export interface AttachmentsDeps {
  readonly dataPlane: DataPlane;
  readonly opener: TapOpener;
  readonly log: Log;
  /** The network with this id, as the manager assigned it. */
  readonly network: (networkId: string) => NetworkAssignment | undefined;
  /** MTU of the interfaces on a network: the underlay's less the tunnel's overhead. */
  readonly mtuBytes: (network: NetworkAssignment) => number;
  /** Puts an entry into this node's own gossip record, or takes it out (`undefined`). */
  readonly announce: (key: string, value: Json | undefined) => void;
  /** Gives each port an id that is never used again. */
  readonly nextPortId: () => number;
  /** Told that an interface which works could not be set up anew. */
  readonly onConfigFailed: (device: string, error: unknown) => void;
  /** Whether the task runs already, as after a restart of the agent. */
  readonly isRunning: (taskId: string) => boolean;
}

interface Attached {
  readonly portId: number;
  readonly fds: readonly number[];
  readonly address: Ipv4;
  readonly address6: Ipv6 | undefined;
  readonly networkId: string;
  readonly primary: boolean;
}

/** The ends of this node's tasks on their networks: each one's TAPs, switch ports and announcements. */
export class Attachments implements TaskNetwork {
  readonly #deps: AttachmentsDeps;
  /** By task id. BOUNDED by the tasks of this node. */
  readonly #tasks = new Map<string, { task: TaskAssignment; ports: Attached[] }>();

  constructor(deps: AttachmentsDeps) {
    this.#deps = deps;
  }

  /**
   * Gives a task its interfaces: `eth0` on its first network, and so on. Repeatable: TAPs that an
   * earlier agent left in the namespace are taken over. The endpoints are announced as `warm`. Where
   * there can be no IPv6, a task is on a dual-stack network by IPv4 alone.
   *
   * @param netnsPath - The task's network namespace, under /run/netns.
   * @throws {Error} if a network is unknown or an interface cannot be made; nothing stays then
   */
  async attach(task: TaskAssignment, netnsPath: string): Promise<void> {
    if (this.#tasks.has(task.id)) return;
    const ports: Attached[] = [];
    this.#tasks.set(task.id, { task, ports });
    try {
      for (const [index, assigned] of task.attachments.entries()) {
        ports.push(await this.#attachOne({ assigned, index, netnsPath }));
      }
    } catch (error) {
      await this.detach(task);
      throw error;
    }
    this.announceState(task.id, this.#deps.isRunning(task.id) ? 'active' : 'warm');
  }

  /** The ports of this node's tasks, under the tasks' short names. */
  ports(): NamedPort[] {
    return [...this.#tasks.values()].flatMap(({ task, ports }) =>
      ports.map(({ portId, networkId, address }) => ({
        ...namedTask(task),
        portId,
        networkId,
        address: formatIpv4(address),
      })),
    );
  }

  /** Announces whether the task takes new flows. */
  announceState(taskId: string, state: EndpointState): void {
    const attached = this.#tasks.get(taskId);
    for (const { networkId, address, address6, primary } of attached?.ports ?? []) {
      const record = {
        networkId,
        address,
        ...(address6 === undefined ? {} : { address6 }),
        mac: macOfIpv4(address),
        serviceId: attached?.task.serviceId ?? '',
        taskId,
        state,
        primary,
      };
      this.#deps.announce(endpointKey(networkId, formatIpv4(address)), writeEndpointRecord(record));
    }
  }

  /** Tells all nodes to send the task no new flows, and gives them the time to hear of it. */
  async drain({ id }: TaskAssignment): Promise<void> {
    if (!this.#tasks.has(id)) return;
    this.announceState(id, 'draining');
    await new Promise((resolve) => setTimeout(resolve, DRAIN_MS));
  }

  /** Takes a task off its networks. Does nothing for a task that is on none. */
  async detach({ id: taskId }: TaskAssignment): Promise<void> {
    const attached = this.#tasks.get(taskId);
    if (attached === undefined) return;
    this.#tasks.delete(taskId);
    for (const { networkId, address, portId, fds } of attached.ports) {
      this.#deps.announce(endpointKey(networkId, formatIpv4(address)), undefined);
      await this.#deps.dataPlane.apply([{ kind: 'removePort', id: portId }]);
      this.#deps.opener.discard(fds);
    }
  }

  /** Closes the descriptors and leaves all else: tasks keep their interfaces for the next agent. */
  close(): void {
    for (const { ports } of this.#tasks.values()) {
      for (const { fds } of ports) closeTap(fds);
    }
    this.#tasks.clear();
  }

  async #attachOne(where: {
    readonly assigned: AddressAssignment;
    readonly index: number;
    readonly netnsPath: string;
  }): Promise<Attached> {
    const { assigned, index, netnsPath } = where;
    const { networkId } = assigned;
    const network = this.#deps.network(networkId);
    if (network === undefined) {
      throw new Error(`Cannot attach to network ${networkId}: this node does not know it`);
    }
    const address = parseIpv4(assigned.address);
    const mtuBytes = this.#deps.mtuBytes(network);
    const ipv6 = (await canHaveIpv6(mtuBytes)) ? ipv6Of(network, assigned, index === 0) : undefined;
    const mac = macOfIpv4(address);
    const name = `eth${index}`;
    const { fds, isKept } = await openPortTap(this.#deps, netnsPath, name);
    const portId = this.#deps.nextPortId();
    try {
      const { vni } = network;
      const addresses = { address, ...(ipv6 && { address6: ipv6.address }) };
      await this.#deps.dataPlane.apply([
        { kind: 'addPort', id: portId, fds, vni, ...addresses, mac },
      ]);
      const configured = configureInterface(basename(netnsPath), {
        name,
        address,
        prefix: parseCidr(network.subnet).prefix,
        mac,
        mtuBytes,
        gsoMaxBytes: GSO_BYTES_MAX,
        hasManyQueues: fds.length > 1,
        ...(index === 0 ? { gateway: parseIpv4(network.gateway) } : {}),
        ...(ipv6 && { ipv6 }),
      });
      // What is in use already need not wait: this sets what another version may have set otherwise.
      if (isKept) configured.catch((error: unknown) => this.#deps.onConfigFailed(name, error));
      else await configured;
      return { portId, fds, address, address6: ipv6?.address, networkId, primary: index === 0 };
    } catch (error) {
      await this.#deps.dataPlane.apply([{ kind: 'removePort', id: portId }]);
      this.#deps.opener.discard(fds);
      throw error;
    }
  }
}

/** The IPv6 side of an interface on `network`; undefined if that has none. */
function ipv6Of(
  { subnet6, gateway6 }: NetworkAssignment,
  { address6 }: AddressAssignment,
  isDefaultRoute: boolean,
): InterfaceIpv6 | undefined {
  if (subnet6 === undefined || gateway6 === undefined || address6 === undefined) return undefined;
  return {
    address: parseIpv6(address6),
    prefix: parseIpv6Cidr(subnet6).prefix,
    ...(isDefaultRoute ? { gateway: parseIpv6(gateway6) } : {}),
  };
}
