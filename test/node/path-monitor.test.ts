import { test } from 'tap';
import { parseIpv4 } from '../../src/core/address.ts';
import { formatIp, type Ip, parseIpv6 } from '../../src/core/ip.ts';
import type { DataPlaneCommand } from '../../src/dataplane/commands.ts';
import { PathMonitor, type Vtep } from '../../src/node/path-monitor.ts';

const LINK_MTU = 1500;
const OUTER_IPV4_BYTES = 28;
const RTT_MS = 2;

interface Task {
  readonly atMs: number;
  readonly run: () => void;
}

/** A monitor in virtual time, whose probes come back if their size fits `carries`. */
class World {
  readonly monitor: PathMonitor;
  nowMs = 1_000;
  /** What passes to each VTEP; nothing is answered by those that are not in it. */
  readonly carries = new Map<Ip, number>();
  /** What the packet thread was told, last. */
  readonly mtus = new Map<string, number>();
  readonly probes: { readonly atMs: number; readonly to: string; readonly bytes: number }[] = [];
  #tasks: Task[] = [];

  constructor() {
    let serial = 0;
    this.monitor = new PathMonitor(
      {
        clock: { nowMs: () => this.nowMs, epochMs: () => this.nowMs },
        random: {
          next: () => 0.5,
          bytes: (length) => {
            serial += 1;
            return Uint8Array.from({ length }, (_, at) => (serial >>> (8 * (at % 4))) & 0xff);
          },
        },
        schedule: (atMs, run) => this.#schedule(atMs, run),
        apply: (commands) => {
          for (const command of commands) this.#apply(command);
        },
      },
      { linkMtuBytes: LINK_MTU, ipv6: false },
    );
  }

  /** Timers that are set. */
  get timers(): number {
    return this.#tasks.length;
  }

  run(ms: number): void {
    const endMs = this.nowMs + ms;
    for (;;) {
      const next = this.#tasks.toSorted((a, b) => a.atMs - b.atMs)[0];
      if (next === undefined || next.atMs > endMs) break;
      this.#tasks = this.#tasks.filter((task) => task !== next);
      this.nowMs = Math.max(this.nowMs, next.atMs);
      next.run();
    }
    this.nowMs = endMs;
  }

  #schedule(atMs: number, run: () => void): () => void {
    const task = { atMs, run };
    this.#tasks.push(task);
    return () => {
      this.#tasks = this.#tasks.filter((other) => other !== task);
    };
  }

  #apply(command: DataPlaneCommand): void {
    if (command.kind === 'setPathMtu') {
      this.mtus.set(formatIp(command.address), command.mtuBytes);
    } else if (command.kind === 'probe') {
      const { to, nonce, sizeBytes } = command;
      const bytes = sizeBytes + OUTER_IPV4_BYTES;
      this.probes.push({ atMs: this.nowMs, to: formatIp(to), bytes });
      if (bytes > (this.carries.get(to) ?? 0)) return;
      const reply = { kind: 'probeReply', from: to, nonce, sizeBytes } as const;
      this.#schedule(this.nowMs + RTT_MS, () =>
        this.monitor.hear({ ...reply, rttUs: RTT_MS * 1000 }),
      );
    } else {
      throw new Error(`Nobody asked for ${command.kind}`);
    }
  }
}

function vtep(last: number): Vtep {
  return { address: parseIpv4(`192.0.2.${last}`), port: 4789 };
}

test('PathMonitor tells the packet thread what each path carries', (t) => {
  const world = new World();
  const [wide, narrow, mute] = [vtep(1), vtep(2), vtep(3)] as const;
  world.carries.set(wide.address, 1500).set(narrow.address, 1400);
  world.monitor.follow([wide, narrow, mute]);
  t.same([...world.mtus.values()], [1500, 1500, 1500], 'the link is believed at first');
  world.run(60_000);
  t.same(
    world.monitor.reports().map(({ state, mtuBytes, lossRatio }) => [state, mtuBytes, lossRatio]),
    [
      ['complete', 1500, 0],
      ['complete', 1400, 0],
      ['unanswered', 1500, 1],
    ],
  );
  t.same(Object.fromEntries(world.mtus), {
    '192.0.2.1': 1500,
    '192.0.2.2': 1400,
    '192.0.2.3': 1500,
  });
  const [report] = world.monitor.reports();
  t.match(report, { ...wide, roundTrips: { smoothedUs: 2000, minUs: 2000, lastUs: 2000 } });
  t.equal(world.monitor.reports()[2]?.roundTrips, undefined);
  t.end();
});

test('PathMonitor follows who comes, leaves and returns', (t) => {
  const world = new World();
  world.carries.set(vtep(1).address, 1400);
  world.monitor.follow([vtep(1)]);
  world.run(60_000);
  world.monitor.follow([vtep(1), vtep(2)]);
  t.equal(world.monitor.reports()[0]?.mtuBytes, 1400, 'what was found stays');
  world.monitor.follow([{ ...vtep(1), port: 4790 }]);
  t.equal(world.monitor.reports()[0]?.state, 'unanswered', 'at another port it is another VTEP');
  t.equal(world.mtus.get('192.0.2.1'), 1500, 'of which nothing is known');
  world.monitor.follow([]);
  world.probes.length = 0;
  world.run(60_000);
  t.equal(world.probes.length, 0);
  t.equal(world.timers, 0);
  t.end();
});

test('PathMonitor shrinks a path at once when the kernel says how far', (t) => {
  const world = new World();
  world.carries.set(vtep(1).address, 1500);
  world.monitor.follow([vtep(1)]);
  world.run(1_000);
  world.monitor.hear({ kind: 'pathTooBig', to: vtep(1).address, limitBytes: 1380 });
  t.equal(world.mtus.get('192.0.2.1'), 1380);
  world.monitor.hear({ kind: 'pathTooBig', to: parseIpv6('fd00::9'), limitBytes: 1380 });
  t.equal(world.monitor.reports().length, 1, 'of strangers nothing is kept');
  t.end();
});

test('a thousand peers are probed in turns', (t) => {
  const world = new World();
  const vteps = Array.from({ length: 1000 }, (_, index) => ({
    address: parseIpv4('192.0.2.0') + index,
    port: 4789,
  }));
  for (const { address } of vteps) world.carries.set(address, 1500);
  world.monitor.follow(vteps);
  world.run(10_000);
  t.ok(world.monitor.reports().every(({ state }) => state === 'complete'));
  const perSecond = Map.groupBy(world.probes, ({ atMs }) => Math.floor(atMs / 1000));
  const busiest = Math.max(...[...perSecond.values()].map((probes) => probes.length));
  t.ok(busiest <= 1600, `${busiest} probes in the busiest second`);
  world.probes.length = 0;
  world.run(60_000);
  t.ok(world.probes.length / 60 < 300, `${world.probes.length / 60} probes a second from then on`);
  t.end();
});

test('a closed PathMonitor is silent', (t) => {
  const world = new World();
  world.monitor.follow([vtep(1)]);
  world.monitor.close();
  world.probes.length = 0;
  world.run(60_000);
  world.monitor.follow([vtep(2)]);
  t.equal(world.probes.length, 0);
  t.equal(world.timers, 0);
  t.end();
});
