/** What a node announces of a task's endpoint, as it travels. */
export const TASK = {
  networkId: 'blue',
  address: '10.0.1.5',
  mac: '02:42:0a:00:01:05',
  serviceId: 'web',
  taskId: 't1',
  state: 'active',
  primary: true,
} as const;
