import { AddressWords } from '../core/address-words.ts';
import type { Arena } from '../io/linux/arena.ts';
import type { DatagramQueue, Destination } from '../io/linux/datagram-queue.ts';
import type { SecureCommand, ThreadPlace } from './commands.ts';
import type { Egress } from './egress.ts';
import type { Peers } from './peers.ts';
import type { SecureSessions } from './secure-sessions.ts';

/** Longest datagram that the control thread sends through the packet thread: an initiation and more. */
const DATAGRAM_BYTES_MAX = 1_500;

/** What {@link SecureControl} works with. */
export interface SecureControlDeps {
  readonly arena: Arena;
  readonly peers: Peers;
  readonly sessions: SecureSessions;
  readonly egress: Egress;
  /** Sends from the port that the other nodes know: handshakes come back to where they came from. */
  readonly queue: DatagramQueue;
  /** The first of the packet threads sends what one of them must send. */
  readonly place: ThreadPlace;
}

/** Carries out what the control thread says about encrypted channels. */
export class SecureControl {
  readonly #deps: SecureControlDeps;
  readonly #datagram: number;

  constructor(deps: SecureControlDeps) {
    this.#deps = deps;
    this.#datagram = deps.arena.allocate(DATAGRAM_BYTES_MAX);
  }

  /** @throws {RangeError} if a datagram is too long */
  apply(command: SecureCommand): void {
    const { egress, peers, place, sessions } = this.#deps;
    switch (command.kind) {
      case 'installSession': {
        const peer = sessions.install(command);
        egress.sendWaiting(peer);
        return;
      }
      case 'confirmSession': {
        const peer = sessions.confirm(command.localIndex);
        if (peer !== undefined) egress.sendWaiting(peer);
        return;
      }
      case 'removeSession':
        sessions.remove(command.localIndex);
        return;
      case 'sendKeepalive': {
        const peer = peers.find(AddressWords.of(command.vtep));
        if (place.index === 0 && peer !== undefined) egress.sendKeepalive(peer);
        return;
      }
      case 'movePeer':
        sessions.move(command.vtep, command.address, command.port);
        return;
      case 'sendDatagram':
        if (place.index === 0) {
          this.#send(command.bytes, { words: AddressWords.of(command.to), port: command.port });
        }
        return;
    }
  }

  #send(bytes: Uint8Array, to: Destination): void {
    if (bytes.length > DATAGRAM_BYTES_MAX) {
      throw new RangeError(
        `Cannot send a datagram of ${bytes.length} bytes: expected ${DATAGRAM_BYTES_MAX} at most`,
      );
    }
    const { arena, queue } = this.#deps;
    arena.bytes.set(bytes, this.#datagram);
    queue.add(to, this.#datagram, bytes.length);
    queue.flush();
  }
}

/** Whether `command` is one for {@link SecureControl}. */
export function isSecureCommand(command: { readonly kind: string }): command is SecureCommand {
  return SECURE_KINDS.has(command.kind);
}

const SECURE_KINDS: ReadonlySet<string> = new Set<SecureCommand['kind']>([
  'installSession',
  'confirmSession',
  'removeSession',
  'sendKeepalive',
  'movePeer',
  'sendDatagram',
]);
