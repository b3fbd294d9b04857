import type { HttpAddress, HttpRequestOptions } from '../io/http-client.ts';
import { HttpClient, HttpError } from '../io/http-client.ts';
import type {
  AgentStatus,
  Endpoint,
  EndpointDigest,
  FlowPage,
  GossipKeys,
  GossipMember,
  Network,
  NetworkCreateRequest,
  Node,
  NodeSpec,
  Service,
  ServiceSpec,
  Swarm,
  SwarmInitRequest,
  SwarmJoinRequest,
  SystemInfo,
  SystemVersion,
  Task,
} from './api-types.ts';
import { refused, usageError } from './errors.ts';
import type { Filters } from './filters.ts';
import { parseHostAndPort } from './values.ts';

/** What to ask of a log. */
export interface LogsQuery {
  readonly follow: boolean;
  readonly timestamps: boolean;
  /** A number of lines, or `all`. */
  readonly tail: string;
  /** Seconds since the Unix epoch. */
  readonly since?: number;
}

/** What to capture. */
export interface CaptureQuery {
  readonly network: string;
  readonly peer: string | undefined;
  readonly task: string | undefined;
  readonly snaplen: number | undefined;
  readonly count: number | undefined;
  readonly durationMs: number | undefined;
}

/** Which flows to list. */
export interface FlowsQuery {
  readonly network: string | undefined;
  readonly task: string | undefined;
  readonly service: string | undefined;
  readonly limit: number;
  /** What the last answer said; 0 to begin with. */
  readonly cursor: number;
}

/** Which endpoints to list. */
export interface EndpointsQuery {
  readonly network: string | undefined;
  readonly service: string | undefined;
  readonly node: string | undefined;
}

/**
 * The agent's API as functions. Answers are taken as the agent gives them: it is trusted, and every
 * field of what is read is optional.
 *
 * All throw {@link HttpError} if the agent is unreachable or refuses.
 */
export class AgentClient {
  readonly #http: HttpClient;

  constructor(address: HttpAddress) {
    this.#http = new HttpClient(address, { peerName: 'the weft agent' });
  }

  status(): Promise<AgentStatus> {
    return this.#object('/weft/status');
  }

  /**
   * Frames of a network, as pcapng, until the capture ends.
   *
   * @param id - Names it in {@link endCapture}.
   */
  capture(id: string, query: CaptureQuery): Promise<AsyncIterable<Uint8Array>> {
    return this.#http.stream('GET', '/weft/capture', { query: { id, ...query } });
  }

  /** Ends a capture in good order: what it has seen until now still comes. */
  async endCapture(id: string): Promise<void> {
    await this.#http.json('POST', `/weft/capture/${id}/end`);
  }

  flows(query: FlowsQuery): Promise<FlowPage> {
    return this.#object('/weft/flows', { ...query });
  }

  /** @param query - Names or ids. */
  endpoints(query: EndpointsQuery): Promise<{ readonly endpoints?: readonly Endpoint[] }> {
    return this.#object('/weft/endpoints', { ...query });
  }

  endpointDigests(): Promise<{ readonly digests?: readonly EndpointDigest[] }> {
    return this.#object('/weft/endpoints/digest');
  }

  gossipMembers(): Promise<{ readonly members?: readonly GossipMember[] }> {
    return this.#object('/weft/gossip/members');
  }

  /** @param withSecrets - Whether the keys themselves are asked for. */
  gossipKeys(withSecrets: boolean): Promise<GossipKeys> {
    return this.#object('/weft/gossip/keys', { secret: flag(withSecrets) });
  }

  /** @returns the id of the new key, here and below that of the one that changes */
  async rotateGossipKey(): Promise<{ readonly id?: string }> {
    return asObject(await this.#http.json('POST', '/weft/gossip/keys/rotate'));
  }

  async installGossipKey(key: string): Promise<{ readonly id?: string }> {
    return asObject(await this.#http.json('POST', '/weft/gossip/keys', { body: { Key: key } }));
  }

  async useGossipKey(id: string): Promise<{ readonly id?: string }> {
    return asObject(await this.#http.json('POST', `${path('weft/gossip/keys', id)}/use`));
  }

  async removeGossipKey(id: string): Promise<{ readonly id?: string }> {
    return asObject(await this.#http.json('DELETE', path('weft/gossip/keys', id)));
  }

  info(): Promise<SystemInfo> {
    return this.#object('/info');
  }

  version(): Promise<SystemVersion> {
    return this.#object('/version');
  }

  swarm(): Promise<Swarm> {
    return this.#object('/swarm');
  }

  /** @returns the id of this node */
  async initSwarm(request: SwarmInitRequest): Promise<string> {
    return String(await this.#http.json('POST', '/swarm/init', { body: request }));
  }

  async joinSwarm(request: SwarmJoinRequest): Promise<void> {
    await this.#http.json('POST', '/swarm/join', { body: request });
  }

  async leaveSwarm(force: boolean): Promise<void> {
    await this.#http.json('POST', '/swarm/leave', { query: { force: flag(force) } });
  }

  nodes(filters: Filters = {}): Promise<Node[]> {
    return this.#list('/nodes', filters);
  }

  node(reference: string): Promise<Node> {
    return this.#object(path('nodes', reference));
  }

  async updateNode(node: Node, spec: NodeSpec): Promise<void> {
    await this.#http.json('POST', `${path('nodes', node.ID ?? '')}/update`, {
      query: { version: node.Version?.Index },
      body: spec,
    });
  }

  async removeNode(reference: string, force: boolean): Promise<void> {
    await this.#http.json('DELETE', path('nodes', reference), { query: { force: flag(force) } });
  }

  networks(filters: Filters = {}): Promise<Network[]> {
    return this.#list('/networks', filters);
  }

  network(reference: string): Promise<Network> {
    return this.#object(path('networks', reference));
  }

  /** @returns its id, and a warning that may be empty */
  async createNetwork(
    request: NetworkCreateRequest,
  ): Promise<{ readonly Id?: string; readonly Warning?: string }> {
    return asObject(await this.#http.json('POST', '/networks/create', { body: request }));
  }

  async removeNetwork(reference: string): Promise<void> {
    await this.#http.json('DELETE', path('networks', reference));
  }

  services(filters: Filters = {}): Promise<Service[]> {
    return this.#list('/services', filters, { status: 1 });
  }

  service(reference: string): Promise<Service> {
    return this.#object(path('services', reference));
  }

  /** @returns its id, and warnings */
  async createService(
    spec: ServiceSpec,
  ): Promise<{ readonly ID?: string; readonly Warnings?: readonly string[] | null }> {
    return asObject(await this.#http.json('POST', '/services/create', { body: spec }));
  }

  /** Replaces the spec, if the service is still the one that was read. */
  async updateService(
    service: Service,
    spec: ServiceSpec,
  ): Promise<{ readonly Warnings?: readonly string[] | null }> {
    const answer = await this.#http.json('POST', `${path('services', service.ID ?? '')}/update`, {
      query: { version: service.Version?.Index },
      body: spec,
    });
    return asObject(answer);
  }

  async removeService(reference: string): Promise<void> {
    await this.#http.json('DELETE', path('services', reference));
  }

  tasks(filters: Filters = {}): Promise<Task[]> {
    return this.#list('/tasks', filters);
  }

  task(reference: string): Promise<Task> {
    return this.#object(path('tasks', reference));
  }

  /** The multiplexed log of a service or task, every line with the context of its task. */
  logs(
    kind: 'services' | 'tasks',
    id: string,
    query: LogsQuery,
  ): Promise<AsyncIterable<Uint8Array>> {
    return this.#http.stream('GET', `${path(kind, id)}/logs`, {
      query: {
        follow: flag(query.follow),
        timestamps: flag(query.timestamps),
        tail: query.tail,
        since: query.since,
        stdout: 1,
        stderr: 1,
        details: 1,
      },
    });
  }

  async #object<T extends object>(
    url: string,
    query: HttpRequestOptions['query'] = {},
  ): Promise<T> {
    return asObject<T>(await this.#http.json('GET', url, { query }));
  }

  async #list<T>(
    url: string,
    filters: Filters,
    query: HttpRequestOptions['query'] = {},
  ): Promise<T[]> {
    const answer = await this.#http.json('GET', url, {
      query: {
        ...query,
        filters: Object.keys(filters).length === 0 ? undefined : JSON.stringify(filters),
      },
    });
    return Array.isArray(answer) ? answer : [];
  }
}

/** Where the agent listens unless told otherwise. */
const HOST_DEFAULT = 'unix:///run/weft/weft.sock';

/**
 * A client of the agent that the user means: `--host`, else `WEFT_HOST`, else this machine's.
 *
 * @throws {CliError} if that is no address
 */
export function connect(
  host: string | undefined,
  env: Readonly<Record<string, string | undefined>>,
): AgentClient {
  const [origin, text] =
    host === undefined ? ['WEFT_HOST', env.WEFT_HOST || HOST_DEFAULT] : ['--host', host];
  const address = parseAgentHost(text);
  if (address !== undefined) return new AgentClient(address);
  throw usageError(
    `Cannot use ${origin} ${JSON.stringify(text)}: ` +
      'expected unix:///path/to/socket or tcp://host:port',
  );
}

function parseAgentHost(text: string): HttpAddress | undefined {
  const [, scheme, rest = ''] = /^(unix|tcp):\/\/(.+)$/.exec(text) ?? [];
  if (scheme === 'unix') return rest.startsWith('/') ? { kind: 'unix', path: rest } : undefined;
  const tcp = scheme === 'tcp' ? parseHostAndPort(rest.replace(/\/$/, '')) : undefined;
  return tcp === undefined ? undefined : { kind: 'tcp', ...tcp };
}

/** Whether the agent answered that there is no such object. */
export function isNotFound(error: unknown): boolean {
  return hasStatus(error, 404);
}

/** Whether the agent answered that it is no manager. */
export function isUnavailable(error: unknown): boolean {
  return hasStatus(error, 503);
}

function hasStatus(error: unknown, status: number): boolean {
  return (
    error instanceof HttpError && error.detail.code === 'STATUS' && error.detail.status === status
  );
}

function path(family: string, reference: string): string {
  // An empty reference would name the family's list.
  if (reference === '') throw refused(`Cannot look up one of ${family}: expected a name or an ID`);
  return `/${family}/${encodeURIComponent(reference)}`;
}

/** A boolean as Docker's client writes it. */
function flag(value: boolean): 1 | undefined {
  return value ? 1 : undefined;
}

/** The answer as an object; every field of `T` is optional, so that an empty one is one too. */
function asObject<T extends object>(answer: unknown): T {
  return (typeof answer === 'object' && answer !== null ? answer : {}) as T;
}
