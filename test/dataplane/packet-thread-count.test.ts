import { test } from 'tap';
import { packetThreadsFor } from '../../src/dataplane/packet-thread-count.ts';

for (const [cores, threads] of [
  [1, 1],
  [2, 1],
  [3, 1],
  [4, 2],
  [7, 2],
  [8, 4],
  [64, 4],
] as const) {
  test(`a machine of ${cores} cores gets ${threads} packet threads`, (t) => {
    t.equal(packetThreadsFor(cores), threads);
    t.end();
  });
}
