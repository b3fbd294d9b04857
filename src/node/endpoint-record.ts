import { z } from 'zod';
import {
  formatIpv4,
  formatMac,
  type Ipv4,
  type Mac,
  parseIpv4,
  parseMac,
} from '../core/address.ts';
import { formatIp, type Ip, type Ipv6, parseIp, parseIpv6 } from '../core/ip.ts';
import type { Json } from '../core/store.ts';

/** Key of the entry by which a node announces its VTEP. */
export const VTEP_KEY = 'vtep';

/** A node's VXLAN tunnel endpoint. */
export interface VtepRecord {
  readonly address: Ip;
  readonly port: number;
  /** Name of the node's machine, for people. */
  readonly hostname?: string;
}

/**
 * A backend's way: `warm` is reachable but gets no flows yet, `active` gets new flows, `draining` keeps
 * those it has.
 */
export type EndpointState = 'warm' | 'active' | 'draining';

/** A task's attachment to a network, as its node announces it. */
export interface EndpointRecord {
  readonly networkId: string;
  readonly address: Ipv4;
  /** On a dual-stack network. */
  readonly address6?: Ipv6;
  readonly mac: Mac;
  readonly serviceId: string;
  readonly taskId: string;
  readonly state: EndpointState;
  /** Whether this is the task's first network: the one that its published ports are served on. */
  readonly primary: boolean;
}

/** An IPv6 address in its longest form, with an embedded IPv4 one. */
const ADDRESS_CHARS_MAX = 45;
const addressText = z.string().max(ADDRESS_CHARS_MAX);

/** RFC 1123; it is shown on terminals, so nothing else passes. */
const HOSTNAME = /^[A-Za-z0-9._-]{1,253}$/;
const vtepSchema = z.object({
  address: addressText,
  port: z.number().int().min(1).max(65_535),
  hostname: z.string().regex(HOSTNAME).optional().catch(undefined),
});
const endpointSchema = z.object({
  networkId: z.string(),
  address: addressText,
  address6: addressText.exactOptional(), // announced by no node of before IPv6
  mac: z.string(),
  serviceId: z.string(),
  taskId: z.string(),
  state: z.enum(['warm', 'active', 'draining']),
  primary: z.boolean(),
});

/** The key of an endpoint's entry in its node's table. @param address - The IPv4 one. */
export function endpointKey(networkId: string, address: string): string {
  return `endpoint/${networkId}/${address}`;
}

/** Reads another node's announcement; `undefined` if it is not one: it came over the network. */
export function readVtepRecord(value: Json): VtepRecord | undefined {
  const parsed = vtepSchema.safeParse(value);
  if (!parsed.success) return undefined;
  const { address, port, hostname } = parsed.data;
  return guard(() => ({
    address: parseIp(address),
    port,
    ...(hostname === undefined ? {} : { hostname }),
  }));
}

/** Reads another node's announcement; `undefined` if it is not one. */
export function readEndpointRecord(value: Json): EndpointRecord | undefined {
  const parsed = endpointSchema.safeParse(value);
  if (!parsed.success) return undefined;
  const { address, address6, mac, ...rest } = parsed.data;
  return guard(() => ({
    ...rest,
    address: parseIpv4(address),
    ...(address6 === undefined ? {} : { address6: parseIpv6(address6) }),
    mac: parseMac(mac),
  }));
}

/** What announces a VTEP: {@link readVtepRecord} reads it. */
export function writeVtepRecord({ address, port, hostname }: VtepRecord): Json {
  return { address: formatIp(address), port, ...(hostname === undefined ? {} : { hostname }) };
}

/** What announces an endpoint: {@link readEndpointRecord} reads it. */
export function writeEndpointRecord(record: EndpointRecord): Json {
  const { networkId, address, address6, mac, serviceId, taskId, state, primary } = record;
  return {
    networkId,
    address: formatIpv4(address),
    ...(address6 === undefined ? {} : { address6 }),
    mac: formatMac(mac),
    serviceId,
    taskId,
    state,
    primary,
  };
}

/** The text of an endpoint, equal for equal ones. */
export function endpointText(record: EndpointRecord): string {
  return JSON.stringify(writeEndpointRecord(record));
}

function guard<Value>(read: () => Value): Value | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}
