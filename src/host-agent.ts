import { mkdir } from 'node:fs/promises';
import type { AgentOptions, ListenAddress } from './agent-options.ts';
import type { Log } from './core/capabilities.ts';
import type { PacketThread } from './dataplane/packet-thread.ts';
import { type HttpServer, serveHttp } from './io/http-server.ts';
import { missingPrerequisites } from './io/linux/prerequisites.ts';
import { packageVersion } from './io/package-version.ts';
import { localApi } from './node/local-api.ts';
import { Membership } from './node/membership.ts';
import { nodeInfo, nodeStatus, nodeVersion } from './node/status.ts';

/** The configuration of an agent, with what it lacked. */
export interface HostAgentOptions extends AgentOptions {
  readonly packetThreads: number;
}

/** One host's agent: wires its parts to the machine, and starts and stops them in order. */
export class HostAgent {
  readonly #options: HostAgentOptions;
  readonly #log: Log;
  readonly #membership: Membership;
  readonly #servers: HttpServer[] = [];

  /** @param onFailure - Told of a failure after which the agent is of no use. */
  constructor(options: HostAgentOptions, log: Log, onFailure: (error: Error) => void) {
    this.#options = options;
    this.#log = log;
    this.#membership = new Membership(options, log, onFailure);
  }

  /**
   * Serves the API, and takes up the work where the last agent left it.
   *
   * @param threads - For this host's data plane, if it is in a cluster.
   * @throws {Error} if something that weft needs is missing or taken; nothing stays running then
   */
  async start(threads: readonly PacketThread[]): Promise<void> {
    this.#membership.recall();
    await requirePrerequisites();
    const { socketPath, metricsAddress, runDirectory } = this.#options;
    await mkdir(runDirectory, { recursive: true, mode: 0o755 });
    try {
      const api = this.#api();
      this.#servers.push(await serveHttp(api, { kind: 'unix', path: socketPath }));
      await this.#membership.resume(threads);
      if (metricsAddress !== undefined) await this.#publishMetrics(metricsAddress);
    } catch (error) {
      await this.stop();
      throw error;
    }
    const inCluster = this.#membership.identity !== undefined;
    this.#log.info({ socket: socketPath, inCluster }, 'agent ready');
  }

  /** Lets go of everything. Tasks and the flows of their clients go on until the next agent. */
  async stop(): Promise<void> {
    for (const server of this.#servers) await server.close();
    await this.#membership.close();
  }

  #api(): (request: Request) => Response | Promise<Response> {
    const membership = this.#membership;
    return localApi({
      managerApi: () => membership.manager?.api,
      isInCluster: () => membership.identity !== undefined,
      init: (request) => membership.init(request),
      join: (request) => membership.join(request),
      leave: (force) => membership.leave(force),
      info: () => nodeInfo(packageVersion(), this.#options.hostname, membership.identity),
      version: () => nodeVersion(packageVersion()),
      insight: () => membership.node?.insight,
      status: () =>
        nodeStatus(packageVersion(), this.#options.hostname, membership.identity, membership.node),
    }).fetch;
  }

  /** Loaded last: packets wait for nothing that only counts them. */
  async #publishMetrics(address: ListenAddress): Promise<void> {
    const { agentMetrics } = await import('./node/agent-metrics.ts');
    const metrics = agentMetrics(
      () => this.#membership.node,
      () => this.#membership.manager,
    );
    const serve = async (request: Request): Promise<Response> => {
      if (new URL(request.url).pathname !== '/metrics') {
        return new Response('weft serves /metrics here\n', { status: 404 });
      }
      const headers = { 'content-type': metrics.contentType };
      return new Response(await metrics.text(), { headers });
    };
    this.#servers.push(await serveHttp(serve, { kind: 'tcp', ...address }));
  }
}

async function requirePrerequisites(): Promise<void> {
  const missing = await missingPrerequisites();
  if (missing.length === 0) return;
  const lines = missing.map(({ what, why, fix }) => `  ${what}: ${why}\n    ${fix}`);
  throw new Error(`Cannot start the agent: this host lacks\n${lines.join('\n')}`);
}
