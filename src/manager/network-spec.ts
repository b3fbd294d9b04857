import { z } from 'zod';
import { cStringSchema, flagSchema, labelsSchema, nameSchema } from './common-spec.ts';

/** Docker's option for the VNIs of an overlay; one here, since a network has one subnet. */
export const VNI_OPTION = 'com.docker.network.driver.overlay.vxlanid_list';

/** The body of `POST /networks/create` (Docker `NetworkCreateRequest`), as far as it is honoured. */
export interface NetworkCreate {
  readonly Name: string;
  readonly Driver?: 'overlay' | 'weft' | '';
  readonly Scope?: 'swarm' | '';
  readonly CheckDuplicate?: boolean;
  readonly EnableIPv4?: true;
  readonly Internal?: boolean;
  readonly Attachable?: boolean;
  readonly IPAM?: { readonly Driver?: 'default' | ''; readonly Config?: readonly IpamConfig[] };
  readonly Options?: { readonly [VNI_OPTION]?: string };
  readonly Labels?: Readonly<Record<string, string>>;
}

/** A network's subnet and what is set apart in it; all are texts, for IPAM to read. */
export interface IpamConfig {
  readonly Subnet?: string;
  readonly Gateway?: string;
  readonly IPRange?: string;
  readonly AuxiliaryAddresses?: Readonly<Record<string, string>>;
}

const addressSchema = cStringSchema.exactOptional();

const ipamConfigSchema = z.strictObject({
  Subnet: addressSchema,
  Gateway: addressSchema,
  IPRange: addressSchema,
  AuxiliaryAddresses: z.record(z.string(), z.string('expected an IPv4 address')).exactOptional(),
});

/** Reads a {@link NetworkCreate}. */
export const networkCreateSchema: z.ZodType<NetworkCreate> = z.strictObject(
  {
    Name: nameSchema,
    Driver: z.enum(['overlay', 'weft', ''], 'expected "overlay"').exactOptional(),
    Scope: z.enum(['swarm', ''], 'expected "swarm"').exactOptional(),
    CheckDuplicate: flagSchema.exactOptional(), // Names are always unique; Docker ignores it too.
    EnableIPv4: z.literal(true, 'expected true: an overlay always carries IPv4').exactOptional(),
    Internal: flagSchema.exactOptional(),
    Attachable: flagSchema.exactOptional(),
    IPAM: z
      .strictObject({
        Driver: z.enum(['default', ''], 'expected "default"').exactOptional(),
        Config: z.array(ipamConfigSchema).max(1, 'expected one subnet at most').exactOptional(),
      })
      .exactOptional(),
    Options: z
      .strictObject({
        [VNI_OPTION]: z
          .string('expected a VXLAN network identifier as a string')
          .regex(/^\d{1,8}$/, 'expected one VXLAN network identifier, such as "4100"')
          .exactOptional(),
      })
      .exactOptional(),
    Labels: labelsSchema.exactOptional(),
  },
  'expected a JSON object',
);
