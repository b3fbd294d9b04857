import { type Assignments, changeBetween, completeSet } from './assignments.ts';
import type { NodeRecord } from './records.ts';
import type { LogSessionMessage, SessionMessage } from './session-protocol.ts';

/** Messages that wait for a slow reader; later changes are merged until it has caught up. */
const QUEUED_MESSAGES_MAX = 4;
/** Messages that may wait besides: one for each log of this node that people ask for at one time. */
const TOLD_MESSAGES_MAX = 500;

/** A message before it has its place in the stream. */
type Unnumbered<M> = M extends unknown ? Omit<M, 'sequence'> : never;

/** Whose session it is, and where its contents come from. */
export interface SessionOptions {
  readonly node: NodeRecord;
  readonly clusterId: string;
  /** What the node must know now; read whenever something is sent. */
  readonly assignments: () => Assignments;
  /** Called once: when the reader goes away, or when {@link Session.end} is called. */
  readonly onEnd: () => void;
}

/**
 * The stream of one node's session: newline-delimited {@link SessionMessage}. The complete set comes
 * first, then what changed since the message before. Memory is BOUNDED: while the reader is slow
 * no change is queued, and one later says what all of them would have said.
 */
export class Session {
  readonly stream: ReadableStream<Uint8Array>;
  readonly #options: SessionOptions;
  readonly #encoder = new TextEncoder();
  #controller: ReadableStreamDefaultController<Uint8Array> | undefined;
  #sent: Assignments;
  #sequence = 0;
  #isBehind = false;

  constructor(options: SessionOptions) {
    this.#options = options;
    this.#sent = options.assignments();
    const source = {
      start: (controller: ReadableStreamDefaultController<Uint8Array>) => {
        this.#controller = controller;
        const { node, clusterId } = options;
        this.#send({ kind: 'complete', assignments: completeSet(this.#sent, node, clusterId) });
      },
      pull: () => {
        if (this.#isBehind) this.update();
      },
      cancel: () => {
        this.#controller = undefined;
        options.onEnd();
      },
    };
    this.stream = new ReadableStream(source, { highWaterMark: QUEUED_MESSAGES_MAX });
  }

  /** Sends what changed since the last message, now or once the reader has caught up. */
  update(): void {
    if (this.#controller === undefined) return;
    this.#isBehind = (this.#controller.desiredSize ?? 0) <= 0;
    if (this.#isBehind) return;
    const next = this.#options.assignments();
    const change = changeBetween(this.#sent, next);
    this.#sent = next;
    if (change !== undefined) this.#send({ kind: 'change', change });
  }

  /** Shows that the connection is alive; a reader that is behind has that proof already. */
  ping(): void {
    if ((this.#controller?.desiredSize ?? 0) > 0) this.#send({ kind: 'ping' });
  }

  /**
   * Sends what no later message would say.
   *
   * @returns false if that cannot be done: the session has ended, or its reader is far behind
   */
  tell(message: LogSessionMessage): boolean {
    if ((this.#controller?.desiredSize ?? -Infinity) <= -TOLD_MESSAGES_MAX) return false;
    this.#send(message);
    return true;
  }

  /**
   * Ends the stream.
   *
   * @param reason - What the node is told; nothing if it should just open another session.
   */
  end(reason?: 'superseded' | 'removed'): void {
    if (this.#controller === undefined) return;
    if (reason !== undefined) this.#send({ kind: reason });
    this.#controller.close();
    this.#controller = undefined;
    this.#options.onEnd();
  }

  #send(message: Unnumbered<SessionMessage>): void {
    const line = JSON.stringify({ ...message, sequence: this.#sequence });
    this.#sequence += 1;
    this.#controller?.enqueue(this.#encoder.encode(`${line}\n`));
  }
}
