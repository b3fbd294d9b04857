import { createSocket, type RemoteInfo, type Socket as UdpSocket } from 'node:dgram';
import { once } from 'node:events';
import { connect, createServer, isIPv6, type Server, type Socket } from 'node:net';
import type { Clock, Log } from '../core/capabilities.ts';
import type {
  AskEffect,
  Effect,
  GossipEvent,
  PushPullEffect,
  StreamPingEffect,
} from '../gossip/effects.ts';
import type { Gossip } from '../gossip/gossip.ts';
import { formatPeer, type PeerAddress } from '../gossip/peer-address.ts';
import type { StreamMessage } from '../gossip/push-pull.ts';
import { REFUSALS } from '../gossip/stream-envelope.ts';
import { readStream, StreamBudget, type StreamFault } from './gossip-stream.ts';

/** Streams that others may have open here (memberlist `maxPushPullRequests`). */
const STREAMS_IN_MAX = 128;
/** Streams that this node has open to others. Our own bound. */
const STREAMS_OUT_MAX = 64;

/** What {@link GossipTransport} needs. */
export interface GossipTransportDeps {
  readonly gossip: Gossip;
  readonly clock: Clock;
  readonly log: Log;
}

/** Where a {@link GossipTransport} listens, and whom it tells. */
export interface GossipTransportOptions {
  /** Local address of the sockets; the gossip's own address by default. */
  readonly bindAddress?: string;
  /** Called for each event, in order, after the state has changed. Must not throw. */
  readonly onEvent: (event: GossipEvent) => void;
}

/**
 * The sockets and the timer of one {@link Gossip}: UDP and TCP on its port. Makes no decisions.
 * Whatever comes in, nothing is thrown: what cannot be used is counted and not answered.
 */
export class GossipTransport {
  readonly #gossip: Gossip;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #options: GossipTransportOptions;
  readonly #budget = new StreamBudget();
  /** BOUNDED: one entry per fault in the source. */
  readonly #counters = new Map<string, number>();
  /** BOUNDED by {@link STREAMS_IN_MAX}. */
  readonly #streamsIn = new Set<Socket>();
  /** By purpose and peer: one that hangs is not asked twice. BOUNDED by {@link STREAMS_OUT_MAX}. */
  readonly #streamsOut = new Map<string, Socket>();
  #udp: UdpSocket | undefined;
  #server: Server | undefined;
  #timer: NodeJS.Timeout | undefined;
  #timerAtMs = Number.POSITIVE_INFINITY;
  #left: Promise<void> | undefined;
  #onLeft: (() => void) | undefined;

  constructor(deps: GossipTransportDeps, options: GossipTransportOptions) {
    this.#gossip = deps.gossip;
    this.#clock = deps.clock;
    this.#log = deps.log;
    this.#options = options;
  }

  /**
   * Binds both sockets and starts the protocol.
   *
   * @throws {Error} if the address or port cannot be bound; then nothing stays open
   */
  async start(): Promise<void> {
    const { address, port } = this.#gossip.config;
    const host = this.#options.bindAddress ?? address;
    const udp = createSocket({ type: isIPv6(host) ? 'udp6' : 'udp4' });
    const server = createServer((socket) => this.#accept(socket));
    this.#udp = udp;
    this.#server = server;
    try {
      udp.bind(port, host);
      await once(udp, 'listening');
      server.listen(port, host);
      await once(server, 'listening');
    } catch (error) {
      await this.close();
      const cause = error instanceof Error ? error.message : String(error);
      throw new Error(`Cannot listen for gossip on ${host} port ${port}: ${cause}`, {
        cause: error,
      });
    }
    udp.on('message', (bytes, from) => this.#receive(bytes, from));
    udp.on('error', (error) => this.#fault('udp_socket', error));
    server.on('error', (error) => this.#fault('tcp_socket', error));
    this.#arm();
  }

  /** Once started: joins by `seeds`, and goes on trying while no other member is known. */
  join(seeds: readonly PeerAddress[]): void {
    this.#perform(this.#gossip.join(seeds, this.#clock.nowMs()));
  }

  /** Tells the others of changes of this node's own record, a little later at the latest. */
  announce(): void {
    this.#perform(this.#gossip.announce(this.#clock.nowMs()));
  }

  /** Tells the others that this node leaves; resolves when it has been said often enough. */
  leave(): Promise<void> {
    if (this.#left === undefined) {
      this.#left = new Promise((resolve) => {
        this.#onLeft = resolve;
      });
      this.#perform(this.#gossip.leave(this.#clock.nowMs()));
    }
    return this.#left;
  }

  /** Ends all exchanges and frees the port. May be called at any time, also twice. */
  async close(): Promise<void> {
    clearTimeout(this.#timer);
    const { udp, server } = { udp: this.#udp, server: this.#server };
    this.#udp = undefined;
    this.#server = undefined;
    for (const socket of [...this.#streamsIn, ...this.#streamsOut.values()]) socket.destroy();
    this.#onLeft?.();
    await Promise.all([
      new Promise<void>((resolve) => (udp === undefined ? resolve() : udp.close(resolve))),
      new Promise<void>((resolve) =>
        server?.listening ? server.close(() => resolve()) : resolve(),
      ),
    ]);
  }

  /** What was dropped or failed, by reason: the protocol's counters and the sockets'. */
  counters(): Record<string, number> {
    return { ...this.#gossip.counters(), ...Object.fromEntries(this.#counters) };
  }

  #receive(bytes: Uint8Array, { address, port }: RemoteInfo): void {
    this.#perform(this.#gossip.packet(bytes, { address, port }, this.#clock.nowMs()));
  }

  #perform(effects: readonly Effect[]): void {
    for (const effect of effects) {
      if (effect.kind === 'send') this.#send(effect.to, effect.bytes);
      else if (effect.kind === 'event') this.#report(effect.event);
      else if (effect.kind === 'pushPull') void this.#pushPull(effect);
      else if (effect.kind === 'ask') void this.#ask(effect);
      else void this.#streamPing(effect);
    }
    this.#arm();
  }

  #report(event: GossipEvent): void {
    if (event.kind === 'leaveFinished') this.#onLeft?.();
    this.#options.onEvent(event);
  }

  #send(to: PeerAddress, bytes: Uint8Array): void {
    // A send that fails is a lost packet, which the protocol expects.
    this.#udp?.send(bytes, to.port, to.address, (error) => {
      if (error !== null) this.#count('udp_send');
    });
  }

  /** Keeps the one timer at the machine's next deadline. */
  #arm(): void {
    if (this.#udp === undefined) return;
    const atMs = this.#gossip.nextDeadlineMs();
    if (atMs >= this.#timerAtMs) return; // an early tick does no harm
    clearTimeout(this.#timer);
    this.#timerAtMs = atMs;
    const delayMs = Math.ceil(Math.max(0, atMs - this.#clock.nowMs()));
    this.#timer = setTimeout(() => this.#tick(), delayMs);
  }

  #tick(): void {
    this.#timerAtMs = Number.POSITIVE_INFINITY;
    this.#perform(this.#gossip.tick(this.#clock.nowMs()));
  }

  async #pushPull(effect: PushPullEffect): Promise<void> {
    const { streamTimeoutMs } = this.#gossip.tuning;
    const answer = await this.#exchange(effect.purpose, effect, streamTimeoutMs);
    if (answer?.kind === 'pushPull') {
      this.#perform(this.#gossip.pushPullReply(effect, answer, this.#clock.nowMs()));
    } else if (answer !== undefined) this.#count('stream_unexpected');
  }

  async #ask(effect: AskEffect): Promise<void> {
    const answer = await this.#exchange('ask', effect, this.#gossip.tuning.streamTimeoutMs);
    if (answer?.kind === 'user') {
      this.#perform(this.#gossip.answered(effect, answer.payload, this.#clock.nowMs()));
      return;
    }
    this.#gossip.unanswered(effect);
    if (answer !== undefined) this.#count('stream_unexpected');
  }

  async #streamPing(effect: StreamPingEffect): Promise<void> {
    const answer = await this.#exchange('ping', effect, effect.timeoutMs);
    if (answer?.kind === 'ack' && answer.sequence === effect.sequence) {
      this.#count('udp_probe_failed_tcp_worked');
      this.#perform(this.#gossip.streamAck(effect.sequence, this.#clock.nowMs()));
    } else if (answer !== undefined) this.#count('stream_unexpected');
  }

  /**
   * Writes a message to another node, and reads the answer.
   *
   * @param kind - One exchange of a kind is under way with a peer at a time.
   * @returns undefined if there is none of use; then that is counted
   */
  async #exchange(
    kind: string,
    { to, bytes }: { readonly to: PeerAddress; readonly bytes: Uint8Array },
    timeoutMs: number,
  ): Promise<StreamMessage | undefined> {
    const key = `${kind} ${formatPeer(to)}`;
    const socket = this.#open(key, to);
    if (socket === undefined) return undefined;
    const { wire } = this.#gossip;
    socket.write(wire.sealStream(bytes, 'request'));
    const reader = wire.streamReader('reply');
    const answer = await readStream(socket, { reader, timeoutMs, budget: this.#budget });
    this.#end(socket, key);
    if (this.#udp === undefined) return undefined;
    if (typeof answer === 'string') this.#streamFault(answer, to);
    else if (answer.kind === 'error') {
      this.#count('stream_refused');
      this.#log.warn({ peer: formatPeer(to), reason: answer.text }, 'peer refused an exchange');
    } else return answer;
    return undefined;
  }

  #open(key: string, to: PeerAddress): Socket | undefined {
    if (this.#udp === undefined) return undefined;
    if (this.#streamsOut.has(key) || this.#streamsOut.size >= STREAMS_OUT_MAX) {
      this.#count('streams_out_full');
      return undefined;
    }
    const socket = connect({ host: to.address, port: to.port });
    this.#streamsOut.set(key, socket);
    socket.on('close', () => this.#end(socket, key));
    socket.on('error', () => {}); // 'close' follows, and ends the exchange
    return socket;
  }

  /** Ends an exchange: the next one of its kind may start at once. */
  #end(socket: Socket, key: string): void {
    if (this.#streamsOut.get(key) === socket) this.#streamsOut.delete(key);
    socket.destroy();
  }

  #accept(socket: Socket): void {
    if (this.#streamsIn.size >= STREAMS_IN_MAX) {
      this.#count('streams_in_full');
      socket.destroy();
      return;
    }
    this.#streamsIn.add(socket);
    socket.on('close', () => this.#streamsIn.delete(socket));
    socket.on('error', () => {}); // 'close' follows
    void this.#serve(socket);
  }

  async #serve(socket: Socket): Promise<void> {
    const { wire, tuning } = this.#gossip;
    const timeoutMs = tuning.streamTimeoutMs;
    const peer = { address: socket.remoteAddress ?? '', port: socket.remotePort ?? 0 };
    const reader = wire.streamReader('request');
    const keepRefused = (reason: StreamFault): boolean => REFUSALS.has(reason);
    const budget = this.#budget;
    const request = await readStream(socket, { reader, timeoutMs, budget, keepRefused });
    if (this.#udp === undefined) return;
    if (typeof request === 'string') this.#streamFault(request, peer);
    const reply =
      typeof request === 'string' ? wire.refusal(request) : this.#replyTo(request, peer);
    if (reply === undefined) {
      socket.destroy();
      return;
    }
    // The peer may take as long to read as it had to write.
    const timer = setTimeout(() => socket.destroy(), timeoutMs);
    socket.on('close', () => clearTimeout(timer));
    socket.resume();
    socket.end(reply);
  }

  /** What to write back, layers on; undefined if it is nothing. */
  #replyTo(request: StreamMessage, { address }: PeerAddress): Uint8Array | undefined {
    const gossip = this.#gossip;
    const nowMs = this.#clock.nowMs();
    let reply: Uint8Array | undefined;
    if (request.kind === 'ping') reply = gossip.streamPong(request);
    else if (request.kind === 'user') {
      // Who sent it is not said: the nodes of a cluster mostly have the same port.
      const from = { address, port: gossip.config.port };
      const taken = gossip.streamUser(request.payload, from, nowMs);
      this.#perform(taken.effects);
      if (taken.reply === undefined) return undefined;
      reply = taken.reply;
    } else if (request.kind === 'pushPull') {
      const answer = gossip.pushPullRequest(request, nowMs);
      this.#perform(answer.effects);
      reply = answer.reply;
    }
    if (reply === undefined) this.#count('stream_unexpected');
    return reply === undefined ? undefined : gossip.wire.sealStream(reply, 'reply');
  }

  #streamFault(reason: string, to: PeerAddress): void {
    this.#count(`stream_${reason.replaceAll('-', '_')}`);
    this.#log.debug({ peer: formatPeer(to), reason }, 'gossip stream gave no message');
  }

  #fault(name: string, error: Error): void {
    this.#count(name);
    this.#log.warn({ error: error.message }, 'gossip socket failed');
  }

  #count(name: string): void {
    this.#counters.set(name, (this.#counters.get(name) ?? 0) + 1);
  }
}
