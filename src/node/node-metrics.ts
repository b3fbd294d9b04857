import { formatIp } from '../core/ip.ts';
import type { TrafficCounter } from '../dataplane/counters.ts';
import type { Metrics, Sample } from '../io/metrics.ts';
import type { Node } from './node.ts';
import type { PathReport } from './path-monitor.ts';
import type { PeerReport } from './peer-report.ts';

/** Adds the metrics of the node, if there is one, to `metrics`. */
export function addNodeMetrics(metrics: Metrics, node: () => Node | undefined): void {
  addTrafficMetrics(metrics, node);
  addThreadMetrics(metrics, node);
  addDropMetrics(metrics, node);
  addTableMetrics(metrics, node);
  addPeerMetrics(metrics, node);
  addGossipMetrics(metrics, node);
  addGossipKeyMetrics(metrics, node);
  addConvergenceMetrics(metrics, node);
  addApplyMetrics(metrics, node);
  addEncryptionMetrics(metrics, node);
  addPathMetrics(metrics, node);
  metrics.add({
    name: 'weft_tasks',
    kind: 'gauge',
    help: 'Tasks on this node, by their state.',
    labels: ['state'],
    read: () => countBy(node()?.tasks.statuses() ?? [], ({ state }) => ({ state })),
  });
  metrics.add({
    name: 'weft_published_port_conflicts',
    kind: 'gauge',
    help: 'Published ports that this host cannot serve because a process of its own listens there.',
    labels: [],
    read: () => [{ labels: {}, value: node()?.portConflicts.length ?? 0 }],
  });
}

function addTrafficMetrics(metrics: Metrics, node: () => Node | undefined): void {
  const directions = (unit: 'frames' | 'bytes' | 'datagrams', side: 'port' | 'underlay') => () => {
    const traffic = node()?.dataPlane.counters.traffic();
    if (traffic === undefined) return [];
    const value = (direction: 'in' | 'out'): number =>
      (traffic as Readonly<Record<string, number>>)[`${side}-${unit}-${direction}`] ?? 0;
    return (['in', 'out'] as const).map(
      (direction): Sample => ({ labels: { direction }, value: value(direction) }),
    );
  };
  const labels = ['direction'];
  const help = {
    frames: 'Frames from (in) and to (out) tasks and the host; a superframe counts once.',
    portBytes: 'Bytes of frames from (in) and to (out) tasks and the host.',
    datagrams: 'VXLAN datagrams from (in) and to (out) other nodes.',
    underlayBytes: 'Bytes of VXLAN datagrams from (in) and to (out) other nodes.',
  };
  const kind = 'counter';
  const add = (name: string, text: string, read: () => Sample[]): void =>
    metrics.add({ name, kind, help: text, labels, read });
  add('weft_port_frames_total', help.frames, directions('frames', 'port'));
  add('weft_port_bytes_total', help.portBytes, directions('bytes', 'port'));
  add('weft_underlay_datagrams_total', help.datagrams, directions('datagrams', 'underlay'));
  add('weft_underlay_bytes_total', help.underlayBytes, directions('bytes', 'underlay'));
}

function addThreadMetrics(metrics: Metrics, node: () => Node | undefined): void {
  const byThread = (counter: TrafficCounter) => (): Sample[] =>
    (node()?.dataPlane.counters.byThread(counter) ?? []).map(
      (value, thread): Sample => ({ labels: { thread: String(thread) }, value }),
    );
  metrics.add({
    name: 'weft_packet_thread_frames_total',
    kind: 'counter',
    help: 'Frames that each packet thread read from tasks and the host; a superframe counts once.',
    labels: ['thread'],
    read: byThread('port-frames-in'),
  });
  metrics.add({
    name: 'weft_packet_thread_datagrams_total',
    kind: 'counter',
    help: 'VXLAN datagrams that each packet thread received from other nodes.',
    labels: ['thread'],
    read: byThread('underlay-datagrams-in'),
  });
}

function addDropMetrics(metrics: Metrics, node: () => Node | undefined): void {
  metrics.add({
    name: 'weft_drops_total',
    kind: 'counter',
    help: 'Frames and datagrams that the data plane dropped, by reason.',
    labels: ['reason'],
    read: () => byName(node()?.dataPlane.counters.drops() ?? {}, 'reason'),
  });
  metrics.add({
    name: 'weft_answers_total',
    kind: 'counter',
    help: 'Frames that the agent answered itself: ARP, pings of a VIP or gateway, TCP resets, packets too big.',
    labels: ['kind'],
    read: () => {
      const traffic = node()?.dataPlane.counters.traffic();
      if (traffic === undefined) return [];
      return byName(
        {
          arp: traffic['arp-replies'],
          echo: traffic['echo-replies'],
          reset: traffic['tcp-resets'],
          'too-big': traffic['too-big-answers'],
        },
        'kind',
      );
    },
  });
}

function addTableMetrics(metrics: Metrics, node: () => Node | undefined): void {
  metrics.add({
    name: 'weft_flows',
    kind: 'gauge',
    help: 'Flows that the routing mesh tracks, by protocol.',
    labels: ['protocol'],
    read: async () => byName((await node()?.dataPlane.status())?.flows ?? {}, 'protocol'),
  });
  metrics.add({
    name: 'weft_flow_evictions_total',
    kind: 'counter',
    help: 'Flows that made room for others before their time.',
    labels: [],
    read: () => {
      const value = node()?.dataPlane.counters.traffic()['flows-evicted'];
      return value === undefined ? [] : [{ labels: {}, value }];
    },
  });
  metrics.add({
    name: 'weft_service_backends',
    kind: 'gauge',
    help: 'Backends of each service as this node sees them, by state.',
    labels: ['service', 'state'],
    read: () => {
      const current = node();
      const names = new Map(current?.assignments?.services.map(({ id, name }) => [id, name]) ?? []);
      return Array.from(current?.peers.view.counts() ?? [], ({ serviceId, state, count }) => ({
        labels: { service: names.get(serviceId) ?? serviceId, state },
        value: count,
      }));
    },
  });
}

function addPeerMetrics(metrics: Metrics, node: () => Node | undefined): void {
  const add = (name: string, help: string, value: (peer: PeerReport) => number): void =>
    metrics.add({
      name,
      kind: 'counter',
      help,
      labels: ['node', 'vtep'],
      read: () =>
        (node()?.insight.peers() ?? []).map((peer) => ({
          labels: { node: peer.id, vtep: peer.address },
          value: value(peer),
        })),
    });
  const dropped = 'that were dropped.';
  add('weft_peer_rx_datagrams_total', 'Datagrams from another node.', (peer) => peer.datagrams.in);
  add('weft_peer_rx_bytes_total', 'Bytes of datagrams from another node.', (peer) => peer.bytes.in);
  add(
    'weft_peer_rx_drops_total',
    `Datagrams from another node ${dropped}`,
    (peer) => peer.drops.in,
  );
  add('weft_peer_tx_datagrams_total', 'Datagrams to another node.', (peer) => peer.datagrams.out);
  add('weft_peer_tx_bytes_total', 'Bytes of datagrams to another node.', (peer) => peer.bytes.out);
  add('weft_peer_tx_drops_total', `Frames for another node ${dropped}`, (peer) => peer.drops.out);
}

function addGossipMetrics(metrics: Metrics, node: () => Node | undefined): void {
  metrics.add({
    name: 'weft_members',
    kind: 'gauge',
    help: 'Members of the cluster as this node sees them, by state.',
    labels: ['state'],
    read: () => countBy(node()?.peers.members() ?? [], ({ state }) => ({ state })),
  });
  metrics.add({
    name: 'weft_gossip_faults_total',
    kind: 'counter',
    help: 'Gossip messages that were dropped and streams that failed, by reason.',
    labels: ['reason'],
    read: () => byName(node()?.peers.faults() ?? {}, 'reason'),
  });
  metrics.add({
    name: 'weft_gossip_health_score',
    kind: 'gauge',
    help: 'Lifeguard awareness of this node: 0 keeps up with the protocol, more does not.',
    labels: [],
    read: () => {
      const current = node();
      return current === undefined ? [] : [{ labels: {}, value: current.peers.healthScore }];
    },
  });
}

/** How far the endpoint tables of this node are from those of the others. */
function addConvergenceMetrics(metrics: Metrics, node: () => Node | undefined): void {
  const stats = () => node()?.peers.syncStats();
  metrics.add({
    name: 'weft_gossip_update_age_seconds',
    kind: 'gauge',
    help: "Age of each node's newest change of its endpoints when it came here, by both nodes' clocks.",
    labels: ['node'],
    read: () =>
      Array.from(stats()?.lagMs ?? [], ([name, lagMs]) => {
        return { labels: { node: name }, value: lagMs / 1000 };
      }),
  });
  metrics.add({
    name: 'weft_gossip_digest_mismatches_total',
    kind: 'counter',
    help: 'Digests of other nodes that differed from this one: some of them are of changes under way.',
    labels: [],
    read: () => [{ labels: {}, value: stats()?.mismatches ?? 0 }],
  });
  metrics.add({
    name: 'weft_gossip_repairs_total',
    kind: 'counter',
    help: 'Changes that came by comparing tables, because their broadcast did not.',
    labels: [],
    read: () => [{ labels: {}, value: stats()?.repairs ?? 0 }],
  });
}

function addGossipKeyMetrics(metrics: Metrics, node: () => Node | undefined): void {
  metrics.add({
    name: 'weft_gossip_keys',
    kind: 'gauge',
    help: 'Keys that this node opens gossip by; 0 if gossip is not encrypted.',
    labels: [],
    read: () => {
      const current = node();
      return current === undefined ? [] : [{ labels: {}, value: current.gossipKeys.count }];
    },
  });
}

function addApplyMetrics(metrics: Metrics, node: () => Node | undefined): void {
  metrics.addHistogram({
    name: 'weft_endpoint_apply_seconds',
    help: 'From when gossip tells of a change of another node until the data plane has it.',
    read: () => node()?.peers.applyTimes.seconds,
  });
}

function addPathMetrics(metrics: Metrics, node: () => Node | undefined): void {
  const samples = (read: (report: PathReport) => number | undefined) => (): Sample[] => {
    const current = node();
    if (current === undefined) return [];
    const members = current.peers.members();
    const names = new Map(members.map(({ name, address }) => [address, name]));
    return current.paths.reports().flatMap((report) => {
      const value = read(report);
      if (value === undefined) return [];
      const vtep = formatIp(report.address);
      return [{ labels: { node: names.get(vtep) ?? '', vtep }, value }];
    });
  };
  const labels = ['node', 'vtep'];
  const kind = 'gauge';
  const add = (name: string, help: string, read: () => Sample[]): void =>
    metrics.add({ name, kind, help, labels, read });
  add(
    'weft_peer_rtt_seconds',
    'Smoothed round-trip time to another node, from path probes.',
    samples(({ roundTrips }) => roundTrips && roundTrips.smoothedUs / 1e6),
  );
  add(
    'weft_peer_probe_loss_ratio',
    'Share of the last 32 small path probes to another node that were lost.',
    samples(({ lossRatio }) => lossRatio),
  );
  add(
    'weft_peer_path_mtu_bytes',
    'Largest outer packet that is sent to another node.',
    samples(({ mtuBytes }) => mtuBytes),
  );
}

function addEncryptionMetrics(metrics: Metrics, node: () => Node | undefined): void {
  metrics.add({
    name: 'weft_peer_session_age_seconds',
    kind: 'gauge',
    help: 'Age of the encrypted session with another node.',
    labels: ['node', 'vtep'],
    read: () => {
      const channels = node()?.encryption.status() ?? [];
      return channels.flatMap(({ peerId, endpoint, sessionAgeMs }) => {
        if (sessionAgeMs === undefined) return [];
        const labels = { node: peerId, vtep: formatIp(endpoint.address) };
        return [{ labels, value: sessionAgeMs / 1000 }];
      });
    },
  });
  metrics.add({
    name: 'weft_handshake_drops_total',
    kind: 'counter',
    help: 'Handshake messages of encrypted networks that were not acted upon, by reason.',
    labels: ['reason'],
    read: () => byName(node()?.encryption.drops() ?? {}, 'reason'),
  });
}

function byName(values: Readonly<Record<string, number>>, label: string): Sample[] {
  return Object.entries(values).map(([name, value]) => ({ labels: { [label]: name }, value }));
}

function countBy<Item>(
  items: readonly Item[],
  labelsOf: (item: Item) => Readonly<Record<string, string>>,
): Sample[] {
  const groups = Map.groupBy(items, (item) => JSON.stringify(labelsOf(item)));
  return [...groups.values()].map((group) => ({
    labels: labelsOf(group[0] as Item),
    value: group.length,
  }));
}
