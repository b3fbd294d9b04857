import { GATEWAY_MAC, parseIpv4 } from '../../../src/core/address.ts';
import { Packet, PROTO_TCP, PROTO_UDP, parseFrame, TCP_SYN } from '../../../src/core/packet.ts';
import { flowTableBytes } from '../../../src/routing-mesh/flow-table.ts';
import { Mesh } from '../../../src/routing-mesh/mesh.ts';
import { Verdict } from '../../../src/routing-mesh/verdict.ts';
import { ethernetFrame } from '../../dataplane/frames.ts';
import { type FuzzTarget, require } from '../target.ts';

const SCOPE = 4096;
const NOW_MS = 1_790_000_000_000;
const CAPACITY = 64;
const HASH_KEY = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8);
const VIP = '10.1.0.100';
/** Past it even a TCP flow has expired: its time is 5 days. */
const LONGEST_IDLE_MS = 6 * 24 * 3_600_000;
/** Each damage: where, in bytes, big-endian; how many; the bytes themselves. */
const DAMAGE_HEADER_BYTES = 3;

function frameOf(port: number, protocol: number): Uint8Array {
  const to = `${VIP}:80`;
  const from = `10.1.0.11:${port}`;
  return ethernetFrame({ from, to, toMac: GATEWAY_MAC, protocol, tcpFlags: TCP_SYN });
}

function meshOver(memory: Uint8Array): Mesh {
  const mesh = new Mesh({ memory, capacity: CAPACITY, hashKey: HASH_KEY });
  mesh.setService({
    scope: SCOPE,
    vip: parseIpv4(VIP),
    gateway: parseIpv4('10.1.0.1'),
    backends: ['10.1.0.12', '10.1.0.13'].map((address) => ({
      ...{ id: address, address: parseIpv4(address), scope: SCOPE, weight: 1 },
      state: 'active' as const,
    })),
  });
  return mesh;
}

/** What becomes of a client's packets, the same ones each time. */
function traffic(mesh: Mesh, nowMs: number): string {
  const verdict = new Verdict();
  const packet = new Packet();
  return Array.from({ length: 12 }, (_, index) => {
    const bytes = frameOf(5_000 + (index >> 1), index % 2 === 0 ? PROTO_TCP : PROTO_UDP);
    const view = new DataView(bytes.buffer);
    parseFrame(view, 0, bytes.length, packet);
    mesh.fromLocal(packet, view, SCOPE, false, nowMs + index, verdict);
    return `${verdict.kind} ${verdict.dropReason}`;
  }).join();
}

/** A table with some flows, as a killed agent leaves it. */
function soundTable(): Uint8Array {
  const memory = new Uint8Array(flowTableBytes(CAPACITY));
  traffic(meshOver(memory), NOW_MS);
  return memory;
}

const SOUND = soundTable();

/** A flow table's file with wrong bytes in it: an agent must start, serve and forget what is wrong. */
export const flowFile: FuzzTarget = {
  name: 'flow-file',
  isCopied: true,
  bytesMax: 256,
  dictionary: [Uint8Array.of(0xff, 0xff, 0xff, 0xff), Uint8Array.of(1, 0, 0, 0)],
  seeds: () => [
    new Uint8Array(),
    Uint8Array.of(0, 0, 4, 1, 2, 3, 4),
    Uint8Array.of(0, 40, 1, 255, 1, 0, 2, 255, 255),
  ],
  run(input) {
    const memory = Uint8Array.from(SOUND);
    const view = new DataView(input.buffer, input.byteOffset, input.byteLength);
    for (let at = 0; at + DAMAGE_HEADER_BYTES <= input.length; ) {
      const where = view.getUint16(at) % memory.length;
      const bytes = input.subarray(at + 3, at + 3 + (view.getUint8(at + 2) & 15));
      memory.set(bytes.subarray(0, memory.length - where), where);
      at += DAMAGE_HEADER_BYTES + bytes.length;
    }
    const mesh = meshOver(memory);
    const first = traffic(mesh, NOW_MS + 1_000);
    mesh.sweep(CAPACITY, NOW_MS + 2_000);
    const listed = [...mesh.flows(NOW_MS + 2_000)].length;
    const active = mesh.activeFlows(PROTO_TCP) + mesh.activeFlows(PROTO_UDP);
    require(listed <= CAPACITY && active <= CAPACITY, 'a table has no more flows than places');
    const second = traffic(mesh, NOW_MS + 3_000);
    const muchLaterMs = NOW_MS + LONGEST_IDLE_MS;
    mesh.sweep(CAPACITY, muchLaterMs);
    require([...mesh.flows(muchLaterMs)].length === 0, 'all flows expire');
    require(mesh.activeFlows(PROTO_TCP) + mesh.activeFlows(PROTO_UDP) ===
      0, 'none is counted then');
    return { kind: `${mesh.attached} ${first === second}`, detail: `${first} ${second} ${listed}` };
  },
};
