import { z } from 'zod';
import { type AgentOptions, type ListenAddress, LOG_LEVELS } from '../agent-options.ts';
import { usageError } from './errors.ts';
import { PORT_MAX, parseHostAndPort } from './values.ts';

/** Name of a socket within the run directory when `--socket` is not given. */
const SOCKET_NAME = 'weft.sock';
/** sun_path of unix(7), less its terminating zero. */
const SOCKET_PATH_BYTES_MAX = 107;
/** RFC 1123 section 2.1: labels of letters, digits and hyphens, joined by dots. */
const HOSTNAME_LABEL = '[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?';
const HOSTNAME = new RegExp(`^(?=.{1,253}$)${HOSTNAME_LABEL}(\\.${HOSTNAME_LABEL})*$`);
/** An address of either family, or an interface name: at most 15 bytes (IFNAMSIZ), no slash. */
const IP_OR_INTERFACE = /^([0-9a-fA-F:.]{2,39}|[^\s/:]{1,15})$/;
/** A sender spreads its flows four ways: more threads than that serve hosts with many peers. */
const PACKET_THREADS_MAX = 8;
/** weft touches only namespaces that start so; with a task's id after it, it stays readable. */
const NETNS_PREFIX = /^weft-[a-z0-9-]{0,20}$/;

const absolutePath = z
  .string()
  .refine((text) => text.startsWith('/'), { error: 'an absolute path' });
const socketPath = absolutePath.refine(
  (text) => new TextEncoder().encode(text).length <= SOCKET_PATH_BYTES_MAX,
  { error: `a path of at most ${SOCKET_PATH_BYTES_MAX} bytes` },
);
const portNumber = z
  .string()
  .refine((text) => /^\d+$/.test(text) && Number(text) >= 1 && Number(text) <= PORT_MAX, {
    error: `a port from 1 to ${PORT_MAX}`,
  })
  .transform(Number);
const listenAddress = z.string().transform((text, context): ListenAddress => {
  const address = parseHostAndPort(text);
  if (address !== undefined) return address;
  context.addIssue({ code: 'custom', message: 'host:port, such as 0.0.0.0:2377' });
  return z.NEVER;
});

const agentFlags = z.object({
  stateDir: absolutePath,
  runDir: absolutePath,
  socket: socketPath,
  advertiseAddr: z
    .string()
    .regex(IP_OR_INTERFACE, { error: 'an IP address or the name of an interface' })
    .optional(),
  listenAddr: listenAddress,
  gossipPort: portNumber,
  dataPathPort: portNumber,
  packetThreads: z
    .string()
    .refine(
      (text) => /^\d+$/.test(text) && Number(text) >= 1 && Number(text) <= PACKET_THREADS_MAX,
      {
        error: `a number from 1 to ${PACKET_THREADS_MAX}`,
      },
    )
    .transform(Number)
    .optional(),
  metricsAddr: z.union([z.literal('none').transform(() => undefined), listenAddress], {
    error: 'host:port, or none',
  }),
  logLevel: z.enum(LOG_LEVELS, { error: `one of ${LOG_LEVELS.join(', ')}` }),
  hostname: z.string().regex(HOSTNAME, { error: 'a host name of letters, digits, - and .' }),
  netnsPrefix: z
    .string()
    .regex(NETNS_PREFIX, { error: '"weft-", then up to 20 letters, digits and -' }),
});

/**
 * Checks the flags of `weft agent`.
 *
 * @param flags - Texts under the flags' names in camel case, with the defaults of those not given.
 * @throws {CliError} naming every flag that is wrong, what was given and what is expected
 */
export function toAgentOptions(flags: Readonly<Record<string, unknown>>): AgentOptions {
  const socket = flags.socket ?? `${String(flags.runDir).replace(/\/+$/, '')}/${SOCKET_NAME}`;
  const given: Readonly<Record<string, unknown>> = { ...flags, socket };
  const checked = agentFlags.safeParse(given);
  if (!checked.success) {
    const lines = checked.error.issues.map(({ path: [name], message }) => {
      const value = JSON.stringify(given[String(name)] ?? '');
      return `Cannot use ${flagOf(String(name))} ${value}: expected ${message}`;
    });
    throw usageError(lines.join('\n'));
  }
  const { data } = checked;
  return {
    stateDirectory: data.stateDir,
    runDirectory: data.runDir,
    socketPath: data.socket,
    ...(data.advertiseAddr === undefined ? {} : { advertiseAddress: data.advertiseAddr }),
    listenAddress: data.listenAddr,
    gossipPort: data.gossipPort,
    dataPathPort: data.dataPathPort,
    ...(data.packetThreads === undefined ? {} : { packetThreads: data.packetThreads }),
    ...(data.metricsAddr === undefined ? {} : { metricsAddress: data.metricsAddr }),
    logLevel: data.logLevel,
    hostname: data.hostname,
    netnsPrefix: data.netnsPrefix,
  };
}

function flagOf(name: string): string {
  return `--${name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
}
