import type { DualStackHost, Ground, Path, Side } from '../ground.ts';

/** Not that of the agents, as on a host that has both. */
const PORT = 8472;
/** MTU of the underlay, less Ethernet, VXLAN, UDP and IPv4 or IPv6. */
const MTU_BYTES = { v4: 1450, v6: 1430 };

interface Variant {
  readonly vni: number;
  /** Family of the packets inside. */
  readonly inner: 'v4' | 'v6';
  /** Family of the packets around them. */
  readonly outer: 'v4' | 'v6';
}

/** IPv4 over IPv4, from one namespace to another. */
export const kernelVxlan: Side = variant({ vni: 4098, inner: 'v4', outer: 'v4' });
/** IPv6 over IPv4. */
export const kernelVxlanV6: Side = variant({ vni: 4099, inner: 'v6', outer: 'v4' });
/** IPv4 over IPv6. */
export const kernelVxlanV6Underlay: Side = variant({ vni: 4100, inner: 'v4', outer: 'v6' });

function variant(options: Variant): Side {
  return { name: 'kernel-vxlan', build: async (ground) => build(ground, options) };
}

/** VXLAN devices on both hosts, each moved into a namespace of its own as a task's would be. */
function build(ground: Ground, { vni, inner, outer }: Variant): Path {
  const { lab } = ground;
  const underlay = (host: DualStackHost): string => (outer === 'v4' ? host.address : host.address6);
  const [from, to] = ground.ends((host, index) => ({
    host,
    netns: `${lab.prefix}k${vni}-${index}`,
    address: inner === 'v4' ? `10.8.0.${index + 1}` : `fd00:8::${index + 1}`,
    mac: `02:00:00:00:08:0${index + 1}`,
  }));
  const prefix = inner === 'v4' ? '24' : '64 nodad';
  for (const [near, far] of [
    [from, to],
    [to, from],
  ] as const) {
    lab.ip([`netns add ${near.netns}`]);
    lab.ip(
      [
        `link add vx0 type vxlan id ${vni} local ${underlay(near.host)} dstport ${PORT} nolearning`,
        `link set vx0 address ${near.mac} mtu ${MTU_BYTES[outer]}`,
        `link set vx0 netns ${near.netns}`,
      ],
      near.host,
    );
    lab.ip(
      [
        'link set lo up',
        'link set vx0 up',
        `addr add ${near.address}/${prefix} dev vx0`,
        `neigh add ${far.address} lladdr ${far.mac} dev vx0 nud permanent`,
      ],
      near.netns,
    );
    lab.bridge(near.netns, ['fdb', 'append', far.mac, 'dev', 'vx0', 'dst', underlay(far.host)]);
  }
  return { from: from.netns, to: to.netns, address: to.address };
}
