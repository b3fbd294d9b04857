import { AddressWords } from '../core/address-words.ts';
import { type Ip, isIpv6 } from '../core/ip.ts';
import { TokenBucket } from '../core/token-bucket.ts';
import type { Arena } from '../io/linux/arena.ts';
import { DatagramQueue, type Destination } from '../io/linux/datagram-queue.ts';
import { close } from '../io/linux/ffi.ts';
import { kernelPathMtu, openUdp } from '../io/linux/udp-socket.ts';
import {
  answerProbe,
  PROBE_BYTES_MAX,
  PROBE_HEADER_BYTES,
  PROBE_KIND,
  PROBE_REPLY_KIND,
  readProbeReply,
  writeProbe,
} from '../vxlan/path-probe.ts';
import type { DataPlaneCommand, PathEvent } from './commands.ts';
import type { Peer, Peers } from './peers.ts';

/** Probes that are answered: those of a thousand peers that all search at once, and some. */
const ANSWERS_PER_SECOND = 4_000;
const ANSWERS_BURST = 400;
/** How often the control thread is told that packets to one peer are too large. */
const REFUSAL_INTERVAL_MS = 100;
/** An answer that took longer is no measurement. */
const RTT_US_MAX = 60_000_000;

type ProbeCommand = Extract<DataPlaneCommand, { readonly kind: 'probe' }>;

/** What {@link PathProbes} works with. */
export interface PathProbesDeps {
  readonly arena: Arena;
  readonly peers: Peers;
  /** This node's VTEP address: other nodes answer no one else. */
  readonly address: Ip;
  /** Tells the control thread. */
  readonly post: (event: PathEvent) => void;
}

/**
 * The packet thread's part in path MTU discovery: it sends the probes that the control thread orders, times
 * their answers, and answers those of other nodes.
 */
export class PathProbes {
  readonly #deps: PathProbesDeps;
  readonly #queue: DatagramQueue;
  readonly #buffer: number;
  readonly #answers = new TokenBucket(ANSWERS_PER_SECOND, ANSWERS_BURST);

  constructor(deps: PathProbesDeps) {
    this.#deps = deps;
    const { arena, address } = deps;
    // A probe that the interface does not take is lost: that, too, is an answer.
    const fd = openUdp(address, 0, { oversize: 'tried' });
    this.#queue = new DatagramQueue(arena, fd, isIpv6(address), () => {});
    this.#buffer = arena.allocate(PROBE_BYTES_MAX);
  }

  /** Sends a probe now. */
  send({ to, sequence, nonce, sizeBytes }: ProbeCommand): void {
    const { arena, peers } = this.#deps;
    const peer = peers.find(AddressWords.of(to));
    if (peer?.isKnown !== true) return;
    writeProbe(arena.view, this.#buffer, { sizeBytes, sequence, nonce, sentUs: nowUs() });
    this.#queue.add(peer, this.#buffer, sizeBytes);
    this.#queue.flush();
  }

  /**
   * Takes a datagram that is no VXLAN.
   *
   * @returns whether it is a probe or an answer to one
   */
  receive(peer: Peer, offset: number, length: number, nowMs: number): boolean {
    if (length < PROBE_HEADER_BYTES) return false;
    switch (this.#deps.arena.view.getUint8(offset)) {
      case PROBE_KIND:
        return this.#answer(peer, offset, length, nowMs);
      case PROBE_REPLY_KIND:
        return this.#report(peer, offset, length);
      default:
        return false;
    }
  }

  /** The kernel refused to send to `destination`: what it sends there at most is told. */
  refused(destination: Destination, nowMs: number): void {
    const peer = this.#deps.peers.find(destination.words);
    if (peer === undefined || nowMs - peer.refusedMs < REFUSAL_INTERVAL_MS) return;
    peer.refusedMs = nowMs;
    const limitBytes = kernelPathMtu(peer.address);
    const limit = limitBytes === undefined ? {} : { limitBytes };
    this.#deps.post({ kind: 'pathTooBig', to: peer.address, ...limit });
  }

  close(): void {
    close(this.#queue.fd);
  }

  #answer(peer: Peer, offset: number, length: number, nowMs: number): boolean {
    const bytes = answerProbe(this.#deps.arena.view, offset, length);
    if (bytes === 0) return false;
    if (this.#answers.take(nowMs)) {
      this.#queue.add(peer, offset, bytes);
      this.#queue.flush();
    }
    return true;
  }

  #report(peer: Peer, offset: number, length: number): boolean {
    const reply = readProbeReply(this.#deps.arena.view, offset, length);
    if (reply === undefined) return false;
    const { nonce, sizeBytes, sentUs } = reply;
    const rttUs = Number(nowUs() - sentUs);
    if (rttUs >= 0 && rttUs <= RTT_US_MAX) {
      this.#deps.post({ kind: 'probeReply', from: peer.address, nonce, sizeBytes, rttUs });
    }
    return true;
  }
}

/** The machine's monotonic clock, the same on all threads. */
function nowUs(): bigint {
  return process.hrtime.bigint() / 1000n;
}
