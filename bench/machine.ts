import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { availableParallelism, cpus, release } from 'node:os';
import type { Lab, LabHost } from '../test/support/lab.ts';

/** Ticks per second of /proc/stat (USER_HZ, which is 100 on every architecture that Node runs on). */
const USER_HZ = 100;

/**
 * Seconds that the CPUs of this machine have been busy since it started, whoever kept them so: programs,
 * kernel threads and interrupts, softirqs among them (proc_stat(5)). Idle and stolen time do not count.
 */
export function busyCpuSeconds(): number {
  const [line = ''] = readFileSync('/proc/stat', 'utf8').split('\n');
  const [, user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0] = line
    .split(/\s+/)
    .map(Number);
  return (user + nice + system + irq + softirq) / USER_HZ;
}

/**
 * Keeps all CPUs from halting while `work` is done, by loops of the lowest priority. In a virtual machine
 * a halted CPU takes up to a millisecond to wake, which says more about the machine than about who is
 * woken.
 */
export async function withCpusAwake<Result>(
  lab: Lab,
  netns: string | LabHost,
  work: () => Promise<Result>,
): Promise<Result> {
  const command = ['nice', '-n', '19', 'sh', '-c', 'while :; do :; done'];
  const loops = Array.from({ length: availableParallelism() }, () => lab.spawn(netns, command));
  try {
    return await work();
  } finally {
    const ended = loops.map((loop) => once(loop, 'exit'));
    for (const loop of loops) loop.kill('SIGKILL');
    await Promise.all(ended);
  }
}

/** The machine in a few words: figures of two machines do not compare. */
export function describeMachine(): string {
  const model = cpus()[0]?.model ?? 'unknown CPU';
  return `${cpus().length} CPUs (${model}), Linux ${release()}, Node ${process.versions.node}`;
}
