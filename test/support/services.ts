import type { ChildProcess } from 'node:child_process';
import { type Cluster, eventually, type LabAgent, taskNetns } from './cluster.ts';
import type { Lab, LabHost } from './lab.ts';
import { Lines } from './lines.ts';

const SERVER = new URL('./test-server.ts', import.meta.url).pathname;
const CLIENT = new URL('./test-client.ts', import.meta.url).pathname;

/** Ports that every task of test-server.ts listens on. */
export const HTTP_PORT = 80;
export const UDP_PORT = 5353;
export const ECHO_PORT = 7;

/** The command of a service of test-server.ts. */
export const SERVER_COMMAND: readonly string[] = [
  process.execPath,
  SERVER,
  String(HTTP_PORT),
  String(UDP_PORT),
  String(ECHO_PORT),
];

/** One answer of a task, or none. */
export interface Reply {
  readonly ok: boolean;
  readonly task?: string;
  readonly client?: string;
  readonly error?: string;
}

/** SHA-256 of what one end sent and of what the other end got. */
export interface Transfer {
  readonly sent: string;
  readonly received: string;
}

/** A client in a network namespace, which keeps connections open from one command to the next. */
export class TestClient {
  readonly #child: ChildProcess;
  readonly #lines: Lines;

  private constructor(child: ChildProcess) {
    this.#child = child;
    this.#lines = new Lines(child);
  }

  /** Starts a client in a host or in the namespace of a task. */
  static async start(lab: Lab, netns: string | LabHost): Promise<TestClient> {
    const client = new TestClient(lab.spawn(netns, [process.execPath, CLIENT]));
    await client.#lines.until(/^ready$/);
    return client;
  }

  /** Makes `count` requests to the URLs in turn, ten at a time, each on its own connection. */
  get(urls: readonly string[], count: number): Promise<readonly Reply[]> {
    return this.#ask({ do: 'get', urls, count });
  }

  /** Milliseconds until a request succeeds, one being sent every 50 ms. */
  firstAnswer(url: string): Promise<number> {
    return this.#ask({ do: 'firstAnswer', url });
  }

  upload(base: string, bytes: number): Promise<Transfer> {
    return this.#ask({ do: 'upload', url: `${base}/upload`, bytes });
  }

  download(base: string, bytes: number): Promise<Transfer & { readonly bytes: number }> {
    return this.#ask({ do: 'download', url: `${base}/download?bytes=${bytes}` });
  }

  /** Which of the payload sizes came back by UDP as they were sent. */
  echo(host: string, port: number, sizes: readonly number[]): Promise<readonly number[]> {
    return this.#ask({ do: 'echo', host, port, sizes });
  }

  /** The same by IPv6, with a destination options header before each UDP header. */
  echoWithOptions(
    host: string,
    port: number,
    sizes: readonly number[],
  ): Promise<readonly number[]> {
    return this.#ask({ do: 'echo', host, port, sizes, destinationOptions: true });
  }

  /** Who answers by UDP, asked `count` times from as many source ports. */
  who(host: string, port: number, count: number): Promise<readonly Reply[]> {
    return this.#ask({ do: 'who', host, port, count });
  }

  /** Opens a TCP connection that stays. @throws {Error} if nobody accepts it */
  open(id: string, host: string, port: number): Promise<boolean> {
    return this.#ask({ do: 'open', id, host, port });
  }

  /** Says a line on connection `id`. @returns `TASK LINE`, or null if the connection is lost */
  say(id: string, text: string): Promise<string | null> {
    return this.#ask({ do: 'say', id, text });
  }

  /** Sends a datagram every 10 ms to a port that echoes it, until {@link endBeat}. */
  beat(id: string, host: string, port: number): Promise<boolean> {
    return this.#ask({ do: 'beat', id, host, port });
  }

  /** The longest that heartbeat `id` had no answer, what was sent, and how much was answered. */
  endBeat(
    id: string,
  ): Promise<{ readonly longestMs: number; readonly sent: number; readonly answers: number }> {
    return this.#ask({ do: 'endBeat', id });
  }

  async #ask<Result>(command: Readonly<Record<string, unknown>>): Promise<Result> {
    this.#child.stdin?.write(`${JSON.stringify(command)}\n`);
    const answer = JSON.parse(await this.#lines.next()) as { result: Result; error?: string };
    if (answer.error !== undefined) throw new Error(`${String(command.do)}: ${answer.error}`);
    return answer.result;
  }
}

/** A task that is wanted, as the API shows it, and where it is. */
export interface PlacedTask {
  readonly id: string;
  readonly slot: number;
  readonly nodeId: string;
  readonly agent: LabAgent;
  readonly netns: string;
  readonly pid: number;
  readonly state: string;
  /** On the first network. */
  readonly address: string;
  /** The IPv6 one there; empty if that network has none. */
  readonly address6: string;
}

interface ApiTask {
  readonly ID: string;
  readonly Slot?: number;
  readonly NodeID: string;
  readonly Status: {
    readonly State: string;
    readonly Err?: string;
    readonly ContainerStatus?: { readonly PID?: number };
  };
  readonly NetworksAttachments?: readonly { readonly Addresses: readonly string[] }[];
}

/** All tasks of a service that are wanted, in the order of their slots. */
export async function tasksOf(cluster: Cluster, service: string): Promise<readonly PlacedTask[]> {
  const { manager, lab, agents } = cluster;
  const tasks = (await manager.api.json('GET', '/tasks', {
    query: { filters: JSON.stringify({ service: [service], 'desired-state': ['running'] }) },
  })) as readonly ApiTask[];
  const nodes = (await manager.api.json('GET', '/nodes')) as readonly {
    readonly ID: string;
    readonly Description: { readonly Hostname: string };
  }[];
  const names = new Map(nodes.map((node) => [node.ID, node.Description.Hostname]));
  return tasks
    .flatMap((task): PlacedTask[] => {
      const agent = agents.find(({ host }) => host.name === names.get(task.NodeID));
      if (agent === undefined) return [];
      return [
        {
          id: task.ID,
          slot: task.Slot ?? 0,
          nodeId: task.NodeID,
          agent,
          netns: taskNetns(lab, agent, task.ID),
          pid: task.Status.ContainerStatus?.PID ?? 0,
          state: task.Status.State,
          address: withoutPrefix(task.NetworksAttachments?.[0]?.Addresses[0]),
          address6: withoutPrefix(task.NetworksAttachments?.[0]?.Addresses[1]),
        },
      ];
    })
    .sort((a, b) => a.slot - b.slot);
}

/** Waits until exactly `count` tasks of a service are wanted and all of them run. */
export async function runningTasks(
  cluster: Cluster,
  service: string,
  count: number,
  timeoutMs?: number,
): Promise<readonly PlacedTask[]> {
  return await eventually(
    `${count} tasks of ${service} run`,
    async () => {
      const tasks = await tasksOf(cluster, service);
      const running = tasks.filter(({ state }) => state === 'running');
      return running.length === count && tasks.length === count ? tasks : undefined;
    },
    timeoutMs,
  );
}

function withoutPrefix(address = ''): string {
  return address.replace(/\/.*$/, '');
}

/** A service's VIPs on one network, and the gateways there. */
export interface Vips {
  readonly vip: string;
  readonly gateway: string;
  /** Both are empty on a network without IPv6. */
  readonly vip6: string;
  readonly gateway6: string;
}

/** The VIPs of a service on a network of its own. */
export async function vipOf({ manager }: Cluster, service: string, network: string): Promise<Vips> {
  const found = (await manager.api.json('GET', `/networks/${network}`)) as {
    readonly Id: string;
    readonly IPAM: { readonly Config: readonly { readonly Gateway: string }[] };
  };
  const { Endpoint } = (await manager.api.json('GET', `/services/${service}`)) as {
    readonly Endpoint: {
      readonly VirtualIPs: readonly { readonly NetworkID: string; readonly Addr: string }[];
    };
  };
  const own = Endpoint.VirtualIPs.filter(({ NetworkID }) => NetworkID === found.Id);
  return {
    vip: withoutPrefix(own[0]?.Addr),
    gateway: found.IPAM.Config[0]?.Gateway ?? '',
    vip6: withoutPrefix(own[1]?.Addr),
    gateway6: found.IPAM.Config[1]?.Gateway ?? '',
  };
}

/** What `GET /weft/status` of an agent says, as far as tests look at it. */
export interface AgentStatus {
  readonly node: { readonly id?: string; readonly hostname: string };
  readonly cluster?: { readonly connected: boolean };
  readonly dataPlane?: {
    readonly threads: number;
    readonly ports: number;
    readonly vteps: number;
    readonly networks: number;
    readonly endpoints: number;
    readonly services: number;
    readonly flows: Readonly<Record<string, number>>;
    readonly packets: Readonly<Record<string, number>>;
    readonly drops: Readonly<Record<string, number>>;
    readonly aead: string;
  };
  readonly sessions?: readonly {
    readonly address: string;
    readonly state: string;
    readonly ageSeconds?: number;
  }[];
  readonly paths?: readonly {
    readonly address: string;
    readonly state: string;
    readonly mtuBytes: number;
    readonly rttMs?: number;
    readonly lossRatio?: number;
  }[];
  readonly gossip?: {
    readonly members: readonly {
      readonly name: string;
      readonly address: string;
      readonly state: string;
    }[];
  };
  readonly tasks?: readonly {
    readonly id: string;
    readonly name: string;
    readonly state: string;
    readonly pid?: number;
    readonly error?: string;
  }[];
  readonly portConflicts?: readonly { readonly port: number; readonly holder: string }[];
}

export async function statusOf(agent: LabAgent): Promise<AgentStatus> {
  return (await agent.api.json('GET', '/weft/status')) as AgentStatus;
}

/** Names of the live members of an agent's gossip, in order. */
export async function aliveMembers(agent: LabAgent): Promise<readonly string[]> {
  const { gossip } = await statusOf(agent);
  const alive = gossip?.members.filter(({ state }) => state === 'alive') ?? [];
  return alive.map(({ name }) => name).sort();
}

/** Counts how often each value occurs. */
export function tally(values: readonly (string | undefined)[]): Readonly<Record<string, number>> {
  const counts: Record<string, number> = {};
  for (const value of values) counts[String(value)] = (counts[String(value)] ?? 0) + 1;
  return counts;
}
