// Five hosts of which two are cut off the other three, and one is lost for good: what all show of the others.
import { type Test, test } from 'tap';
import { type Cluster, eventually, type LabAgent, startCluster } from '../support/cluster.ts';
import { canMakeLab, Lab } from '../support/lab.ts';
import { aliveMembers, runningTasks, statusOf } from '../support/services.ts';

const WAIT_MS = 120_000;
const CUT_MS = 60_000;
/** Tasks of a service on each host before the cut. */
const REPLICAS = 2;

/** An endpoint, as `weft endpoints --format json` shows it. */
interface Shown {
  readonly node: string;
  readonly taskId: string;
  readonly state: string;
}

async function endpoints(agent: LabAgent): Promise<readonly Shown[]> {
  return (await agent.list('endpoints')) as unknown as readonly Shown[];
}

/** Host names of the nodes whose endpoints an agent shows. */
async function nodesShown(agent: LabAgent): Promise<readonly string[]> {
  return [...new Set((await endpoints(agent)).map(({ node }) => node))].sort();
}

function namesOf(agents: readonly LabAgent[]): readonly string[] {
  return agents.map(({ host }) => host.name).sort();
}

async function allShow(agents: readonly LabAgent[], nodes: readonly LabAgent[]): Promise<void> {
  const expected = namesOf(nodes).join();
  await Promise.all(
    agents.map((agent) =>
      eventually(
        `${agent.host.name} shows endpoints of ${expected}, and of no one else`,
        async () => (await nodesShown(agent)).join() === expected || undefined,
        WAIT_MS,
      ),
    ),
  );
}

/** Ids of the tasks that a host's agent runs, in order. */
async function tasksOn(agent: LabAgent): Promise<readonly string[]> {
  const { tasks = [] } = await statusOf(agent);
  return tasks.flatMap(({ id, state }) => (state === 'running' ? [id] : [])).sort();
}

/** Waits until all agents have one digest, and show of each host the tasks that it runs. */
async function agree(t: Test, agents: readonly LabAgent[]): Promise<void> {
  const digests = await eventually(
    'all digests are equal, and endpoints are those of the tasks that run',
    async () => {
      const all = await Promise.all(agents.map((agent) => agent.list('endpoints', '--digest')));
      const [first, ...rest] = all.map((lines) => JSON.stringify(lines));
      if (rest.some((digest) => digest !== first)) return undefined;
      const ran = (await Promise.all(agents.map(tasksOn))).flat().sort();
      const shown = await Promise.all(
        agents.map(async (agent) => (await endpoints(agent)).map(({ taskId }) => taskId).sort()),
      );
      return shown.every((tasks) => tasks.join() === ran.join()) ? all[0] : undefined;
    },
    WAIT_MS,
  );
  t.match(digests.at(-1), { digest: /^[0-9a-f]{16}$/, endpoints: Number }, 'all agree');
}

function serviceOn({ host }: LabAgent): string {
  return `on-${host.name}`;
}

async function startServices({ manager, agents }: Cluster): Promise<void> {
  await manager.weft('network', 'create', 'app');
  for (const agent of agents) {
    await manager.weft(
      ...['service', 'create', '-d', '--name', serviceOn(agent), '--network', 'app'],
      ...['--runtime', 'process', '--replicas', `${REPLICAS}`, '--restart-delay', '1s'],
      ...['--constraint', `node.hostname==${agent.host.name}`, 'sleep', 'infinity'],
    );
  }
}

/** Waits until none of `agents` shows the task. */
async function noneShow(agents: readonly LabAgent[], taskId: string): Promise<void> {
  await eventually(`task ${taskId} is not shown any more`, async () => {
    const shown = await Promise.all(agents.map(endpoints));
    return !shown.flat().some((endpoint) => endpoint.taskId === taskId) || undefined;
  });
}

test('five hosts', { skip: !canMakeLab() && 'needs root', timeout: 300_000 }, async (t) => {
  const lab = new Lab();
  t.teardown(() => lab.close());
  const cluster = await startCluster(lab, 5);
  const { manager, agents } = cluster;
  await startServices(cluster);
  for (const agent of agents) await runningTasks(cluster, serviceOn(agent), REPLICAS, WAIT_MS);
  await allShow(agents, agents);
  await agree(t, agents);
  const pids = agents.map(({ pid }) => pid);

  t.test('a task that is to stop is draining to all before it ends', async (t) => {
    const [last] = agents.slice(-1);
    if (last === undefined) throw new Error('there is no last host');
    await manager.weft(
      ...['service', 'create', '-d', '--name', 'stubborn', '--network', 'app'],
      ...['--runtime', 'process', '--stop-grace-period', '1h'],
      ...['--constraint', `node.hostname==${last.host.name}`],
      ...['sh', '-c', 'trap "" TERM; exec sleep infinity'],
    );
    const [task] = await runningTasks(cluster, 'stubborn', 1, WAIT_MS);
    if (task === undefined) throw new Error('there is no task');
    await agree(t, agents);
    await manager.weft('service', 'scale', '-d', 'stubborn=0');
    await eventually('all see it draining', async () => {
      const shown = await Promise.all(agents.map(endpoints));
      const isDraining = shown.every((those) =>
        those.some(({ taskId, state }) => taskId === task.id && state === 'draining'),
      );
      return isDraining || undefined;
    });
    t.ok(process.kill(task.pid, 0), 'it still runs');
    process.kill(task.pid, 'SIGKILL');
    await noneShow(agents, task.id);
    await agree(t, agents);
  });

  t.test('each side of a cut hides the other, and both agree after it', async (t) => {
    const near = agents.slice(0, 2);
    const far = agents.slice(2);
    const [, nearest] = near;
    const [farthest] = far;
    if (nearest === undefined || farthest === undefined) throw new Error('a side is empty');
    const [nearTask] = await runningTasks(cluster, serviceOn(nearest), REPLICAS, WAIT_MS);
    const [farTask] = await runningTasks(cluster, serviceOn(farthest), REPLICAS, WAIT_MS);
    if (nearTask === undefined || farTask === undefined) throw new Error('there is a task missing');
    lab.cut(far.map(({ host }) => host));
    const isOver = new Promise((resolve) => setTimeout(resolve, CUT_MS));
    await Promise.all([allShow(near, near), allShow(far, far)]);
    t.pass('both sides show their own endpoints alone');
    // Both sides change: there a manager starts another task, here none does.
    process.kill(nearTask.pid, 'SIGKILL');
    process.kill(farTask.pid, 'SIGKILL');
    await Promise.all([noneShow(near, nearTask.id), noneShow(far, farTask.id)]);
    await isOver;
    lab.mend();
    await allShow(agents, agents);
    await agree(t, agents);
    for (const { id } of [nearTask, farTask]) await noneShow(agents, id);
    t.same(
      agents.map(({ pid, isRunning }) => isRunning && pid),
      pids,
      'no agent was restarted',
    );
  });

  t.test('a killed agent has failed for all others, whose digests stay equal', async (t) => {
    const [, , killed] = agents;
    if (killed === undefined) throw new Error('there is no third host');
    const others = agents.filter((agent) => agent !== killed);
    const ids = await Promise.all(others.map(async (agent) => (await statusOf(agent)).node.id));
    await killed.kill();
    await allShow(others, others);
    for (const agent of others) {
      const members = await agent.list('gossip', 'members');
      t.equal(members.find(({ Name }) => Name === killed.host.name)?.State, 'dead');
      t.same(await aliveMembers(agent), ids.toSorted());
    }
    await agree(t, others);
  });
});
