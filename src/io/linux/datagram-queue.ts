import type { AddressWords } from '../../core/address-words.ts';
import { type Arena, IOVEC_BYTES } from './arena.ts';
import { EINTR, errno, sendmmsg, sendmsg } from './ffi.ts';
import {
  AF_INET,
  AF_INET6,
  CMSGHDR_BYTES,
  MMSGHDR_BYTES,
  MSG_CONTROL,
  MSG_CONTROL_LENGTH,
  MSG_IOV,
  MSG_IOV_COUNT,
  MSG_NAME_LENGTH,
  SOCKADDR_IN_BYTES,
  SOCKADDR_IN6_BYTES,
  SOL_UDP,
  UDP_PAYLOAD_BYTES_MAX,
  UDP_SEGMENT,
  UDP_SEGMENTS_MAX,
} from './udp-socket.ts';

/** Messages that wait at most; each is one datagram or a run of equal ones. */
const MESSAGES_MAX = 64;
/** Iovecs of all waiting messages. */
const IOVECS_MAX = 1024;
const NAME_BYTES = 32;
const CONTROL_BYTES = 32;
/** A control message with one 16-bit value, padded to 8 bytes. */
const SEGMENT_CONTROL_BYTES = CMSGHDR_BYTES + 8;

/** Where datagrams go. The same destination is the same object. */
export interface Destination {
  readonly words: AddressWords;
  readonly port: number;
}

/** Told about a send that the kernel took. */
export type SendReport = (destination: Destination, datagrams: number, bytes: number) => void;
/** Told about a send that the kernel refused. */
export type SendFailure = (destination: Destination, datagrams: number, error: number) => void;

/**
 * Datagrams that wait to leave through one socket. Consecutive ones of equal size to one destination
 * become one `UDP_SEGMENT` send (the last may be shorter, which ends the run), and all messages
 * leave by one `sendmmsg`. The bytes are not copied: they must stay until {@link DatagramQueue.flush}.
 */
export class DatagramQueue {
  readonly fd: number;
  /** What went out since the start, for the owner's counters. */
  sends = 0;
  datagrams = 0;
  bytes = 0;
  readonly #arena: Arena;
  readonly #isIpv6: boolean;
  readonly #onFailure: SendFailure;
  readonly #onSent: SendReport;
  readonly #messages: number;
  readonly #names: number;
  readonly #controls: number;
  readonly #iovecs: number;
  readonly #destinations: (Destination | undefined)[] = new Array(MESSAGES_MAX).fill(undefined);
  readonly #counts = new Int32Array(MESSAGES_MAX);
  readonly #sizes = new Int32Array(MESSAGES_MAX);
  #messageCount = 0;
  #iovecCount = 0;
  // The last message, to which more may be joined.
  #tail: Destination | undefined;
  #tailSegmentBytes = 0;
  #tailSegments = 0;
  #tailBytes = 0;
  #tailIovecs = 0;
  /** Where its last piece ends, and how long that is. */
  #tailEnd = 0;
  #tailLength = 0;

  /** @param isIpv6 - The family of the socket `fd`. */
  constructor(
    arena: Arena,
    fd: number,
    isIpv6: boolean,
    onFailure: SendFailure,
    onSent: SendReport = () => {},
  ) {
    this.#arena = arena;
    this.fd = fd;
    this.#isIpv6 = isIpv6;
    this.#onFailure = onFailure;
    this.#onSent = onSent;
    this.#messages = arena.allocate(MMSGHDR_BYTES * MESSAGES_MAX);
    this.#names = arena.allocate(NAME_BYTES * MESSAGES_MAX);
    this.#controls = arena.allocate(CONTROL_BYTES * MESSAGES_MAX);
    this.#iovecs = arena.allocate(IOVEC_BYTES * IOVECS_MAX);
    for (let index = 0; index < MESSAGES_MAX; index += 1) this.#prepare(index);
  }

  /** Queues the datagram in [start, start + length) of the arena. */
  add(destination: Destination, start: number, length: number): void {
    this.#begin(destination, length, 1);
    if (this.#tailIovecs > 0 && start === this.#tailEnd) this.#extendIovec(length);
    else this.#addIovec(start, length);
  }

  /** Queues one datagram that lies in two pieces. */
  addTwo(
    destination: Destination,
    first: number,
    firstBytes: number,
    second: number,
    secondBytes: number,
  ): void {
    this.#begin(destination, firstBytes + secondBytes, 2);
    this.#addIovec(first, firstBytes);
    this.#addIovec(second, secondBytes);
  }

  /** Sends all that waits. */
  flush(): void {
    const count = this.#messageCount;
    if (count === 0) return;
    this.#endTail();
    this.#messageCount = 0;
    this.#iovecCount = 0;
    if (count === 1) this.#sendOne(0);
    else this.#sendAll(count);
  }

  /** Makes room for a datagram of `bytes` in the last message or in a new one. */
  #begin(destination: Destination, bytes: number, iovecs: number): void {
    const joins =
      this.#tail === destination &&
      bytes <= this.#tailSegmentBytes &&
      this.#tailSegments < UDP_SEGMENTS_MAX &&
      this.#tailBytes + bytes <= UDP_PAYLOAD_BYTES_MAX &&
      this.#iovecCount + iovecs <= IOVECS_MAX;
    if (!joins) this.#beginMessage(destination, bytes, iovecs);
    this.#tailSegments += 1;
    this.#tailBytes += bytes;
    // A shorter datagram can only be the last of a run.
    if (bytes < this.#tailSegmentBytes) this.#tail = undefined;
  }

  #beginMessage(destination: Destination, bytes: number, iovecs: number): void {
    if (this.#messageCount === MESSAGES_MAX || this.#iovecCount + iovecs > IOVECS_MAX) this.flush();
    this.#endTail();
    const index = this.#messageCount++;
    this.#destinations[index] = destination;
    this.#writeName(this.#names + index * NAME_BYTES, destination);
    const vectors = this.#iovecs + this.#iovecCount * IOVEC_BYTES;
    this.#arena.setPointer(this.#messages + index * MMSGHDR_BYTES + MSG_IOV, vectors);
    this.#tail = destination;
    this.#tailSegmentBytes = bytes;
    this.#tailSegments = 0;
    this.#tailBytes = 0;
    this.#tailIovecs = 0;
  }

  /** Completes the header of the last message. */
  #endTail(): void {
    const index = this.#messageCount - 1;
    this.#tail = undefined;
    if (index < 0) return;
    const message = this.#messages + index * MMSGHDR_BYTES;
    const isRun = this.#tailSegments > 1;
    this.#arena.setSize(message + MSG_IOV_COUNT, this.#tailIovecs);
    this.#arena.setSize(message + MSG_CONTROL_LENGTH, isRun ? SEGMENT_CONTROL_BYTES : 0);
    if (isRun) {
      const at = this.#controls + index * CONTROL_BYTES + CMSGHDR_BYTES;
      this.#arena.view.setUint16(at, this.#tailSegmentBytes, true);
    }
    this.#counts[index] = this.#tailSegments;
    this.#sizes[index] = this.#tailBytes;
  }

  #addIovec(start: number, length: number): void {
    this.#arena.setIovec(this.#iovecs + this.#iovecCount * IOVEC_BYTES, start, length);
    this.#iovecCount += 1;
    this.#tailIovecs += 1;
    this.#tailEnd = start + length;
    this.#tailLength = length;
  }

  /** Adds what lies right behind the last piece to it. */
  #extendIovec(length: number): void {
    const vector = this.#iovecs + (this.#iovecCount - 1) * IOVEC_BYTES;
    this.#tailEnd += length;
    this.#tailLength += length;
    this.#arena.setSize(vector + 8, this.#tailLength);
  }

  #sendOne(index: number): void {
    const message = this.#arena.base + this.#messages + index * MMSGHDR_BYTES;
    this.sends += 1;
    if (sendmsg(this.fd, message, 0) < 0) this.#failed(index);
    else this.#sent(index);
  }

  #sendAll(count: number): void {
    let done = 0;
    while (done < count) {
      const messages = this.#arena.base + this.#messages + done * MMSGHDR_BYTES;
      this.sends += 1;
      const sent = sendmmsg(this.fd, messages, count - done, 0);
      for (let index = done; index < done + sent; index += 1) this.#sent(index);
      if (sent > 0) done += sent;
      else if (errno() !== EINTR) this.#failed(done++);
    }
  }

  #sent(index: number): void {
    const datagrams = this.#counts[index] ?? 0;
    const bytes = this.#sizes[index] ?? 0;
    this.datagrams += datagrams;
    this.bytes += bytes;
    const destination = this.#destinations[index];
    if (destination !== undefined) this.#onSent(destination, datagrams, bytes);
  }

  #failed(index: number): void {
    const destination = this.#destinations[index];
    if (destination !== undefined) this.#onFailure(destination, this.#counts[index] ?? 0, errno());
  }

  /** What never changes in a message. */
  #prepare(index: number): void {
    const { view } = this.#arena;
    const message = this.#messages + index * MMSGHDR_BYTES;
    const control = this.#controls + index * CONTROL_BYTES;
    this.#arena.setPointer(message, this.#names + index * NAME_BYTES);
    const nameBytes = this.#isIpv6 ? SOCKADDR_IN6_BYTES : SOCKADDR_IN_BYTES;
    view.setUint32(message + MSG_NAME_LENGTH, nameBytes, true);
    this.#arena.setPointer(message + MSG_CONTROL, control);
    this.#arena.setSize(control, CMSGHDR_BYTES + 2);
    view.setInt32(control + 8, SOL_UDP, true);
    view.setInt32(control + 12, UDP_SEGMENT, true);
    const family = this.#isIpv6 ? AF_INET6 : AF_INET;
    view.setUint16(this.#names + index * NAME_BYTES, family, true);
  }

  #writeName(name: number, destination: Destination): void {
    const { view } = this.#arena;
    const { words } = destination;
    view.setUint16(name + 2, destination.port);
    if (!this.#isIpv6) {
      view.setInt32(name + 4, words.w3);
      return;
    }
    view.setInt32(name + 8, words.w0);
    view.setInt32(name + 12, words.w1);
    view.setInt32(name + 16, words.w2);
    view.setInt32(name + 20, words.w3);
  }
}
