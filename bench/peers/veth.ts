import type { Side } from '../ground.ts';

/** Host to host over the bare underlay, without an overlay. */
export const veth: Side = {
  name: 'veth',
  build: async ({ hosts: [from, to] }) => ({ from, to, address: to.address }),
};

/** The same by IPv6. */
export const vethV6: Side = {
  name: 'veth',
  build: async ({ hosts: [from, to] }) => ({ from, to, address: to.address6 }),
};
