import { z } from 'zod';
import { cStringSchema, flagSchema, labelsSchema, nameSchema } from './common-spec.ts';

/** Docker's option for the VNIs of an overlay; one here, since a network has one subnet. */
export const VNI_OPTION = 'com.docker.network.driver.overlay.vxlanid_list';

/** Docker's option for an encrypted overlay: that it is there is what counts, and its value is empty. */
export const ENCRYPTED_OPTION = 'encrypted';

/** The body of `POST /networks/create` (Docker `NetworkCreateRequest`), as far as it is honoured. */
export interface NetworkCreate {
  readonly Name: string;
  readonly Driver?: 'overlay' | 'weft' | '';
  readonly Scope?: 'swarm' | '';
  readonly CheckDuplicate?: boolean;
  readonly EnableIPv4?: true;
  /** A dual-stack network: its endpoints have an address of each family. */
  readonly EnableIPv6?: boolean;
  readonly Internal?: boolean;
  readonly Attachable?: boolean;
  readonly IPAM?: { readonly Driver?: 'default' | ''; readonly Config?: readonly IpamConfig[] };
  readonly Options?: { readonly [VNI_OPTION]?: string; readonly [ENCRYPTED_OPTION]?: '' | 'true' };
  readonly Labels?: Readonly<Record<string, string>>;
}

/** A network's subnet and what is set apart in it; all are texts, for IPAM to read. */
export interface IpamConfig {
  readonly Subnet?: string;
  readonly Gateway?: string;
  readonly IPRange?: string;
  readonly AuxiliaryAddresses?: Readonly<Record<string, string>>;
}

/**
 * The configurations of a network's two families. One without a subnet is of IPv4.
 *
 * @throws {RangeError} naming the configuration that is one too many, or of no use
 */
export function ipamConfigsOf(spec: Pick<NetworkCreate, 'EnableIPv6' | 'IPAM'>): {
  readonly ipv4: IpamConfig;
  readonly ipv6: IpamConfig | undefined;
} {
  let ipv4: IpamConfig | undefined;
  let ipv6: IpamConfig | undefined;
  for (const [index, config] of (spec.IPAM?.Config ?? []).entries()) {
    const isIpv6 = config.Subnet?.includes(':') === true;
    const refuse = (reason: string) => new RangeError(`Invalid IPAM.Config[${index}]: ${reason}`);
    if (!config.Subnet && (config.Gateway || config.IPRange)) {
      throw refuse('a gateway or an IP range needs a subnet');
    }
    if (isIpv6 && spec.EnableIPv6 !== true) {
      throw refuse(`${config.Subnet} is an IPv6 subnet, expected EnableIPv6 (--ipv6) with it`);
    }
    if ((isIpv6 ? ipv6 : ipv4) !== undefined) {
      throw refuse(`expected one ${isIpv6 ? 'IPv6' : 'IPv4'} subnet at most`);
    }
    if (isIpv6) ipv6 = config;
    else ipv4 = config;
  }
  return { ipv4: ipv4 ?? {}, ipv6: spec.EnableIPv6 === true ? (ipv6 ?? {}) : undefined };
}

const addressSchema = cStringSchema.exactOptional();

const ipamConfigSchema = z.strictObject({
  Subnet: addressSchema,
  Gateway: addressSchema,
  IPRange: addressSchema,
  AuxiliaryAddresses: z.record(z.string(), z.string('expected an IP address')).exactOptional(),
});

/** Reads a {@link NetworkCreate}. */
export const networkCreateSchema: z.ZodType<NetworkCreate> = z.strictObject(
  {
    Name: nameSchema,
    Driver: z.enum(['overlay', 'weft', ''], 'expected "overlay"').exactOptional(),
    Scope: z.enum(['swarm', ''], 'expected "swarm"').exactOptional(),
    CheckDuplicate: flagSchema.exactOptional(), // Names are always unique; Docker ignores it too.
    EnableIPv4: z.literal(true, 'expected true: an overlay always carries IPv4').exactOptional(),
    EnableIPv6: flagSchema.exactOptional(),
    Internal: flagSchema.exactOptional(),
    Attachable: flagSchema.exactOptional(),
    IPAM: z
      .strictObject({
        Driver: z.enum(['default', ''], 'expected "default"').exactOptional(),
        Config: z
          .array(ipamConfigSchema)
          .max(2, 'expected one subnet of each family at most')
          .exactOptional(),
      })
      .exactOptional(),
    Options: z
      .strictObject({
        [VNI_OPTION]: z
          .string('expected a VXLAN network identifier as a string')
          .regex(/^\d{1,8}$/, 'expected one VXLAN network identifier, such as "4100"')
          .exactOptional(),
        [ENCRYPTED_OPTION]: z.enum(['', 'true'], 'expected "" or "true"').exactOptional(),
      })
      .exactOptional(),
    Labels: labelsSchema.exactOptional(),
  },
  'expected a JSON object',
);

/** Whether nothing of the network may cross the underlay unsealed. */
export function isEncrypted({ Options }: Pick<NetworkCreate, 'Options'>): boolean {
  return Options?.[ENCRYPTED_OPTION] !== undefined;
}
