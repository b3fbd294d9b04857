import { mkdir } from 'node:fs/promises';
import type { AgentOptions } from './agent-options.ts';
import type { Log } from './core/capabilities.ts';
import { type HttpServer, serveHttp } from './io/http-server.ts';
import { missingPrerequisites } from './io/linux/prerequisites.ts';
import { Metrics } from './io/metrics.ts';
import { packageVersion } from './io/package-version.ts';
import { collectAtRest } from './io/resting-heap.ts';
import { systemLog } from './io/system.ts';
import { localApi } from './node/local-api.ts';
import { addManagerMetrics } from './node/manager-metrics.ts';
import { Membership } from './node/membership.ts';
import { addNodeMetrics } from './node/node-metrics.ts';
import { nodeInfo, nodeStatus, nodeVersion } from './node/status.ts';

/** One host's agent: wires its parts to the machine, and starts and stops them in order. */
export class Agent {
  readonly #options: AgentOptions;
  readonly #log: Log;
  readonly #membership: Membership;
  readonly #metrics = new Metrics();
  readonly #servers: HttpServer[] = [];

  /** @param onFailure - Told of a failure after which the agent is of no use. */
  constructor(options: AgentOptions, log: Log, onFailure: (error: Error) => void) {
    this.#options = options;
    this.#log = log;
    this.#membership = new Membership(options, log, onFailure);
    addNodeMetrics(this.#metrics, () => this.#membership.node);
    addManagerMetrics(this.#metrics, () => this.#membership.manager);
  }

  /**
   * Serves the API, and takes up the work where the last agent left it.
   *
   * @throws {Error} if something that weft needs is missing or taken; nothing stays running then
   */
  async start(): Promise<void> {
    await requirePrerequisites();
    const { socketPath, metricsAddress, runDirectory } = this.#options;
    await mkdir(runDirectory, { recursive: true, mode: 0o755 });
    try {
      const api = this.#api();
      this.#servers.push(await serveHttp(api, { kind: 'unix', path: socketPath }));
      if (metricsAddress !== undefined) {
        const address = { kind: 'tcp', ...metricsAddress } as const;
        this.#servers.push(await serveHttp((request) => this.#serveMetrics(request), address));
      }
      await this.#membership.resume();
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

  async #serveMetrics(request: Request): Promise<Response> {
    if (new URL(request.url).pathname !== '/metrics') {
      return new Response('weft serves /metrics here\n', { status: 404 });
    }
    const headers = { 'content-type': this.#metrics.contentType };
    return new Response(await this.#metrics.text(), { headers });
  }
}

async function requirePrerequisites(): Promise<void> {
  const missing = await missingPrerequisites();
  if (missing.length === 0) return;
  const lines = missing.map(({ what, why, fix }) => `  ${what}: ${why}\n    ${fix}`);
  throw new Error(`Cannot start the agent: this host lacks\n${lines.join('\n')}`);
}

/**
 * Runs an agent until SIGTERM or SIGINT.
 *
 * @throws {Error} if it cannot start, or if a part without which it is of no use has died
 */
export async function runAgent(options: AgentOptions): Promise<void> {
  const log = systemLog(options.logLevel);
  const stopped = Promise.withResolvers<void>();
  const agent = new Agent(options, log, (error) => stopped.reject(error));
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.once(signal, () => {
      log.info({ signal }, 'stopping; tasks keep running');
      stopped.resolve();
    });
  }
  await agent.start();
  collectAtRest();
  try {
    await stopped.promise;
  } finally {
    await agent.stop();
  }
}
