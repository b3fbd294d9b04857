import type { AgentOptions } from './agent-options.ts';
import { PacketThread } from './dataplane/packet-thread.ts';
import { packetThreadsFor } from './dataplane/packet-thread-count.ts';
import { usableCores } from './io/host-facts.ts';
import { collectAtRest } from './io/resting-heap.ts';
import { systemLog } from './io/system.ts';

/**
 * Runs an agent until SIGTERM or SIGINT.
 *
 * @throws {Error} if it cannot start, or if a part without which it is of no use has died
 */
export async function runAgent(options: AgentOptions): Promise<void> {
  // They load their code while this thread loads the rest: what the last agent left is waiting.
  const packetThreads = options.packetThreads ?? packetThreadsFor(usableCores());
  const threads = Array.from({ length: packetThreads }, () => new PacketThread());
  const { HostAgent } = await import('./host-agent.ts');
  const log = systemLog(options.logLevel);
  const stopped = Promise.withResolvers<void>();
  const agent = new HostAgent({ ...options, packetThreads }, log, (error) => stopped.reject(error));
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.once(signal, () => {
      log.info({ signal }, 'stopping; tasks keep running');
      stopped.resolve();
    });
  }
  try {
    await agent.start(threads);
  } finally {
    await Promise.all(threads.map((thread) => thread.close())); // if this host is in no cluster
  }
  collectAtRest();
  try {
    await stopped.promise;
  } finally {
    await agent.stop();
  }
}
