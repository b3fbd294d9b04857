import { type MessagePort, receiveMessageOnPort } from 'node:worker_threads';
import type { Clock } from '../core/capabilities.ts';
import { loadChecksumKernel } from '../core/checksum.ts';
import { isIpv6 } from '../core/ip.ts';
import { aeadProviders, chooseAead } from '../io/aead/choose.ts';
import { Arena } from '../io/linux/arena.ts';
import { DatagramQueue } from '../io/linux/datagram-queue.ts';
import { clearWakeUp, Epoll } from '../io/linux/epoll.ts';
import { EAGAIN, errno, readAt } from '../io/linux/ffi.ts';
import { mapFile, releaseMapped } from '../io/linux/mapped-file.ts';
import { VNET_HEADER_BYTES } from '../io/linux/tap.ts';
import { VxlanReceiver } from '../io/linux/vxlan-socket.ts';
import { collectIfDue, RestingHeap } from '../io/resting-heap.ts';
import { type FlowSharing, flowTableBytes } from '../routing-mesh/flow-table.ts';
import { Mesh } from '../routing-mesh/mesh.ts';
import { CaptureTaps, CROSSING_PORT_IN } from './capture-taps.ts';
import type {
  DataPlaneCommand,
  DataPlaneEvent,
  DataPlaneRequest,
  DataPlaneWorkerData,
  ThreadPlace,
} from './commands.ts';
import { Counters, dropIndex, trafficIndex } from './counters.ts';
import type { Decision } from './decision.ts';
import { Egress } from './egress.ts';
import { Ingress } from './ingress.ts';
import { Offload, readOffload, writePlain } from './offload.ts';
import { PathProbes } from './path-probes.ts';
import { PeerCounters } from './peer-counters.ts';
import { Peers } from './peers.ts';
import type { Port } from './port.ts';
import { PortWriter } from './port-writer.ts';
import { isSecureCommand, SecureControl } from './secure-control.ts';
import { SecureSessions } from './secure-sessions.ts';
import { ANSWER_BYTES_MAX, Switch } from './switch.ts';
import { type PortListener, Tables } from './tables.ts';

/** Everything in the arena, with room to spare. */
const ARENA_BYTES = 1792 * 1024;
/** The largest frame of a TAP: virtio-net header, Ethernet with a VLAN tag, 64 KiB of IP. */
const READ_BYTES = VNET_HEADER_BYTES + 18 + 65_535;
/** Bytes of frames that wait in the queues of {@link Egress}: one superframe, or many small frames. */
const WAITING_BYTES = 32 * 1024;
/** In front of a frame: room for the headers of the tunnel, so that Ethernet is 2 off and IP aligned. */
const HEADROOM_BYTES = 34;
/** Distance between frames that are read. */
const FRAME_ALIGNMENT = 64;
/** How long the loop sleeps at most: flows expire at this pace. */
const IDLE_MS = 1_000;
/** Events of a second in which the loop is at rest: probes of paths, and commands. */
const REST_EVENTS_MAX = 20;
/** Flow table entries that one pass of expiry looks at. */
const SWEEP_ENTRIES = 32_768;
/** Reads of one descriptor before the others have their turn. */
const BURST_MAX = 64;
/** The same in bytes: a turn of superframes must not starve the rest. */
const BURST_BYTES_MAX = 256 * 1024;

/** The clocks of a packet thread. */
const CLOCK: Clock = { nowMs: () => performance.now(), epochMs: () => Date.now() };

const TOKEN_WAKE_UP = 0;
const TOKEN_UNDERLAY = 1;
/** Tokens of ports are their ids plus this. */
const TOKEN_PORTS = 2;

const FRAMES_IN = trafficIndex('port-frames-in');
const BYTES_IN = trafficIndex('port-bytes-in');
const WAKEUPS = trafficIndex('wakeups');
const EVICTED = trafficIndex('flows-evicted');
const RUNT = dropIndex('runt');
const SEND_FAILED = dropIndex('send-failed');

/**
 * A packet thread: blocks in `epoll_wait`, reads its queues of the TAPs and its underlay socket, decides,
 * writes. It never returns to Node's event loop; messages are fetched when the control thread wakes it.
 * Of all that it knows, only the flows are shared with other packet threads.
 */
export class PacketLoop {
  readonly #place: ThreadPlace;
  readonly #channel: MessagePort;
  readonly #wakeFd: number;
  readonly #arena = new Arena(ARENA_BYTES);
  readonly #epoll: Epoll;
  readonly #counters: Counters;
  readonly #receiver: VxlanReceiver;
  readonly #egress: Egress;
  readonly #ingress: Ingress;
  readonly #probes: PathProbes;
  readonly #ports: PortWriter;
  readonly #taps: CaptureTaps;
  readonly #switch: Switch;
  readonly #mesh: Mesh;
  readonly #tables: Tables;
  readonly #secure: SecureSessions;
  readonly #secureControl: SecureControl;
  readonly #offload = new Offload();
  /** Where frames of TAPs are read to, and where the next one is: those before it wait to be sent. */
  readonly #frames: number;
  #frame: number;
  readonly #scratch: number;
  #underlayBurst = 1;
  #nextSweepMs = 0;
  readonly #heap = new RestingHeap();
  /** Since the last sweep. */
  #events = 0;
  #running = true;
  #isServing = false;

  constructor(data: DataPlaneWorkerData, channel: MessagePort) {
    const arena = this.#arena;
    const { place } = data;
    this.#place = place;
    this.#channel = channel;
    this.#wakeFd = data.wakeFd;
    this.#counters = new Counters(data.counters, place.index);
    const checksum = loadChecksumKernel(arena.memory);
    this.#receiver = new VxlanReceiver(arena, data.socket, isIpv6(data.vtepAddress));
    this.#taps = new CaptureTaps(arena, CLOCK);
    const peers = new Peers(data.linkMtuBytes, new PeerCounters(data.peerCounters, place.index));
    const secure = this.#makeSessions(peers);
    this.#secure = secure;
    this.#egress = new Egress({
      arena,
      checksum,
      counters: this.#counters,
      taps: this.#taps,
      vtepAddress: data.vtepAddress,
      secure,
      onTooBig: (destination) => this.#probes.refused(destination, Date.now()),
    });
    this.#frames = arena.allocate(WAITING_BYTES + READ_BYTES + FRAME_ALIGNMENT) + HEADROOM_BYTES;
    this.#frame = this.#frames;
    this.#scratch = arena.allocate(ANSWER_BYTES_MAX + 64) + HEADROOM_BYTES;
    this.#mesh = makeMesh(data);
    this.#probes = new PathProbes({
      arena,
      peers,
      address: data.vtepAddress,
      post: (event) => this.#post(event),
    });
    const mesh = this.#mesh;
    this.#switch = new Switch({ view: arena.view, mesh, peers, scratch: this.#scratch });
    this.#ports = new PortWriter(arena, this.#counters, this.#taps);
    this.#ingress = new Ingress({
      arena,
      checksum,
      counters: this.#counters,
      receiver: this.#receiver,
      decide: this.#switch,
      ports: this.#ports,
      egress: this.#egress,
      taps: this.#taps,
      peers,
      probes: this.#probes,
      secure,
    });
    this.#epoll = new Epoll(arena);
    this.#epoll.add(this.#wakeFd, TOKEN_WAKE_UP);
    this.#tables = new Tables({
      decide: this.#switch,
      mesh,
      peers,
      secure,
      listener: this.#portListener(),
      probes: this.#probes,
      taps: this.#taps,
      place,
    });
    const queue = new DatagramQueue(
      arena,
      this.#receiver.fd,
      isIpv6(data.vtepAddress),
      (_to, datagrams) => this.#counters.dropMany(SEND_FAILED, datagrams),
    );
    this.#secureControl = new SecureControl({
      arena,
      peers,
      sessions: secure,
      egress: this.#egress,
      queue,
      place,
    });
    if (!data.held) this.#startServing();
  }

  #portListener(): PortListener {
    return {
      added: (port) => {
        if (this.#isServing && port.isRead) this.#epoll.add(port.fd, port.id + TOKEN_PORTS);
      },
      removed: (port) => {
        if (port.isRead) this.#epoll.remove(port.fd);
      },
    };
  }

  #makeSessions(peers: Peers): SecureSessions {
    const arena = this.#arena;
    return new SecureSessions({
      arena,
      aead: chooseAead(aeadProviders(arena), arena),
      lane: this.#place.index,
      counters: this.#counters,
      peers,
      post: (event) => this.#post(event),
      nowMs: () => performance.now(),
    });
  }

  /** Serves until told to stop. */
  run(): void {
    while (this.#running) {
      const ready = this.#epoll.wait(IDLE_MS);
      const nowMs = Date.now();
      this.#counters.add(WAKEUPS, 1);
      this.#events += ready;
      for (let index = 0; index < ready; index += 1) this.#serve(this.#epoll.token(index), nowMs);
      if (nowMs >= this.#nextSweepMs) this.#sweep(nowMs);
    }
    this.#epoll.close();
    this.#probes.close();
    this.#egress.close();
    this.#secure.close();
    this.#channel.close();
  }

  #startServing(): void {
    if (this.#isServing) return;
    this.#isServing = true;
    this.#epoll.add(this.#receiver.fd, TOKEN_UNDERLAY);
    for (const port of this.#tables.ports()) {
      if (port.isRead) this.#epoll.add(port.fd, port.id + TOKEN_PORTS);
    }
  }

  #serve(token: number, nowMs: number): void {
    if (token === TOKEN_UNDERLAY) this.#serveUnderlay(nowMs);
    else if (token === TOKEN_WAKE_UP) this.#serveControl();
    else {
      const port = this.#tables.port(token - TOKEN_PORTS);
      if (port !== undefined) this.#servePort(port, nowMs);
    }
  }

  #serveUnderlay(nowMs: number): void {
    // What a call has brought is in the arena: epoll would not tell of it again.
    for (let turn = 0; turn < this.#underlayBurst || this.#receiver.hasMore; turn += 1) {
      if (this.#ingress.receive(nowMs)) continue;
      this.#underlayBurst = Math.max(1, this.#underlayBurst >> 1);
      return;
    }
    this.#underlayBurst = Math.min(BURST_MAX >> 3, this.#underlayBurst * 2);
  }

  #servePort(port: Port, nowMs: number): void {
    let bytes = 0;
    let turn = 0;
    while (turn < port.burst && bytes <= BURST_BYTES_MAX) {
      const read = readAt(port.fd, this.#arena.base + this.#frame - VNET_HEADER_BYTES, READ_BYTES);
      if (read < 0) {
        if (errno() !== EAGAIN) this.#portGone(port);
        break;
      }
      this.#forward(port, read - VNET_HEADER_BYTES, nowMs);
      bytes += read;
      turn += 1;
    }
    this.#flush();
    if (turn < port.burst) port.burst = Math.max(1, port.burst >> 1);
    else port.burst = Math.min(BURST_MAX, port.burst * 2);
  }

  /** Sends what waits; then frames may be read over it. */
  #flush(): void {
    this.#egress.flush();
    this.#frame = this.#frames;
  }

  /** Keeps the frame that was read until the next flush. */
  #keepFrame(length: number): void {
    const used = HEADROOM_BYTES + length + FRAME_ALIGNMENT - 1;
    this.#frame += used - (used % FRAME_ALIGNMENT);
    if (this.#frame - this.#frames > WAITING_BYTES) this.#flush();
  }

  #forward(port: Port, length: number, nowMs: number): void {
    const { view } = this.#arena;
    const frame = this.#frame;
    this.#counters.add(FRAMES_IN, 1);
    if (length <= 0) {
      this.#counters.drop(RUNT);
      return;
    }
    this.#counters.add(BYTES_IN, length);
    if (this.#taps.active) {
      this.#taps.frame(CROSSING_PORT_IN, port.scope, port.id, frame, length);
    }
    const offload = this.#offload;
    readOffload(view, frame - VNET_HEADER_BYTES, offload);
    const decision = this.#switch.fromPort(port, frame, length, offload.needsChecksum, nowMs);
    switch (decision.action) {
      case 'port':
        if (decision.port !== undefined) this.#ports.write(decision.port, frame, length);
        return;
      case 'vtep': {
        if (decision.peer === undefined) return;
        const { packet } = this.#switch;
        const mtuBytes = this.#egress.send(packet, offload, decision.vni, decision.peer);
        if (mtuBytes === 0) this.#keepFrame(length);
        else this.#answer(port, this.#switch.tooBig(port, mtuBytes, nowMs));
        return;
      }
      case 'back':
        this.#answer(port, decision);
        return;
      case 'drop':
        this.#counters.drop(decision.drop);
        return;
    }
  }

  /** Gives the sender of a frame the answer that was made of it, if there is one. */
  #answer(port: Port, decision: Decision): void {
    if (decision.action !== 'back') {
      this.#counters.drop(decision.drop);
      return;
    }
    this.#ports.countAnswer(decision.answer);
    writePlain(this.#arena.view, decision.answerStart - VNET_HEADER_BYTES);
    this.#ports.write(port, decision.answerStart, decision.answerBytes);
  }

  /** The device has vanished under its descriptor: reading it again would spin. */
  #portGone(port: Port): void {
    this.#epoll.remove(port.fd);
    // All that read it see it at once: one of them says so.
    const isSpokesman = port.id % this.#place.count === this.#place.index;
    if (isSpokesman) this.#post({ kind: 'portGone', id: port.id });
  }

  #serveControl(): void {
    clearWakeUp(this.#arena, this.#wakeFd, this.#scratch);
    for (;;) {
      const received = receiveMessageOnPort(this.#channel);
      if (received === undefined) return;
      this.#handle(received.message as DataPlaneRequest);
    }
  }

  #handle(request: DataPlaneRequest): void {
    const { sequence } = request;
    switch (request.kind) {
      case 'stop':
        this.#running = false;
        this.#post({ kind: 'done', sequence });
        return;
      case 'serve':
        this.#startServing();
        this.#post({ kind: 'done', sequence });
        return;
      case 'status':
        this.#post({ kind: 'done', sequence, status: this.#tables.status() });
        return;
      case 'apply':
        try {
          this.#mesh.together(() => this.#apply(request.commands));
          this.#post({ kind: 'done', sequence });
        } catch (error) {
          const message = error instanceof Error ? error.message : String(error);
          this.#post({ kind: 'refused', sequence, message });
        }
        return;
    }
  }

  #apply(commands: readonly DataPlaneCommand[]): void {
    for (const command of commands) {
      if (isSecureCommand(command)) this.#secureControl.apply(command);
      else this.#tables.apply(command);
    }
  }

  #sweep(nowMs: number): void {
    this.#nextSweepMs = nowMs + IDLE_MS;
    if (this.#place.index === 0) this.#mesh.sweep(SWEEP_ENTRIES, nowMs);
    this.#counters.set(EVICTED, this.#mesh.evictions);
    this.#secure.sweep();
    // Packets make no garbage, but commands do.
    if (this.#events <= REST_EVENTS_MAX) collectIfDue(this.#heap, 0);
    this.#events = 0;
  }

  #post(event: DataPlaneEvent): void {
    this.#channel.postMessage(event);
  }
}

function makeMesh({
  flowFile,
  flowCapacity,
  hashKey,
  place,
  fragments,
}: DataPlaneWorkerData): Mesh {
  const memory = mapFile(flowFile, flowTableBytes(flowCapacity));
  return new Mesh({
    memory,
    capacity: flowCapacity,
    hashKey,
    release: (offset, bytes) => releaseMapped(memory, offset, bytes),
    sharing: sharingOf(place),
    fragments: new Uint8Array(fragments),
  });
}

/** The first thread makes the tables that the others find. */
function sharingOf({ index, count }: ThreadPlace): FlowSharing {
  if (count === 1) return 'alone';
  return index === 0 ? 'first' : 'further';
}
