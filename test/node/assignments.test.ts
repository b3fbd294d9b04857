import { test } from 'tap';
import type {
  AssignmentChange,
  AssignmentSet,
  NetworkAssignment,
  NodeAssignment,
  ServiceAssignment,
  TaskAssignment,
} from '../../src/manager/session-protocol.ts';
import { applyChange } from '../../src/node/assignments.ts';

function network(id: string, name = id): NetworkAssignment {
  return { id, name, vni: 4096, subnet: '10.0.0.0/24', gateway: '10.0.0.1', ingress: false };
}

function service(id: string, name = id): ServiceAssignment {
  return { id, name, vips: [], ports: [] };
}

function task(
  id: string,
  desiredState: TaskAssignment['desiredState'] = 'running',
): TaskAssignment {
  return {
    id,
    serviceId: 's1',
    serviceName: 's1',
    slot: 1,
    name: `s1.1.${id}`,
    desiredState,
    runtime: 'process',
    argv: ['true'],
    env: [],
    stopSignal: 'SIGTERM',
    stopGraceMs: 10_000,
    attachments: [],
  };
}

function node(id: string, publicKey = 'old'): NodeAssignment {
  return { id, publicKey, address: '192.0.2.9', dataPathPort: 4789 };
}

const GOSSIP = { encryption: true, profile: 'wan', compression: true } as const;

const KNOWN: AssignmentSet = {
  clusterId: 'cluster',
  nodeId: 'node',
  ingressAddress: '10.255.0.2',
  networks: [network('n1'), network('n2')],
  services: [service('s1'), service('s2')],
  tasks: [task('t1'), task('t2')],
  nodes: [node('w1'), node('w2')],
  managers: ['192.0.2.1:2377'],
  gossipSeeds: ['192.0.2.1:7946'],
  gossipKeys: { mode: 'strict', keys: [{ id: '0123456789', key: 'AAAA' }] },
};
const NO_CHANGE: AssignmentChange = {
  networks: [],
  services: [],
  tasks: [],
  nodes: [],
  removedNetworks: [],
  removedServices: [],
  removedTasks: [],
  removedNodes: [],
  managers: KNOWN.managers,
  gossipSeeds: KNOWN.gossipSeeds,
};

const CASES: readonly [string, Partial<AssignmentChange>, Partial<AssignmentSet>][] = [
  ['without news', {}, {}],
  ['with a new task', { tasks: [task('t3')] }, { tasks: [task('t1'), task('t2'), task('t3')] }],
  [
    'with a changed task, which keeps its place',
    { tasks: [task('t1', 'shutdown')] },
    { tasks: [task('t1', 'shutdown'), task('t2')] },
  ],
  [
    'with removals',
    { removedNetworks: ['n1'], removedServices: ['s2'], removedTasks: ['t1', 't2'] },
    { networks: [network('n2')], services: [service('s1')], tasks: [] },
  ],
  [
    'with a node that has another key, and one that was removed',
    { nodes: [node('w1', 'new')], removedNodes: ['w2'] },
    { nodes: [node('w1', 'new')] },
  ],
  ['that removes what is not known', { removedTasks: ['t9'] }, {}],
  [
    'that removes an object and brings it again',
    { removedServices: ['s1'], services: [service('s1', 'again')] },
    { services: [service('s2'), service('s1', 'again')] },
  ],
  [
    'with other managers, which replace the known ones',
    { managers: ['192.0.2.9:2377'], gossipSeeds: [] },
    { managers: ['192.0.2.9:2377'], gossipSeeds: [] },
  ],
  [
    'with other gossip keys and settings, which replace the known ones',
    { gossipKeys: { mode: 'seal', keys: [] }, gossip: GOSSIP },
    { gossipKeys: { mode: 'seal', keys: [] }, gossip: GOSSIP },
  ],
];

for (const [name, change, expected] of CASES) {
  test(`applyChange() ${name}`, (t) => {
    const before = structuredClone(KNOWN);
    t.strictSame(applyChange(KNOWN, { ...NO_CHANGE, ...change }), { ...KNOWN, ...expected });
    t.strictSame(KNOWN, before, 'what was known stays as it was');
    t.end();
  });
}
