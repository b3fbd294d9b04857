import { Option } from 'commander';
import { packageVersion } from '../io/package-version.ts';
import { isUnavailable } from './agent-client.ts';
import type { AgentStatus, SystemVersion } from './api-types.ts';
import type { Cli, WeftCommand } from './command.ts';
import { isExpected } from './errors.ts';
import { printObjects, shortId } from './output.ts';
import { formatPairs, formatTable } from './table.ts';

interface FormatOptions {
  readonly format?: 'json';
}

/** Fills `status`. */
export function fillStatus(command: WeftCommand, cli: Cli): void {
  command
    .addOption(new Option('--format <format>', 'Print one JSON object').choices(['json']))
    .action(async (options: FormatOptions) => {
      const status = await cli.client().status();
      if (options.format === 'json') printObjects(cli.terminal, [status], 'json');
      else cli.terminal.write(formatStatus(status));
    });
}

/** Fills `version`. */
export function fillVersion(command: WeftCommand, cli: Cli): void {
  command
    .addOption(new Option('--format <format>', 'Print one JSON object').choices(['json']))
    .action((options: FormatOptions) => showVersion(cli, options.format));
}

/** What an agent reports, as sections with a heading; what it leaves out has no section. */
export function formatStatus(status: AgentStatus): string {
  return [
    nodeSection(status),
    clusterSection(status),
    dataPlaneSection(status),
    pathsSection(status),
    sessionsSection(status),
    membersSection(status),
    peersSection(status),
    tasksSection(status),
    conflictsSection(status),
  ]
    .filter((section) => section !== '')
    .join('\n');
}

function nodeSection({ node, version }: AgentStatus): string {
  return section('Node', [
    ['Version', version],
    ['ID', node?.id],
    ['Hostname', node?.hostname],
    ['Role', node?.role],
    ['Advertise address', node?.advertiseAddress],
  ]);
}

function clusterSection({ cluster }: AgentStatus): string {
  if (cluster === undefined || cluster === null) {
    return 'Cluster\n none: use "weft init" to start one, or "weft join" to enter one\n';
  }
  return section('Cluster', [
    ['ID', cluster.id],
    ['Managers', cluster.managers?.join(', ')],
    ['Session', cluster.connected === undefined ? undefined : connection(cluster.connected)],
  ]);
}

function connection(isConnected: boolean): string {
  return isConnected ? 'connected' : 'disconnected: tasks and networks go on as they are';
}

function dataPlaneSection({ dataPlane }: AgentStatus): string {
  return section('Data plane', [
    ['Packet threads', dataPlane?.threads],
    ['Ports', dataPlane?.ports],
    ['VTEPs', dataPlane?.vteps],
    ['Networks', dataPlane?.networks],
    ['Endpoints', dataPlane?.endpoints],
    ['Services', dataPlane?.services],
    ['MTU', dataPlane?.mtuBytes],
    ['Encryption', dataPlane?.aead],
    ['Flows', formatCounts(dataPlane?.flows)],
    ['Packets', formatCounts(dataPlane?.packets)],
    ['Drops', formatCounts(dataPlane?.drops)],
  ]);
}

function pathsSection({ paths = [] }: AgentStatus): string {
  if (paths.length === 0) return '';
  const rows = paths.map((path) => [
    path.node ?? '',
    path.address ?? '',
    path.state ?? '',
    path.mtuBytes === undefined ? '' : String(path.mtuBytes),
    formatMs(path.rttMs),
    formatMs(path.rttMinMs),
    path.lossRatio === undefined ? '' : `${Math.round(path.lossRatio * 100)} %`,
  ]);
  const heads = ['NODE', 'ADDRESS', 'STATE', 'MTU', 'RTT', 'BEST RTT', 'LOSS'];
  return `Paths\n${formatTable(heads, rows)}`;
}

/** Channels that are in use: most nodes need none. */
function sessionsSection({ sessions = [] }: AgentStatus): string {
  const rows = sessions
    .filter(({ state }) => state !== 'idle')
    .map(({ node = '', address = '', state = '', ageSeconds }) => [
      node,
      address,
      state,
      ageSeconds === undefined ? '' : `${ageSeconds} s`,
    ]);
  if (rows.length === 0) return '';
  return `Encrypted channels\n${formatTable(['NODE', 'ADDRESS', 'STATE', 'SESSION AGE'], rows)}`;
}

function formatMs(ms: number | undefined): string {
  return ms === undefined ? '' : `${ms.toFixed(ms < 10 ? 2 : 0)} ms`;
}

function membersSection({ gossip }: AgentStatus): string {
  const members = gossip?.members ?? [];
  if (members.length === 0) return '';
  const rows = members.map(({ name = '', address = '', state = '' }) => [name, address, state]);
  return `Members\n${formatTable(['NAME', 'ADDRESS', 'STATE'], rows)}`;
}

function peersSection({ peers = [] }: AgentStatus): string {
  if (peers.length === 0) return '';
  const rows = peers.map(({ name = '', address = '', datagrams, bytes, drops }) => [
    ...[name, address],
    ...[datagrams?.in, bytes?.in, datagrams?.out, bytes?.out].map((count = 0) => String(count)),
    String((drops?.in ?? 0) + (drops?.out ?? 0)),
  ]);
  const headers = ['NAME', 'VTEP', 'DATAGRAMS IN', 'BYTES IN', 'DATAGRAMS OUT', 'BYTES OUT'];
  return `Peers\n${formatTable([...headers, 'DROPS'], rows)}`;
}

function tasksSection({ tasks = [] }: AgentStatus): string {
  if (tasks.length === 0) return '';
  const rows = tasks.map(({ id = '', name = '', state = '', pid, error = '' }) => [
    shortId(id),
    name,
    state,
    pid === undefined ? '' : String(pid),
    error,
  ]);
  return `Tasks\n${formatTable(['ID', 'NAME', 'STATE', 'PID', 'ERROR'], rows)}`;
}

function conflictsSection({ portConflicts = [] }: AgentStatus): string {
  if (portConflicts.length === 0) return '';
  const rows = portConflicts.map(({ protocol = '', port = 0, holder = '' }) => [
    `${port}/${protocol}`,
    holder,
  ]);
  return `Published ports that this node cannot serve\n${formatTable(['PORT', 'HELD BY'], rows)}`;
}

function section(
  heading: string,
  pairs: readonly (readonly [name: string, value: string | number | undefined])[],
): string {
  const known = pairs.flatMap(([name, value]) =>
    value === undefined || value === '' ? [] : [[name, String(value)] as const],
  );
  return known.length === 0 ? '' : `${heading}\n${formatPairs(known)}`;
}

/** Counters that have counted something: a data plane has too many to show them all. */
function formatCounts(counts: Readonly<Record<string, number>> | undefined): string | undefined {
  if (counts === undefined) return undefined;
  const parts = Object.entries(counts)
    .filter(([, count]) => count > 0)
    .map(([name, count]) => `${name} ${count}`);
  return parts.length === 0 ? 'none' : parts.join(', ');
}

/** The client's version is shown even when no agent answers, which then is the error. */
async function showVersion(cli: Cli, format: 'json' | undefined): Promise<void> {
  const client = { Version: packageVersion() };
  try {
    const server = await serverVersion(cli);
    if (format === 'json') printObjects(cli.terminal, [{ Client: client, Server: server }], format);
    else cli.terminal.write(formatVersions(client.Version, server));
  } catch (error) {
    if (!isExpected(error)) throw error;
    if (format === 'json') printObjects(cli.terminal, [{ Client: client }], format);
    else cli.terminal.write(formatVersions(client.Version, undefined));
    throw error;
  }
}

/** Only managers answer `/version`; every agent tells its own version. */
async function serverVersion(cli: Cli): Promise<SystemVersion> {
  try {
    return await cli.client().version();
  } catch (error) {
    if (!isUnavailable(error)) throw error;
    const { version } = await cli.client().status();
    return version === undefined ? {} : { Version: version };
  }
}

function formatVersions(clientVersion: string, server: SystemVersion | undefined): string {
  const client = section('Client', [['Version', clientVersion]]);
  if (server === undefined) return client;
  const platform = [server.Os, server.Arch].filter((part) => part !== undefined).join('/');
  const agent = section('Agent', [
    ['Version', server.Version],
    ['API version', server.ApiVersion],
    ['OS/Arch', platform],
    ['Kernel', server.KernelVersion],
  ]);
  return `${client}\n${agent}`;
}
