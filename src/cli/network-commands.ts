import type { Command } from 'commander';
import { ipCidrContains, isIpv6Cidr, parseIpCidr } from '../core/cidr.ts';
import { parseIp } from '../core/ip.ts';
import type { IpamConfig, Network, NetworkCreateRequest } from './api-types.ts';
import { type Cli, forEachTarget, repeatable, type WeftCommand } from './command.ts';
import { usageError } from './errors.ts';
import { filter, toFilters } from './filters.ts';
import {
  addInspectOptions,
  addListOptions,
  type Column,
  compareNames,
  type ListOptions,
  printList,
  printObjects,
  type Row,
  shortId,
} from './output.ts';
import { ipAddress, label, nonEmpty, type Pair, pair, subnet } from './values.ts';

const NETWORK_COLUMNS: readonly Column[] = [
  ['NETWORK ID', 'ID'],
  ['NAME', 'Name'],
  ['DRIVER', 'Driver'],
  ['SCOPE', 'Scope'],
];

interface CreateOptions {
  readonly driver: string;
  readonly ipv6?: boolean;
  readonly subnet: readonly string[];
  readonly gateway: readonly string[];
  readonly ipRange: readonly string[];
  readonly auxAddress: readonly Pair[];
  readonly attachable?: boolean;
  readonly internal?: boolean;
  readonly ingress?: boolean;
  readonly label: readonly Pair[];
  readonly opt: readonly Pair[];
}

interface NetworkListOptions extends ListOptions {
  readonly filter: readonly Pair[];
  readonly trunc: boolean;
}

/** Fills `network`: `create|ls|inspect|rm`. */
export function fillNetwork(network: WeftCommand, cli: Cli): void {
  addCreateCommand(network, cli);
  addListOptions(network.command('ls').alias('list').description('List networks'))
    .addOption(
      repeatable(
        '-f, --filter <key=value>',
        'Filter by driver, id, label, name or scope',
        filter(['driver', 'id', 'label', 'name', 'scope']),
      ),
    )
    .option('--no-trunc', 'Show whole IDs')
    .action((options: NetworkListOptions) => listNetworks(cli, options));
  addInspectOptions(
    network
      .command('inspect')
      .description('Display detailed information on one or more networks')
      .argument('<network...>', 'Name or ID'),
  ).action(async (references: string[], options: { readonly format?: 'json' }) => {
    const found: Network[] = [];
    const failing = forEachTarget(references, async (reference) => {
      found.push(await cli.client().network(reference));
    });
    await failing.finally(() => printObjects(cli.terminal, found, options.format));
  });
  network
    .command('rm')
    .alias('remove')
    .description('Remove one or more networks')
    .argument('<network...>', 'Name or ID')
    .action((references: string[]) =>
      forEachTarget(references, async (reference) => {
        await cli.client().removeNetwork(reference);
        cli.terminal.write(`${reference}\n`);
      }),
    );
}

function addCreateCommand(network: Command, cli: Cli): void {
  network
    .command('create')
    .description('Create a network')
    .argument('<name>', 'Name of the network', nonEmpty)
    .option('-d, --driver <driver>', 'Driver of the network', nonEmpty, 'overlay')
    .option('--ipv6', 'Give tasks and services an IPv6 address, too')
    .addOption(
      repeatable(
        '--subnet <cidr>',
        'Subnet; one of each family with --ipv6 (default one of the pool)',
        subnet,
      ),
    )
    .addOption(
      repeatable('--gateway <ip>', 'Gateway of a subnet (default its first address)', ipAddress),
    )
    .addOption(repeatable('--ip-range <cidr>', 'Part of a subnet that addresses come from', subnet))
    .addOption(repeatable('--aux-address <name=ip>', 'Address that is not given away', auxAddress))
    .option('--attachable', 'Let containers that are no tasks attach')
    .option('--internal', 'Keep the network from reaching outside')
    .option('--ingress', 'Make it the network of the routing mesh')
    .addOption(repeatable('--label <name=value>', 'Metadata', label))
    .addOption(
      repeatable('-o, --opt <name=value>', 'Option of the driver, such as encrypted', label),
    )
    .action(async (name: string, options: CreateOptions) => {
      const { Id: id, Warning: warning } = await cli
        .client()
        .createNetwork(toNetworkRequest(name, options));
      if (warning) cli.terminal.writeError(`Warning: ${warning}\n`);
      cli.terminal.write(`${id ?? ''}\n`);
    });
}

function auxAddress(text: string): Pair {
  const [name, address] = pair(text);
  return [name, ipAddress(address)];
}

function toNetworkRequest(name: string, options: CreateOptions): NetworkCreateRequest {
  return {
    Name: name,
    Driver: options.driver,
    EnableIPv6: options.ipv6 === true,
    Internal: options.internal === true,
    Attachable: options.attachable === true,
    Ingress: options.ingress === true,
    IPAM: { Driver: 'default', Config: toIpamConfigs(options) },
    Options: Object.fromEntries(options.opt),
    Labels: Object.fromEntries(options.label),
  };
}

/** Puts every gateway, range and auxiliary address with the one subnet that holds it. */
function toIpamConfigs(options: CreateOptions): IpamConfig[] {
  const configs: IpamConfig[] = options.subnet.map((text) => ({ Subnet: text }));
  const subnet6 = options.subnet.find((text) => isIpv6Cidr(parseIpCidr(text)));
  if (subnet6 !== undefined && options.ipv6 !== true) {
    throw usageError(`Cannot use --subnet ${subnet6}: expected --ipv6 with an IPv6 subnet`);
  }
  const place = (flag: string, given: string, address: string): number => {
    const value = parseIp(address);
    const index = options.subnet.findIndex((text) => ipCidrContains(parseIpCidr(text), value));
    if (index >= 0) return index;
    const expected =
      options.subnet.length === 0
        ? 'expected a --subnet that holds it'
        : `expected an address of ${options.subnet.join(' or ')}`;
    throw usageError(`Cannot use ${flag} ${given}: ${expected}`);
  };
  const assign = (index: number, field: 'Gateway' | 'IPRange', given: string, flag: string) => {
    const config = configs[index];
    if (config?.[field] !== undefined) {
      throw usageError(
        `Cannot use ${flag} ${given}: subnet ${config.Subnet} has ${config[field]}, expected one`,
      );
    }
    configs[index] = { ...config, [field]: given };
  };
  for (const gateway of options.gateway) {
    assign(place('--gateway', gateway, gateway), 'Gateway', gateway, '--gateway');
  }
  for (const range of options.ipRange) {
    const index = place('--ip-range', range, range.slice(0, range.indexOf('/')));
    assign(index, 'IPRange', range, '--ip-range');
  }
  for (const [name, address] of options.auxAddress) {
    const index = place('--aux-address', `${name}=${address}`, address);
    const config = configs[index];
    configs[index] = {
      ...config,
      AuxiliaryAddresses: { ...config?.AuxiliaryAddresses, [name]: address },
    };
  }
  return configs;
}

async function listNetworks(cli: Cli, options: NetworkListOptions): Promise<void> {
  const networks = await cli.client().networks(toFilters(options.filter));
  const rows = networks
    .map((network) => networkRow(network, options.trunc))
    .sort((a, b) => compareNames(String(a.Name), String(b.Name)));
  printList(cli.terminal, NETWORK_COLUMNS, rows, options);
}

function networkRow(network: Network, trunc: boolean): Row {
  const labels = Object.entries(network.Labels ?? {});
  return {
    CreatedAt: network.Created ?? '',
    Driver: network.Driver ?? '',
    IPv6: String(network.EnableIPv6 === true),
    ID: trunc ? shortId(network.Id ?? '') : (network.Id ?? ''),
    Internal: String(network.Internal === true),
    Labels: labels.map(([name, value]) => `${name}=${value}`).join(','),
    Name: network.Name ?? '',
    Scope: network.Scope ?? '',
  };
}
