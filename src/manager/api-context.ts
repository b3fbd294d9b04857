import type { Clock, Log, Random } from '../core/capabilities.ts';
import type { HostRoute } from '../ipam/address-space.ts';
import type { ClusterState } from './cluster-state.ts';
import type { JoinTokens, Sha256 } from './join-tokens.ts';
import type { LogRelay } from './log-relay.ts';
import type { TaskLogs } from './log-stream.ts';
import type { StateWriter } from './state-writer.ts';

/**
 * Who listens on a port of this host, such as `nginx (pid 123)`; undefined if nobody does. Ports that
 * weft itself holds do not count.
 */
export type PortHolder = (protocol: 'tcp' | 'udp', port: number) => Promise<string | undefined>;

/** What the handlers of the API work with. */
export interface ApiContext {
  readonly state: ClusterState;
  readonly writer: StateWriter;
  readonly clock: Clock;
  readonly random: Random;
  readonly sha256: Sha256;
  readonly log: Log;
  readonly joinTokens: () => JoinTokens;
  readonly local: LocalNode;
  readonly portHolder: PortHolder | undefined;
  readonly hostRoutes: (() => Promise<readonly HostRoute[]>) | undefined;
  /** Logs on this host. */
  readonly taskLogs: TaskLogs | undefined;
  /** Logs on the other nodes. */
  readonly logRelay: LogRelay;
}

/** What the manager knows of the host that it runs on. */
export interface LocalNode {
  /** weft's own version. */
  readonly version: string;
  /** Undefined until this host's agent has joined. */
  readonly nodeId: () => string | undefined;
  /** `host:port` of every manager, this one included. */
  readonly managers: () => readonly string[];
  /** TCP port of the session API. */
  readonly managerPort: number;
}
