import type { Log } from '../core/capabilities.ts';
import { formatHostPort } from '../core/ip.ts';
import type { PacketThread } from '../dataplane/packet-thread.ts';
import { findUnderlay, hostRoutes, machineFacts, type Underlay } from '../io/host-facts.ts';
import { HttpError } from '../io/http-client.ts';
import { IpCommand } from '../io/linux/ip-command.ts';
import { ManagerClient, splitHostPort } from '../io/manager-client.ts';
import { NODE_NOISE_CRYPTO } from '../io/noise-crypto.ts';
import { packageVersion } from '../io/package-version.ts';
import { SYSTEM_CLOCK, SYSTEM_RANDOM } from '../io/system.ts';
import type { InitGossipOptions } from '../manager/init-cluster.ts';
import type { JoinRequest, JoinResponse, NodeDescription } from '../manager/session-protocol.ts';
import { EncryptionKeyFile } from './encryption-key.ts';
import { GossipKeyFile } from './gossip-key-file.ts';
import { HOST_DEVICE } from './host-port.ts';
import { type Identity, IdentityFile } from './identity.ts';
import type { InitGossip, InitRequest, JoinClusterRequest } from './local-api.ts';
import { LocalApiError } from './local-api-error.ts';
import type { ManagerHost, ManagerHostOptions } from './manager-host.ts';
import { Node } from './node.ts';
import { MANAGER_PORT } from './session.ts';

const NANOSECONDS_PER_MS = 1e6;

/** Set-up of this host that does not depend on a cluster. */
export interface HostOptions {
  readonly stateDirectory: string;
  readonly runDirectory: string;
  readonly hostname: string;
  /** Address or interface to advertise unless a request says otherwise. */
  readonly advertiseAddress?: string;
  /** Where a manager of this host takes sessions unless a request says otherwise. */
  readonly listenAddress: { readonly host: string; readonly port: number };
  readonly gossipPort: number;
  /** UDP port of VXLAN in a cluster that this host creates; one that it joins has its own. */
  readonly dataPathPort: number;
  readonly packetThreads: number;
  readonly netnsPrefix: string;
}

/** What is left of the last agent, before anything is made of it. */
interface Recalled {
  readonly known: Identity;
  readonly underlay: Underlay;
}

/** Takes this host into a cluster and out of it, one change at a time. */
export class Membership {
  readonly #options: HostOptions;
  readonly #log: Log;
  readonly #file: IdentityFile;
  readonly #keyFile: EncryptionKeyFile;
  readonly #gossipKeyFile: GossipKeyFile;
  readonly #ip = new IpCommand();
  readonly #onFailure: (error: Error) => void;
  #identity: Identity | undefined;
  #node: Node | undefined;
  #manager: ManagerHost | undefined;
  #changes: Promise<unknown> = Promise.resolve();
  #recalled: Promise<Recalled | undefined> = Promise.resolve(undefined);

  /** @param onFailure - Told of a failure after which the agent is of no use. */
  constructor(options: HostOptions, log: Log, onFailure: (error: Error) => void) {
    this.#options = options;
    this.#log = log;
    this.#onFailure = onFailure;
    this.#file = new IdentityFile(`${options.stateDirectory}/node.json`);
    this.#keyFile = new EncryptionKeyFile(`${options.stateDirectory}/encryption.key`);
    this.#gossipKeyFile = new GossipKeyFile(`${options.stateDirectory}/gossip-keys.json`);
  }

  /** Who this host is; undefined while it is in no cluster. */
  get identity(): Identity | undefined {
    return this.#identity;
  }

  get node(): Node | undefined {
    return this.#node;
  }

  get manager(): ManagerHost | undefined {
    return this.#manager;
  }

  /** Begins to look who this host was, and by which interface: {@link resume} goes on from there. */
  recall(): void {
    this.#recalled = this.#recall();
    this.#recalled.catch(() => {}); // it is thrown where it is waited for
  }

  async #recall(): Promise<Recalled | undefined> {
    const known = await this.#file.read();
    if (known === undefined) return undefined;
    return { known, underlay: await findUnderlay(this.#ip, known.advertiseAddress) };
  }

  /**
   * Takes up what {@link recall} has found: first the packets of an earlier agent's tasks, then the rest.
   *
   * @param threads - For the data plane; taken if this host is in a cluster.
   * @throws {Error} if a file is damaged or a port is taken
   */
  async resume(threads: readonly PacketThread[]): Promise<void> {
    const recalled = await this.#recalled;
    if (recalled === undefined) return;
    const { known, underlay } = recalled;
    // A clock that was set back must not make this life look older than the last one.
    const identity = { ...known, generation: Math.max(Date.now(), known.generation + 1) };
    await this.#enter(identity, underlay, threads);
    const { role, listenAddress } = identity;
    if (role === 'manager' && listenAddress !== undefined) {
      const { ManagerHost } = await loadManager();
      this.#manager = await ManagerHost.open(this.#managerOptions(underlay, listenAddress));
    }
  }

  /**
   * Creates a cluster with this host as its manager.
   *
   * @returns the node's id
   * @throws {LocalApiError} if a field is wrong or the host is in a cluster; nothing stays then
   */
  async init(request: InitRequest): Promise<string> {
    return await this.#entering(async () => {
      this.#requireNoCluster();
      const underlay = await this.#underlay(request.AdvertiseAddr);
      const { host, port } = this.#options.listenAddress;
      const listenAddress = request.ListenAddr ?? formatHostPort(host, port);
      const options = this.#managerOptions(underlay, listenAddress);
      const { ManagerHost } = await loadManager();
      this.#manager = await ManagerHost.create(options, {
        addressPools: request.DefaultAddrPool ?? [],
        ...(request.SubnetSize ? { subnetPrefix: request.SubnetSize } : {}),
        dataPathPort: request.DataPathPort || this.#options.dataPathPort,
        hostRoutes: await hostRoutes(this.#ip, HOST_DEVICE),
        gossip: gossipOptions(request.Gossip ?? {}),
      });
      try {
        const { port: managerPort } = this.#manager;
        const client = new ManagerClient(reachable(options.listen.host), managerPort);
        const joined = await client.join({
          ...(await this.#joinRequest(underlay)),
          token: this.#manager.joinTokens().manager,
          availability: 'active',
        });
        const managers = [formatHostPort(underlay.address, managerPort)];
        const identity = await this.#newIdentity(joined, underlay, managers);
        await this.#enter({ ...identity, listenAddress }, underlay);
        return joined.nodeId;
      } catch (error) {
        await this.#manager.close();
        this.#manager = undefined;
        await ManagerHost.erase(this.#options.stateDirectory);
        throw error;
      }
    });
  }

  /**
   * @throws {LocalApiError} if no manager takes this host in; nothing stays then
   * @throws {Error} if this host cannot serve as a node: the managers are told that it left
   */
  async join(request: JoinClusterRequest): Promise<void> {
    await this.#entering(async () => {
      this.#requireNoCluster();
      const underlay = await this.#underlay(request.AdvertiseAddr);
      const joined = await this.#askToJoin(request.RemoteAddrs, {
        ...(await this.#joinRequest(underlay)),
        token: request.JoinToken,
        availability: request.Availability ?? 'active',
      });
      const identity = await this.#newIdentity(joined, underlay, request.RemoteAddrs);
      try {
        await this.#enter(identity, underlay);
      } catch (error) {
        // The managers have let it in already: a node that never was must not stay in their list as ready.
        await this.#tellManagers(identity);
        throw error;
      }
    });
  }

  /**
   * Stops this host's tasks and takes it out of the cluster.
   *
   * @param force - Also if it is the manager, whose cluster ends with it.
   */
  async leave(force: boolean): Promise<void> {
    await this.#exclusively(async () => {
      const identity = this.#identity;
      if (identity === undefined) {
        throw new LocalApiError(
          503,
          'This node is not part of a cluster: there is nothing to leave',
        );
      }
      if (identity.role === 'manager' && !force) {
        throw new LocalApiError(
          503,
          'You are attempting to leave the cluster on its only manager: all of its state, services and networks would be gone for good. Use --force to do so',
        );
      }
      await this.#tellManagers(identity);
      await this.#forget();
    });
  }

  /** Lets go of everything; tasks and flows go on until the next agent. */
  async close(): Promise<void> {
    await this.#changes;
    await this.#node?.close();
    await this.#manager?.close();
  }

  #exclusively<Result>(change: () => Promise<Result>): Promise<Result> {
    const done = this.#changes.then(change);
    this.#changes = done.catch(() => {});
    return done;
  }

  /** A change that takes this host into a cluster. Where it fails, the keys that it brought go. */
  #entering<Result>(change: () => Promise<Result>): Promise<Result> {
    return this.#exclusively(async () => {
      try {
        return await change();
      } finally {
        if (this.#identity === undefined) await this.#removeKeys();
      }
    });
  }

  #requireNoCluster(): void {
    if (this.#identity === undefined) return;
    throw new LocalApiError(
      503,
      'This node is already part of a cluster. Use "weft leave" to leave this cluster and join another one.',
    );
  }

  async #underlay(wanted: string | undefined): Promise<Underlay> {
    const text = wanted || this.#options.advertiseAddress;
    return await findUnderlay(this.#ip, text).catch((cause: Error) => {
      throw new LocalApiError(400, cause.message, { cause });
    });
  }

  #managerOptions(underlay: Underlay, listenAddress: string): ManagerHostOptions {
    return {
      log: this.#log,
      stateDirectory: this.#options.stateDirectory,
      listen: listenOn(listenAddress, underlay),
      advertiseAddress: underlay.address,
      nodeId: () => this.#identity?.nodeId,
      taskLogs: (taskId, options) => this.#node?.taskLogs(taskId, options),
    };
  }

  async #joinRequest(underlay: Underlay): Promise<Omit<JoinRequest, 'token' | 'availability'>> {
    return {
      description: await this.#description(),
      advertiseAddress: underlay.address,
      gossipPort: this.#options.gossipPort,
    };
  }

  async #description(): Promise<NodeDescription> {
    const { hostname } = this.#options;
    const { publicKey } = NODE_NOISE_CRYPTO.keyPair(await this.#keyFile.load());
    return {
      ...machineFacts(),
      hostname,
      agentVersion: packageVersion(),
      publicKey: Buffer.from(publicKey).toString('base64'),
    };
  }

  /** Who this node is from now on. Keys are kept apart from that. */
  async #newIdentity(
    { gossipKeys, ...joined }: JoinResponse,
    underlay: Underlay,
    managers: readonly string[],
  ): Promise<Identity> {
    if (gossipKeys === undefined) await this.#gossipKeyFile.remove();
    else await this.#gossipKeyFile.write(gossipKeys);
    return {
      ...joined,
      advertiseAddress: underlay.address,
      gossipPort: this.#options.gossipPort,
      managers: [...managers],
      generation: Date.now(),
    };
  }

  /** Asks one manager after the other. A refusal is final; silence is not. */
  async #askToJoin(managers: readonly string[], request: JoinRequest): Promise<JoinResponse> {
    let last: Error | undefined;
    for (const manager of managers) {
      try {
        const { host, port } = splitHostPort(manager, MANAGER_PORT);
        return await new ManagerClient(host, port).join(request);
      } catch (error) {
        last = error instanceof Error ? error : new Error(String(error));
        if (error instanceof HttpError && error.detail.code === 'STATUS') break;
      }
    }
    throw new LocalApiError(400, last?.message ?? 'No manager was given', { cause: last });
  }

  async #enter(
    identity: Identity,
    underlay: Underlay,
    threads?: readonly PacketThread[],
  ): Promise<void> {
    const { stateDirectory, runDirectory, netnsPrefix, packetThreads } = this.#options;
    this.#node = await Node.start(
      {
        clock: SYSTEM_CLOCK,
        random: SYSTEM_RANDOM,
        log: this.#log,
        onRemoved: () => void this.#exclusively(() => this.#forget()),
        onFailure: this.#onFailure,
        onPeerFailed: (nodeId) => this.#manager?.nodeSuspected(nodeId),
      },
      {
        identity,
        description: await this.#description(),
        encryptionKey: await this.#keyFile.load(),
        gossipKeyFile: this.#gossipKeyFile,
        stateDir: stateDirectory,
        runDir: runDirectory,
        underlayMtuBytes: underlay.mtuBytes,
        packetThreads,
        netnsPrefix,
      },
      threads,
    );
    this.#identity = identity;
    await this.#file.write(identity);
  }

  async #tellManagers(identity: Identity): Promise<void> {
    const managers = this.#node?.assignments?.managers ?? identity.managers;
    for (const manager of managers) {
      try {
        const { host, port } = splitHostPort(manager, MANAGER_PORT);
        await new ManagerClient(host, port).leave(identity);
        return;
      } catch (error) {
        this.#log.warn({ manager, error: String(error) }, 'manager was not told of the leave');
      }
    }
  }

  async #forget(): Promise<void> {
    await this.#node?.leave();
    this.#node = undefined;
    await this.#manager?.close();
    this.#manager = undefined;
    const { ManagerHost } = await loadManager();
    await ManagerHost.erase(this.#options.stateDirectory);
    await this.#file.remove();
    await this.#removeKeys();
    this.#identity = undefined;
  }

  async #removeKeys(): Promise<void> {
    await this.#keyFile.remove();
    await this.#gossipKeyFile.remove();
  }
}

function gossipOptions(wish: InitGossip): InitGossipOptions {
  return {
    ...(wish.Encryption === undefined ? {} : { encryption: wish.Encryption }),
    ...(wish.Profile === undefined ? {} : { profile: wish.Profile }),
    ...(wish.Compression === undefined ? {} : { compression: wish.Compression }),
    ...(wish.Label === undefined ? {} : { label: wish.Label }),
    ...(wish.Key === undefined ? {} : { key: wish.Key }),
    ...(wish.KeyRotation === undefined
      ? {}
      : { keyRotationMs: Math.ceil(wish.KeyRotation / NANOSECONDS_PER_MS) }),
  };
}

/** Where a manager listens. All addresses means those of the family that it advertises, at least. */
function listenOn(text: string, { address }: Underlay): { host: string; port: number } {
  const { host, port } = splitHostPort(text, MANAGER_PORT);
  return { host: host === '0.0.0.0' && address.includes(':') ? '::' : host, port };
}

/** Loaded on demand: most nodes manage nothing. */
function loadManager(): Promise<typeof import('./manager-host.ts')> {
  return import('./manager-host.ts');
}

/** The address at which a server on this host that listens on `host` is reached from here. */
function reachable(host: string): string {
  if (host === '::') return '::1';
  return host === '0.0.0.0' ? '127.0.0.1' : host;
}
