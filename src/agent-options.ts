/** A TCP address to listen on. */
export interface ListenAddress {
  readonly host: string;
  readonly port: number;
}

/** How much the agent logs, most first. */
export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** The configuration of one agent, checked. */
export interface AgentOptions {
  /** What must survive a restart of the machine. Absolute. */
  readonly stateDirectory: string;
  /** What must survive the process, and not a boot. Absolute. */
  readonly runDirectory: string;
  /** The API's unix socket. Absolute. */
  readonly socketPath: string;
  /** IP address or interface at which other nodes reach this one; absent: the default route's. */
  readonly advertiseAddress?: string;
  /** Where a manager takes sessions of agents. */
  readonly listenAddress: ListenAddress;
  /** UDP and TCP port of memberlist's protocol. */
  readonly gossipPort: number;
  /** UDP port of VXLAN. */
  readonly dataPathPort: number;
  /** Threads that handle packets; absent: as many as suit the machine. */
  readonly packetThreads?: number;
  /** Where `/metrics` is served; absent: nowhere. */
  readonly metricsAddress?: ListenAddress;
  readonly logLevel: LogLevel;
  /** This node's name in the cluster. */
  readonly hostname: string;
  /** What the names of tasks' network namespaces start with: agents that share a kernel differ in it. */
  readonly netnsPrefix: string;
}
