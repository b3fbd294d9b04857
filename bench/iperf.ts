import { once } from 'node:events';
import type { Lab } from '../test/support/lab.ts';
import { Lines } from '../test/support/lines.ts';
import type { Path } from './ground.ts';

/** How much longer than its run iperf3 may take: a full tunnel delays its control connection. */
const GRACE_SECONDS = 20;

interface Report {
  readonly end: {
    readonly sum_received?: { readonly bytes: number; readonly seconds: number };
    readonly sum?: { readonly seconds: number };
  };
  readonly server_output_text?: string;
}

/** What arrived. */
export interface Received {
  /** Bytes, or datagrams. */
  readonly amount: number;
  readonly seconds: number;
}

/** Sends TCP as fast as it goes, over several connections at once. @throws {Error} if iperf3 fails */
export async function sendTcp(
  lab: Lab,
  path: Path,
  seconds: number,
  streams: number,
): Promise<Received> {
  const { end } = await iperf(lab, path, seconds, ['-P', String(streams)]);
  if (end.sum_received === undefined) throw new Error('iperf3 does not say what was received');
  return { amount: end.sum_received.bytes, seconds: end.sum_received.seconds };
}

/**
 * Sends datagrams as fast as the sender can, and counts those that its receiver got: the sender's own
 * report also counts what was still under way at the end.
 *
 * @throws {Error} if iperf3 fails
 */
export async function sendUdp(
  lab: Lab,
  path: Path,
  seconds: number,
  payloadBytes: number,
): Promise<Received> {
  const flags = ['-u', '-b', '0', '-l', String(payloadBytes), '--get-server-output'];
  const { end, server_output_text: text = '' } = await iperf(lab, path, seconds, flags);
  const [, lost, total] = /(\d+)\/(\d+) \([^)]*\)\s+receiver/.exec(text) ?? [];
  if (lost === undefined || end.sum === undefined) {
    throw new Error('iperf3 does not say what was received');
  }
  return { amount: Number(total) - Number(lost), seconds: end.sum.seconds };
}

async function iperf(
  lab: Lab,
  path: Path,
  seconds: number,
  flags: readonly string[],
): Promise<Report> {
  return await withServer(lab, path, async () => {
    const command = ['iperf3', '-c', path.address, '-t', String(seconds), '-J', ...flags];
    const { stdout } = await lab.exec(path.from, command, (seconds + GRACE_SECONDS) * 1_000);
    return JSON.parse(stdout) as Report;
  });
}

/** Keeps one TCP connection full while `work` is done. @throws {Error} if it does not begin */
export async function withLoad<Result>(
  lab: Lab,
  path: Path,
  work: () => Promise<Result>,
): Promise<Result> {
  return await withServer(lab, path, async () => {
    const command = ['iperf3', '-c', path.address, '-t', '3600', '--forceflush'];
    const client = lab.spawn(path.from, command);
    const ended = once(client, 'exit');
    try {
      // The report of the first second: by then the stream is at its speed.
      await new Lines(client).until(/bits\/sec/);
      return await work();
    } finally {
      client.kill('SIGKILL');
      await ended;
    }
  });
}

async function withServer<Result>(
  lab: Lab,
  { to }: Path,
  work: () => Promise<Result>,
): Promise<Result> {
  const server = lab.spawn(to, ['iperf3', '-s', '-1', '--forceflush']);
  const ended = once(server, 'exit');
  try {
    await new Lines(server).until(/Server listening/);
    return await work();
  } finally {
    server.kill('SIGKILL');
    await ended;
  }
}
