import type { Peer } from './peers.ts';
import type { Port } from './port.ts';

/**
 * Where a frame goes:
 * - `port`: to {@link Decision.port}
 * - `vtep`: to {@link Decision.peer}, under {@link Decision.vni}
 * - `back`: the frame has become the answer to its sender (see {@link Decision.answer})
 * - `drop`: nowhere, for {@link Decision.drop}
 */
export type Action = 'port' | 'vtep' | 'back' | 'drop';

/** What the agent answers itself: ARP, Neighbor Discovery, a ping, a refused TCP connection, a packet too big. */
export type Answer = 'arp' | 'nd' | 'echo' | 'reset' | 'too-big';

/** What to do with a frame. Reused: each decision overwrites the last one. */
export class Decision {
  action: Action = 'drop';
  port: Port | undefined = undefined;
  vni = 0;
  peer: Peer | undefined = undefined;
  /** Index for {@link Counters.drop}. */
  drop = 0;
  /** What the answer is, when the action is `back`. */
  answer: Answer = 'arp';
  /** Start and length of the answer: it may lie elsewhere than the frame that it answers. */
  answerStart = 0;
  answerBytes = 0;

  toPort(port: Port): this {
    this.action = 'port';
    this.port = port;
    return this;
  }

  toPeer(vni: number, peer: Peer | undefined): this {
    this.action = 'vtep';
    this.vni = vni;
    this.peer = peer;
    return this;
  }

  toSender(answer: Answer, start: number, bytes: number): this {
    this.action = 'back';
    this.answer = answer;
    this.answerStart = start;
    this.answerBytes = bytes;
    return this;
  }

  /** @param reason - Index for {@link Counters.drop}. */
  toNowhere(reason: number): this {
    this.action = 'drop';
    this.drop = reason;
    return this;
  }
}
