import type { Hono } from 'hono';
import { formatHostPort } from '../core/ip.ts';
import type { ApiContext } from './api-context.ts';
import { clusterOf } from './cluster.ts';
import { type DockerObject, timestamp } from './docker-objects.ts';
import { CLUSTER_KEY } from './keys.ts';
import { isFinished } from './task-states.ts';

/** The version of the Docker Engine API whose shapes are served. */
export const API_VERSION = '1.54';
/** The oldest version that stock clients may ask for. */
export const API_VERSION_MIN = '1.40';

/** `/_ping`, `/version`, `/info` and `/swarm`. */
export function systemRoutes(app: Hono, context: ApiContext): void {
  app.on(['GET', 'HEAD'], '/_ping', (c) => {
    c.header('Cache-Control', 'no-cache, no-store, must-revalidate');
    c.header('Swarm', 'active/manager');
    return c.text('OK');
  });
  app.get('/version', (c) => c.json(versionObject(context)));
  app.get('/info', (c) => c.json(infoObject(context)));
  app.get('/swarm', (c) => {
    const { worker, manager } = context.joinTokens();
    return c.json({ ...clusterObject(context), JoinTokens: { Worker: worker, Manager: manager } });
  });
}

function versionObject({ local, state }: ApiContext): DockerObject {
  const node = state.find('nodes', local.nodeId() ?? '');
  const { architecture = '', os = '' } = node?.description.platform ?? {};
  return {
    Platform: { Name: 'weft' },
    Version: local.version,
    ApiVersion: API_VERSION,
    MinAPIVersion: API_VERSION_MIN,
    Os: os,
    Arch: architecture,
    Components: [{ Name: 'weft', Version: local.version }],
  };
}

/** Docker's `ClusterInfo`. */
function clusterObject({ state }: ApiContext): DockerObject {
  const cluster = clusterOf(state);
  return {
    ID: cluster.id,
    Version: { Index: state.revisionOf(CLUSTER_KEY) },
    CreatedAt: timestamp(cluster.createdAtMs),
    UpdatedAt: timestamp(cluster.updatedAtMs),
    Spec: {
      Name: 'default',
      Labels: {},
      Orchestration: { TaskHistoryRetentionLimit: cluster.taskHistoryLimit },
      Raft: {},
      Dispatcher: { HeartbeatPeriod: 5_000_000_000 },
      CAConfig: {},
      TaskDefaults: {},
      EncryptionConfig: { AutoLockManagers: false },
    },
    RootRotationInProgress: false,
    DefaultAddrPool: [...cluster.addressPools, ...(cluster.addressPools6 ?? [])],
    SubnetSize: cluster.subnetPrefix,
    DataPathPort: cluster.dataPathPort,
  };
}

function infoObject(context: ApiContext): DockerObject {
  const { state, local } = context;
  const nodes = [...state.all('nodes')];
  const managers = nodes.filter((node) => node.role === 'manager');
  const node = state.find('nodes', local.nodeId() ?? '');
  const tasks = node === undefined ? [] : [...state.tasksOfNode(node.id)];
  const running = tasks.filter((task) => task.status.state === 'running').length;
  const stopped = tasks.filter((task) => isFinished(task.status.state)).length;
  return {
    ID: local.nodeId() ?? '',
    Name: node?.description.hostname ?? '',
    ServerVersion: local.version,
    OSType: node?.description.platform.os ?? '',
    Architecture: node?.description.platform.architecture ?? '',
    NCPU: Math.ceil((node?.description.resources.nanoCpus ?? 0) / 1e9),
    MemTotal: node?.description.resources.memoryBytes ?? 0,
    Containers: tasks.length,
    ContainersRunning: running,
    ContainersStopped: stopped,
    Plugins: { Network: ['overlay'], Volume: [], Log: ['json-file'] },
    Swarm: {
      NodeID: local.nodeId() ?? '',
      NodeAddr: node?.advertiseAddress ?? '',
      LocalNodeState: 'active',
      ControlAvailable: true,
      Error: '',
      RemoteManagers: managers.map((manager) => ({
        NodeID: manager.id,
        Addr: formatHostPort(manager.advertiseAddress, local.managerPort),
      })),
      Nodes: nodes.length,
      Managers: managers.length,
      Cluster: clusterObject(context),
    },
  };
}
