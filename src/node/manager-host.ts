import { rm } from 'node:fs/promises';
import type { Log } from '../core/capabilities.ts';
import { formatHostPort } from '../core/ip.ts';
import { hostRoutes } from '../io/host-facts.ts';
import { type HttpServer, serveHttp } from '../io/http-server.ts';
import { IpCommand } from '../io/linux/ip-command.ts';
import { portHolder } from '../io/linux/listeners.ts';
import { packageVersion } from '../io/package-version.ts';
import { SqliteStore } from '../io/store/sqlite.ts';
import { SYSTEM_CLOCK, SYSTEM_RANDOM, sha256, systemSchedule } from '../io/system.ts';
import { type InitClusterOptions, initCluster } from '../manager/init-cluster.ts';
import type { JoinTokens } from '../manager/join-tokens.ts';
import type { TaskLogs } from '../manager/log-stream.ts';
import { Manager, type ManagerSnapshot } from '../manager/manager.ts';
import { HOST_DEVICE } from './host-port.ts';

/** How this host's manager is set up. */
export interface ManagerHostOptions {
  readonly log: Log;
  /** The agent's state directory: the cluster's state is below it. */
  readonly stateDirectory: string;
  /** Where sessions of nodes are taken. */
  readonly listen: { readonly host: string; readonly port: number };
  /** Address by which the nodes reach this manager. */
  readonly advertiseAddress: string;
  /** This host's node; undefined until it has joined. */
  readonly nodeId: () => string | undefined;
  readonly taskLogs: TaskLogs;
}

/** A manager on this host: its store, its TCP address, and the API for the local socket. */
export class ManagerHost {
  readonly #manager: Manager;
  readonly #store: SqliteStore;
  readonly #server: HttpServer;

  private constructor(manager: Manager, store: SqliteStore, server: HttpServer) {
    this.#manager = manager;
    this.#store = store;
    this.#server = server;
  }

  /**
   * Creates a cluster and manages it.
   *
   * @throws {ManagerError} if an address pool cannot be used; nothing stays then
   */
  static async create(
    options: ManagerHostOptions,
    cluster: Omit<InitClusterOptions, 'clock' | 'random' | 'sha256'>,
  ): Promise<ManagerHost> {
    await ManagerHost.erase(options.stateDirectory);
    const store = openStore(options);
    try {
      const machine = { clock: SYSTEM_CLOCK, random: SYSTEM_RANDOM, sha256 };
      await initCluster(store, { ...machine, ...cluster });
      return await ManagerHost.#serve(options, store);
    } catch (error) {
      await store.close();
      await ManagerHost.erase(options.stateDirectory);
      throw error;
    }
  }

  /**
   * Goes on to manage the cluster whose state is on this host.
   *
   * @throws {Error} if the state is damaged or the TCP address is taken
   */
  static async open(options: ManagerHostOptions): Promise<ManagerHost> {
    const store = openStore(options);
    try {
      return await ManagerHost.#serve(options, store);
    } catch (error) {
      await store.close();
      throw error;
    }
  }

  /** Deletes the cluster's state from this host. */
  static async erase(stateDirectory: string): Promise<void> {
    await rm(managerDirectory(stateDirectory), { recursive: true, force: true });
  }

  static async #serve(options: ManagerHostOptions, store: SqliteStore): Promise<ManagerHost> {
    const { log, listen, advertiseAddress, nodeId, taskLogs } = options;
    const ip = new IpCommand();
    const manager = new Manager(
      {
        store,
        clock: SYSTEM_CLOCK,
        random: SYSTEM_RANDOM,
        log,
        sha256,
        schedule: systemSchedule,
        portHolder,
        hostRoutes: () => hostRoutes(ip, HOST_DEVICE),
        taskLogs,
      },
      {
        version: packageVersion(),
        nodeId,
        managers: () => [formatHostPort(advertiseAddress, listen.port)],
        managerPort: listen.port,
      },
    );
    await manager.start();
    try {
      const server = await serveHttp(manager.sessionApi.fetch, { kind: 'tcp', ...listen });
      return new ManagerHost(manager, store, server);
    } catch (error) {
      manager.stop();
      throw error;
    }
  }

  /** TCP port of the sessions. */
  get port(): number {
    return this.#server.port;
  }

  /** Answers the Docker Engine API. */
  readonly api = (request: Request): Response | Promise<Response> =>
    this.#manager.api.fetch(request);

  /** The tokens by which nodes join. */
  joinTokens(): JoinTokens {
    return this.#manager.joinTokens();
  }

  /** Tells that gossip has lost a node: its tasks need not wait for its heartbeat to be missed. */
  nodeSuspected(nodeId: string): void {
    this.#manager.nodeSuspected(nodeId);
  }

  /** The cluster's objects, counted. */
  snapshot(): ManagerSnapshot {
    return this.#manager.snapshot();
  }

  /** Ends all sessions and closes the store. */
  async close(): Promise<void> {
    this.#manager.stop();
    await this.#server.close();
    await this.#store.close();
  }
}

function managerDirectory(stateDirectory: string): string {
  return `${stateDirectory}/manager`;
}

function openStore({ stateDirectory, log }: ManagerHostOptions): SqliteStore {
  return SqliteStore.open({ path: `${managerDirectory(stateDirectory)}/state.db`, log });
}
