/** Why an address, a subnet or a VNI was refused, with the values that a program needs. */
export type IpamErrorDetail =
  /** No address of the range is free. `capacity` is how many there are to give. */
  | { readonly code: 'POOL_EXHAUSTED'; readonly subnet: string; readonly capacity: number }
  | { readonly code: 'ADDRESS_IN_USE'; readonly address: string; readonly holder: string }
  /** Not in the subnet, or its network or broadcast address. */
  | { readonly code: 'ADDRESS_OUT_OF_RANGE'; readonly address: string; readonly subnet: string }
  | { readonly code: 'ADDRESS_NOT_ALLOCATED'; readonly address: string; readonly subnet: string }
  | { readonly code: 'ADDRESS_INVALID'; readonly address: string; readonly reason: string }
  | { readonly code: 'SUBNET_INVALID'; readonly subnet: string; readonly reason: string }
  /** `holder` says whose `with` is: a network or a route of a host. */
  | {
      readonly code: 'SUBNET_OVERLAP';
      readonly subnet: string;
      readonly with: string;
      readonly holder: string;
    }
  | { readonly code: 'GATEWAY_INVALID'; readonly gateway: string; readonly reason: string }
  | { readonly code: 'IP_RANGE_INVALID'; readonly ipRange: string; readonly reason: string }
  | {
      readonly code: 'AUX_ADDRESS_INVALID';
      readonly name: string;
      readonly address: string;
      readonly reason: string;
    }
  | { readonly code: 'ADDRESS_POOL_INVALID'; readonly base: string; readonly reason: string }
  /** No subnet is left in any of the default address pools. */
  | { readonly code: 'ADDRESS_SPACE_EXHAUSTED'; readonly pools: readonly string[] }
  | { readonly code: 'VNI_IN_USE'; readonly vni: number; readonly networkId: string }
  | {
      readonly code: 'VNI_OUT_OF_RANGE';
      readonly vni: number;
      readonly min: number;
      readonly max: number;
    };

/** A refusal that the caller is expected to handle. Match on `detail.code`, never on `message`. */
export class IpamError extends Error {
  override readonly name = 'IpamError';
  readonly detail: IpamErrorDetail;

  constructor(detail: IpamErrorDetail, options?: ErrorOptions) {
    super(describe(detail), options);
    this.detail = detail;
  }
}

function describe(detail: IpamErrorDetail): string {
  switch (detail.code) {
    case 'POOL_EXHAUSTED':
      return `Cannot allocate an address in ${detail.subnet}: all ${detail.capacity} are in use`;
    case 'ADDRESS_IN_USE':
      return `Cannot allocate ${detail.address}: ${detail.holder} has it`;
    case 'ADDRESS_OUT_OF_RANGE':
      return `Cannot allocate ${detail.address}: expected a host address of ${detail.subnet}`;
    case 'ADDRESS_NOT_ALLOCATED':
      return `Cannot release ${detail.address}: nothing holds it in ${detail.subnet}`;
    case 'ADDRESS_INVALID':
      return `Cannot allocate ${JSON.stringify(detail.address)}: ${detail.reason}`;
    case 'SUBNET_INVALID':
      return `Cannot use ${JSON.stringify(detail.subnet)} as a subnet: ${detail.reason}`;
    case 'SUBNET_OVERLAP':
      return (
        `Cannot use ${detail.subnet} as a subnet: ` +
        `it overlaps ${detail.with} of ${detail.holder}`
      );
    case 'GATEWAY_INVALID':
      return `Cannot use ${JSON.stringify(detail.gateway)} as a gateway: ${detail.reason}`;
    case 'IP_RANGE_INVALID':
      return `Cannot use ${JSON.stringify(detail.ipRange)} as an IP range: ${detail.reason}`;
    case 'AUX_ADDRESS_INVALID':
      return (
        `Cannot reserve ${JSON.stringify(detail.address)} ` +
        `as ${JSON.stringify(detail.name)}: ${detail.reason}`
      );
    case 'ADDRESS_POOL_INVALID':
      return `Cannot use ${JSON.stringify(detail.base)} as an address pool: ${detail.reason}`;
    case 'ADDRESS_SPACE_EXHAUSTED':
      return (
        `Cannot find a free subnet in ${detail.pools.join(', ')}: ` +
        'networks or routes of hosts overlap all of them, give a subnet or add an address pool'
      );
    case 'VNI_IN_USE':
      return `Cannot use VNI ${detail.vni}: network ${detail.networkId} has it`;
    case 'VNI_OUT_OF_RANGE':
      return `Cannot use VNI ${detail.vni}: expected an integer in [${detail.min}, ${detail.max}]`;
  }
}
