import type { ChildProcess } from 'node:child_process';
import { type Cluster, eventually, type LabAgent } from '../test/support/cluster.ts';
import type { Lab } from '../test/support/lab.ts';
import { Lines } from '../test/support/lines.ts';
import { runningTasks, vipOf } from '../test/support/services.ts';
import { eventsOf } from './agent-events.ts';

const SCRIPT = new URL('./endpoint-prober.ts', import.meta.url).pathname;
const WAIT_MS = 60_000;

/** A process in a task's namespace, which tries to reach addresses. */
interface Prober {
  readonly agent: LabAgent;
  readonly child: ChildProcess;
  readonly lines: Lines;
}

/**
 * How long a new endpoint takes to every other node's data plane: from when its node says that the task
 * runs, which is right before it announces it as active, until datagrams to the service's VIP have come
 * through from a task on each other node. A service, one on each node in turn, has no other task.
 *
 * @returns milliseconds of `count` changes: of each, those of the last node that had it
 */
export async function visibleMs(lab: Lab, cluster: Cluster, count: number): Promise<number[]> {
  const probers = await startProbers(lab, cluster);
  const vips = new Map<LabAgent, string>();
  for (const agent of cluster.agents) {
    await runningTasks(cluster, serviceOn(agent), 1, WAIT_MS);
    vips.set(agent, (await vipOf(cluster, serviceOn(agent), 'app')).vip);
  }
  const times: number[] = [];
  for (let round = 0; times.length < count; round += 1) {
    const agent = cluster.agents[round % cluster.agents.length];
    if (agent === undefined) throw new RangeError('Cannot measure a cluster of no hosts');
    const others = probers.filter((prober) => prober.agent !== agent);
    const took = await oneChange(cluster, agent, others, `${round} ${vips.get(agent)}`);
    if (took !== undefined) times.push(took);
  }
  for (const { child } of probers) child.kill('SIGKILL');
  return times;
}

function serviceOn({ host }: LabAgent): string {
  return `probe-${host.name}`;
}

async function startProbers(lab: Lab, cluster: Cluster): Promise<readonly Prober[]> {
  return await Promise.all(
    cluster.agents.map(async (agent) => {
      const [task] = await runningTasks(cluster, `client-${agent.host.name}`, 1, WAIT_MS);
      const child = lab.spawn(task?.netns ?? '', [process.execPath, SCRIPT]);
      return { agent, child, lines: new Lines(child) };
    }),
  );
}

/**
 * Ends a task, and waits for its successor to be reached.
 *
 * @param order - A prober's: the round and the VIP.
 * @returns milliseconds; undefined if the successor ran before all tried to reach it
 */
async function oneChange(
  cluster: Cluster,
  agent: LabAgent,
  probers: readonly Prober[],
  order: string,
): Promise<number | undefined> {
  const service = serviceOn(agent);
  const [old] = await runningTasks(cluster, service, 1, WAIT_MS);
  if (old === undefined) throw new Error(`${service} has no task`);
  process.kill(old.pid, 'SIGKILL');
  await eventually(`the last task of ${service} is gone`, async () => {
    const shown = await Promise.all(cluster.agents.map((each) => tasksShown(each, service)));
    return shown.every((tasks) => !tasks.includes(old.id)) || undefined;
  });
  const [round = ''] = order.split(' ');
  for (const { child } of probers) child.stdin?.write(`${order}\n`);
  await Promise.all(probers.map(({ lines }) => lines.until(new RegExp(`^${round} probing$`))));
  const probingMs = Date.now();
  const reached = await Promise.all(probers.map(({ lines }) => lines.next()));
  const [task] = await runningTasks(cluster, service, 1, WAIT_MS);
  const isStart = (event: { readonly taskId?: string; readonly state?: string }): boolean =>
    event.taskId === task?.id && event.state === 'running';
  const startedMs = eventsOf(agent, probingMs).find(isStart)?.atMs;
  if (startedMs === undefined) return undefined;
  return Math.max(...reached.map((line) => Number(line.split(' ')[1]))) - startedMs;
}

/** Ids of a service's tasks that a node shows. */
async function tasksShown({ api }: LabAgent, service: string): Promise<readonly string[]> {
  const { endpoints } = (await api.json('GET', '/weft/endpoints', { query: { service } })) as {
    readonly endpoints: readonly { readonly taskId: string }[];
  };
  return endpoints.map(({ taskId }) => taskId);
}
