import type { Lab } from '../test/support/lab.ts';
import type { Path } from './ground.ts';
import { sendTcp, sendUdp, withLoad } from './iperf.ts';
import { busyCpuSeconds, withCpusAwake } from './machine.ts';
import { pingTimesMs } from './ping.ts';

/** One thing that is done to a path, and the figures that it gives. */
export interface Measurement {
  readonly figures: readonly { readonly name: string; readonly unit: string }[];
  /** @returns a value for each of `figures`. @throws {Error} if the path does not carry it */
  readonly run: (lab: Lab, path: Path, seconds: number) => Promise<readonly number[]>;
}

const PINGS = 500;
const PING_INTERVAL_SECONDS = 0.002;
/** Under load, so that echoes find the queue as it is and are no load of their own. */
const LOADED_PINGS_PER_SECOND = 200;
const SMALL_DATAGRAM_BYTES = 64;

/** TCP over one connection, and what the whole machine spent on it, sender and receiver included. */
export const TCP_ONE: Measurement = {
  figures: [
    { name: 'tcp1', unit: 'Gbit/s' },
    { name: 'cpu-seconds-per-gb', unit: 's/GB' },
  ],
  run: async (lab, path, seconds) => {
    const before = busyCpuSeconds();
    const received = await sendTcp(lab, path, seconds, 1);
    const busy = busyCpuSeconds() - before;
    return [(received.amount * 8) / received.seconds / 1e9, busy / (received.amount / 1e9)];
  },
};

/** 64-byte datagrams that arrive, with the sender going as fast as it can. */
export const UDP_SMALL: Measurement = {
  figures: [{ name: `udp${SMALL_DATAGRAM_BYTES}`, unit: 'packets/s' }],
  run: async (lab, path, seconds) => {
    const received = await sendUdp(lab, path, seconds, SMALL_DATAGRAM_BYTES);
    return [received.amount / received.seconds];
  },
};

/** Round trips while no CPU halts. */
export const RTT: Measurement = {
  figures: [{ name: 'rtt-p50', unit: 'ms' }],
  run: (lab, path) => withCpusAwake(lab, path.from, () => pingMedian(lab, path)),
};

/** Round trips as they are on this machine when it has nothing else to do. */
const RTT_IDLE: Measurement = {
  figures: [{ name: 'rtt-idle-p50', unit: 'ms' }],
  run: pingMedian,
};

/** Round trips beside a TCP connection that fills the path. */
const RTT_LOADED: Measurement = {
  figures: [
    { name: 'loaded-rtt-p50', unit: 'ms' },
    { name: 'loaded-rtt-p99', unit: 'ms' },
  ],
  run: (lab, path, seconds) =>
    withLoad(lab, path, async () => {
      const count = Math.ceil(seconds * LOADED_PINGS_PER_SECOND);
      const times = await pingTimesMs(lab, path, count, 1 / LOADED_PINGS_PER_SECOND);
      return [percentile(times, 50), percentile(times, 99)];
    }),
};

/** All that two ends on different hosts are measured by. */
export const ALL_MEASUREMENTS: readonly Measurement[] = [
  TCP_ONE,
  tcpParallel(8),
  tcpParallel(64),
  UDP_SMALL,
  RTT,
  RTT_IDLE,
  RTT_LOADED,
];

function tcpParallel(streams: number): Measurement {
  return {
    figures: [{ name: `tcp${streams}`, unit: 'Gbit/s' }],
    run: async (lab, path, seconds) => {
      const received = await sendTcp(lab, path, seconds, streams);
      return [(received.amount * 8) / received.seconds / 1e9];
    },
  };
}

async function pingMedian(lab: Lab, path: Path): Promise<readonly number[]> {
  return [percentile(await pingTimesMs(lab, path, PINGS, PING_INTERVAL_SECONDS), 50)];
}

/** The value that `percent` of the sorted values do not exceed. */
function percentile(sorted: readonly number[], percent: number): number {
  return sorted[Math.ceil((sorted.length * percent) / 100) - 1] ?? Number.NaN;
}
