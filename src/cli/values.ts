import { InvalidArgumentError } from 'commander';
import { parseBase64 } from '../core/base64.ts';
import { formatIpCidr, parseIpCidr } from '../core/cidr.ts';
import { formatIp, parseIp } from '../core/ip.ts';
import { parseDurationNs } from './durations.ts';
import { usageError } from './errors.ts';

/** Reads the text of one flag. @throws {InvalidArgumentError} saying what is expected */
export type Parse<T> = (text: string) => T;

/** The highest port number (RFC 9293, RFC 768: 16 bits). */
export const PORT_MAX = 65_535;

/**
 * Makes a flag repeatable: each occurrence adds to the list. Its default must be a list.
 *
 * @returns a parser in commander's shape
 */
export function collect<T>(parse: Parse<T>): (text: string, previous: readonly T[]) => T[] {
  return (text, previous) => [...previous, parse(text)];
}

/** A text that is taken as it is, but must not be empty. */
export function nonEmpty(text: string): string {
  if (text === '') throw new InvalidArgumentError('expected a value that is not empty');
  return text;
}

/** A whole number in `[min, max]`, written in decimal. */
export function integer(min: number, max: number = Number.MAX_SAFE_INTEGER): Parse<number> {
  const range = max === Number.MAX_SAFE_INTEGER ? `of at least ${min}` : `from ${min} to ${max}`;
  return (text) => {
    const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
    if (!Number.isSafeInteger(value) || value < min || value > max) {
      throw new InvalidArgumentError(`expected a whole number ${range}`);
    }
    return value;
  };
}

/** A port number that something can listen on. */
export const port: Parse<number> = integer(1, PORT_MAX);

/** A Go duration. @returns nanoseconds */
export function duration(text: string): number {
  const ns = parseDurationNs(text);
  if (ns === undefined) {
    throw new InvalidArgumentError('expected a duration such as 10s, 1m30s or 500ms');
  }
  return ns;
}

/** A subnet of either family without host bits, as the API takes it. */
export function subnet(text: string): string {
  return rangeChecked(() => formatIpCidr(parseIpCidr(text)));
}

/** An address of either family. */
export function ipAddress(text: string): string {
  return rangeChecked(() => formatIp(parseIp(text)));
}

/** Turns the core's RangeError, which repeats what was given, into commander's error. */
function rangeChecked<T>(read: () => T): T {
  let reason: string;
  try {
    return read();
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    reason = error.message.slice(error.message.indexOf(': ') + 2);
  }
  throw new InvalidArgumentError(reason);
}

/** A `name=value` pair. */
export type Pair = readonly [name: string, value: string];

/** `name=value`; both parts are needed, the value may be empty. */
export function pair(text: string): Pair {
  const split = text.indexOf('=');
  if (split < 1) throw new InvalidArgumentError('expected name=value');
  return [text.slice(0, split), text.slice(split + 1)];
}

/** A label: `name=value`, or `name` alone for an empty value. */
export function label(text: string): Pair {
  return text.includes('=') ? pair(text) : [nonEmpty(text), ''];
}

/** A scheduling constraint, such as `node.role==worker`. */
export function constraint(text: string): string {
  if (!/^\s*[\w.-]+\s*(==|!=)\s*\S/.test(text)) {
    throw new InvalidArgumentError('expected key==value or key!=value, such as node.role==worker');
  }
  return text;
}

const HOST_AND_PORT = /^(?:\[([0-9a-fA-F:.]+)\]|([^\s:/[\]]+)):(\d{1,5})$/;

/**
 * Reads `host:port`, with an IPv6 address in brackets.
 *
 * @returns undefined if it is neither
 */
export function parseHostAndPort(
  text: string,
): { readonly host: string; readonly port: number } | undefined {
  const match = HOST_AND_PORT.exec(text);
  const number = Number(match?.[3]);
  const host = match?.[1] ?? match?.[2];
  return host === undefined || number < 1 || number > PORT_MAX ? undefined : { host, port: number };
}

/** A flag that is `host:port`; kept as the text, because the API takes it so. */
export function hostAndPort(text: string): string {
  if (parseHostAndPort(text) === undefined) {
    throw new InvalidArgumentError('expected host:port, such as 0.0.0.0:2377');
  }
  return text;
}

/** An IP address, a host name or an interface name. */
export function addressOrInterface(text: string): string {
  if (!/^[^\s/]+$/.test(text)) {
    throw new InvalidArgumentError('expected an IP address or the name of an interface');
  }
  return text;
}

/** AES-128, AES-192 and AES-256. */
const GOSSIP_KEY_BYTES: readonly number[] = [16, 24, 32];
/** UTF-8 bytes that memberlist allows (`label.go`). */
const GOSSIP_LABEL_BYTES_MAX = 255;

/**
 * A key of gossip. No flag's parser: commander would repeat the key in its message.
 *
 * @param what - Flag or argument, for the message.
 * @throws {CliError} if it is none
 */
export function gossipKey(text: string, what: string): string {
  const bytes = parseBase64(text);
  if (bytes !== undefined && GOSSIP_KEY_BYTES.includes(bytes.length)) return text;
  const given = bytes === undefined ? 'it is not base64' : `it has ${bytes.length} bytes`;
  throw usageError(`Cannot use ${what}: ${given}, expected 16, 24 or 32 bytes in base64`);
}

/** What gossip's packets begin with. */
export function gossipLabel(text: string): string {
  const bytes = new TextEncoder().encode(text).length;
  if (bytes < 1 || bytes > GOSSIP_LABEL_BYTES_MAX) {
    throw new InvalidArgumentError(`expected 1 to ${GOSSIP_LABEL_BYTES_MAX} bytes`);
  }
  return text;
}

const NANOSECONDS_PER_MINUTE = 60e9;

/** How long a key of gossip is used. @returns nanoseconds; 0 is for ever */
export function keyRotation(text: string): number {
  const ns = duration(text);
  if (ns !== 0 && ns < NANOSECONDS_PER_MINUTE) {
    throw new InvalidArgumentError('expected 0, or a duration of at least one minute');
  }
  return ns;
}
