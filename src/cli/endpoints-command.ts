import { Option } from 'commander';
import type { Endpoint, EndpointDigest } from './api-types.ts';
import type { Cli, WeftCommand } from './command.ts';
import { usageError } from './errors.ts';
import { shortId } from './output.ts';
import { formatTable } from './table.ts';
import { nonEmpty } from './values.ts';

interface EndpointsOptions {
  readonly network?: string;
  readonly service?: string;
  readonly node?: string;
  readonly digest?: boolean;
  readonly format?: 'table' | 'json';
}

/** What the line about everything has for a network. */
const ALL = '(all)';

/** Fills `endpoints`. */
export function fillEndpoints(command: WeftCommand, cli: Cli): void {
  command
    .option('--network <network>', 'Only those on this network', nonEmpty)
    .option('--service <service>', 'Only those of this service', nonEmpty)
    .option('--node <node>', 'Only those on this node', nonEmpty)
    .option('--digest', 'One line for each network: the same on nodes that know the same')
    .addOption(
      new Option('--format <format>', 'Print a table, or one JSON object per line').choices([
        'table',
        'json',
      ]),
    )
    .action((options: EndpointsOptions) => showEndpoints(cli, options));
}

async function showEndpoints(cli: Cli, options: EndpointsOptions): Promise<void> {
  const { network, service, node, digest = false, format } = options;
  if (digest && (network ?? service ?? node) !== undefined) {
    throw usageError('Cannot use --digest with --network, --service or --node: it is about all');
  }
  const client = cli.client();
  if (digest) {
    const { digests = [] } = await client.endpointDigests();
    cli.terminal.write(format === 'json' ? jsonLines(digests) : formatDigests(digests));
  } else {
    const { endpoints = [] } = await client.endpoints({ network, service, node });
    cli.terminal.write(format === 'json' ? jsonLines(endpoints) : formatEndpoints(endpoints));
  }
}

function jsonLines(objects: readonly object[]): string {
  return objects.map((object) => `${JSON.stringify(object)}\n`).join('');
}

function formatDigests(digests: readonly EndpointDigest[]): string {
  const rows = digests.map(({ network = ALL, endpoints = 0, digest = '' }) => [
    network,
    String(endpoints),
    digest,
  ]);
  return formatTable(['NETWORK', 'ENDPOINTS', 'DIGEST'], rows);
}

function formatEndpoints(endpoints: readonly Endpoint[]): string {
  const rows = endpoints.map((endpoint) => [
    endpoint.network ?? '',
    [endpoint.address, endpoint.address6].filter(Boolean).join(', '),
    endpoint.node ?? '',
    endpoint.service ?? '',
    endpoint.task === endpoint.taskId ? shortId(endpoint.taskId ?? '') : (endpoint.task ?? ''),
    endpoint.state ?? '',
  ]);
  return formatTable(['NETWORK', 'ADDRESS', 'NODE', 'SERVICE', 'TASK', 'STATE'], rows);
}
