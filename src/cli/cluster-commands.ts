import { Argument, Option } from 'commander';
import { formatHostPort } from '../core/ip.ts';
import type { SwarmInitRequest, SwarmJoinRequest } from './api-types.ts';
import { type Cli, repeatable, type WeftCommand } from './command.ts';
import { refused, usageError } from './errors.ts';
import {
  addressOrInterface,
  gossipKey,
  gossipLabel,
  hostAndPort,
  integer,
  keyRotation,
  nonEmpty,
  parseHostAndPort,
  port,
  subnet,
} from './values.ts';

/** Where managers listen unless told otherwise (Docker Swarm's port). */
const MANAGER_PORT = 2_377;
/** The Engine API's limit: a smaller subnet holds no gateway, VIP and task. */
const SUBNET_PREFIX_MAX = 29;

interface InitOptions {
  readonly advertiseAddr?: string;
  readonly listenAddr?: string;
  readonly dataPathPort?: number;
  readonly defaultAddrPool: readonly string[];
  readonly defaultAddrPoolMaskLength?: number;
  readonly gossipEncryption?: 'on' | 'off';
  readonly gossipProfile?: string;
  readonly gossipCompression?: 'on' | 'off';
  readonly gossipLabel?: string;
  readonly gossipKey?: string;
  readonly gossipKeyRotation?: number;
}

interface JoinOptions {
  readonly token: string;
  readonly advertiseAddr?: string;
  readonly listenAddr?: string;
  readonly availability?: string;
}

/** Fills `init`. */
export function fillInit(command: WeftCommand, cli: Cli): void {
  command
    .addOption(advertiseAddr())
    .addOption(listenAddr())
    .option('--data-path-port <port>', 'UDP port of the VXLAN data path (default 4789)', port)
    .addOption(
      repeatable(
        '--default-addr-pool <cidr>',
        'Pool that networks get their subnets from (default 10.0.0.0/8, and a random fd00::/8 prefix)',
        subnet,
      ),
    )
    .option(
      '--default-addr-pool-mask-length <bits>',
      'Prefix length of IPv4 subnets (default 24; IPv6 ones are /64)',
      integer(1, SUBNET_PREFIX_MAX),
    )
    .addOption(onOrOff('--gossip-encryption', 'Whether gossip is encrypted'))
    .addOption(
      new Option('--gossip-profile <profile>', 'Timing of gossip (default lan)').choices([
        'lan',
        'wan',
        'local',
      ]),
    )
    .addOption(onOrOff('--gossip-compression', 'Whether gossip is compressed'))
    .option('--gossip-label <text>', 'Label of all gossip packets (default none)', gossipLabel)
    .option(
      '--gossip-key <base64>',
      'First key, of 16, 24 or 32 bytes, to share gossip with serf agents (default a random one)',
    )
    .option(
      '--gossip-key-rotation <duration>',
      'How long a key is used, 0 for ever (default 12h)',
      keyRotation,
    )
    .action((options: InitOptions) => initCluster(cli, options));
}

function onOrOff(flag: string, description: string): Option {
  return new Option(`${flag} <on|off>`, `${description} (default on)`).choices(['on', 'off']);
}

/** Fills `join`. */
export function fillJoin(command: WeftCommand, cli: Cli): void {
  command
    .argument('<host:port>', 'Address of a manager', managerAddress)
    .requiredOption('--token <token>', 'Token of the cluster, from "weft join-token"', nonEmpty)
    .addOption(advertiseAddr())
    .addOption(listenAddr())
    .addOption(
      new Option('--availability <mode>', 'Whether this node takes tasks').choices([
        'active',
        'pause',
        'drain',
      ]),
    )
    .action((address: string, options: JoinOptions) => joinCluster(cli, address, options));
}

/** Fills `leave`. */
export function fillLeave(command: WeftCommand, cli: Cli): void {
  command
    .option('-f, --force', 'Leave even when this is the last manager')
    .action(async (options: { readonly force?: boolean }) => {
      await cli.client().leaveSwarm(options.force === true);
      cli.terminal.write('Node left the cluster.\n');
    });
}

/** Fills `join-token`. */
export function fillJoinToken(command: WeftCommand, cli: Cli): void {
  command
    .addArgument(new Argument('<role>', 'Role of the new node').choices(['worker', 'manager']))
    .option('-q, --quiet', 'Only display the token')
    .action((role: 'worker' | 'manager', options: { readonly quiet?: boolean }) =>
      showJoinToken(cli, role, options.quiet === true),
    );
}

function advertiseAddr(): Option {
  return new Option(
    '--advertise-addr <ip|interface>',
    "Address at which other nodes reach this one (default the agent's)",
  ).argParser(addressOrInterface);
}

function listenAddr(): Option {
  return new Option(
    '--listen-addr <host:port>',
    "Address at which managers listen (default the agent's)",
  ).argParser(hostAndPort);
}

/** The port may be left out, and then the brackets of an IPv6 address, too. */
function managerAddress(text: string): string {
  if (parseHostAndPort(text) !== undefined) return text;
  const host = /^\[[^\]]*\]$/.test(text) ? text.slice(1, -1) : text;
  const isIpv6 = host.indexOf(':') !== host.lastIndexOf(':');
  return hostAndPort(isIpv6 ? formatHostPort(host, MANAGER_PORT) : `${text}:${MANAGER_PORT}`);
}

/** What was said about gossip; nothing if nothing was. */
function gossipRequest(options: InitOptions): Pick<SwarmInitRequest, 'Gossip'> {
  const { gossipEncryption, gossipProfile, gossipCompression, gossipLabel: label } = options;
  const { gossipKeyRotation: rotation } = options;
  const key =
    options.gossipKey === undefined ? undefined : gossipKey(options.gossipKey, '--gossip-key');
  if (key !== undefined && gossipEncryption === 'off') {
    throw usageError('Cannot use --gossip-key with --gossip-encryption off: expected one of them');
  }
  const gossip = {
    ...(gossipEncryption === undefined ? {} : { Encryption: gossipEncryption === 'on' }),
    ...(gossipProfile === undefined ? {} : { Profile: gossipProfile }),
    ...(gossipCompression === undefined ? {} : { Compression: gossipCompression === 'on' }),
    ...(label === undefined ? {} : { Label: label }),
    ...(key === undefined ? {} : { Key: key }),
    ...(rotation === undefined ? {} : { KeyRotation: rotation }),
  };
  return Object.keys(gossip).length === 0 ? {} : { Gossip: gossip };
}

async function initCluster(cli: Cli, options: InitOptions): Promise<void> {
  const client = cli.client();
  const request: SwarmInitRequest = {
    ...(options.listenAddr === undefined ? {} : { ListenAddr: options.listenAddr }),
    ...(options.advertiseAddr === undefined ? {} : { AdvertiseAddr: options.advertiseAddr }),
    ...(options.dataPathPort === undefined ? {} : { DataPathPort: options.dataPathPort }),
    ...(options.defaultAddrPool.length === 0 ? {} : { DefaultAddrPool: options.defaultAddrPool }),
    ...(options.defaultAddrPoolMaskLength === undefined
      ? {}
      : { SubnetSize: options.defaultAddrPoolMaskLength }),
    ...gossipRequest(options),
  };
  const nodeId = await client.initSwarm(request);
  const join = await joinCommand(cli, 'worker');
  cli.terminal.write(
    `Cluster initialised: current node (${nodeId}) is now a manager.\n\n` +
      `To add a worker to this cluster, run the following command:\n\n    ${join}\n`,
  );
}

async function joinCluster(cli: Cli, address: string, options: JoinOptions): Promise<void> {
  const client = cli.client();
  const request: SwarmJoinRequest = {
    JoinToken: options.token,
    RemoteAddrs: [address],
    ...(options.listenAddr === undefined ? {} : { ListenAddr: options.listenAddr }),
    ...(options.advertiseAddr === undefined ? {} : { AdvertiseAddr: options.advertiseAddr }),
    ...(options.availability === undefined ? {} : { Availability: options.availability }),
  };
  await client.joinSwarm(request);
  // Not Docker's /info: that is about the cluster, of which a worker's agent tells nothing.
  const { node } = await client.status();
  cli.terminal.write(`This node joined a cluster as a ${node?.role ?? 'worker'}.\n`);
}

async function showJoinToken(cli: Cli, role: 'worker' | 'manager', quiet: boolean): Promise<void> {
  if (quiet) {
    cli.terminal.write(`${await joinToken(cli, role)}\n`);
    return;
  }
  const join = await joinCommand(cli, role);
  cli.terminal.write(
    `To add a ${role} to this cluster, run the following command:\n\n    ${join}\n\n`,
  );
}

/** The command line that makes another host a member, with this node as the manager to ask. */
async function joinCommand(cli: Cli, role: 'worker' | 'manager'): Promise<string> {
  const token = await joinToken(cli, role);
  const { Swarm: swarm } = await cli.client().info();
  const self = swarm?.RemoteManagers?.find((manager) => manager.NodeID === swarm.NodeID);
  const address = self?.Addr ?? formatHostPort(swarm?.NodeAddr || 'MANAGER-ADDRESS', MANAGER_PORT);
  return `weft join --token ${token} ${address}`;
}

async function joinToken(cli: Cli, role: 'worker' | 'manager'): Promise<string> {
  const { JoinTokens: tokens } = await cli.client().swarm();
  const token = role === 'worker' ? tokens?.Worker : tokens?.Manager;
  if (token === undefined) {
    throw refused(`Cannot show a ${role} token: the agent gave none, ask a manager of the cluster`);
  }
  return token;
}
