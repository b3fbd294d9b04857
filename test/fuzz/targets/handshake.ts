// What anyone may send to the VXLAN port of a node with encrypted networks.
import { NODE_NOISE_CRYPTO as crypto } from '../../../src/io/noise-crypto.ts';
import { CookieJar } from '../../../src/noise/cookie.ts';
import {
  COOKIE_REPLY_BYTES,
  decodeHandshake,
  encodeCookieReply,
  encodeInitiation,
  encodeResponse,
  type HandshakeMessage,
  INITIATION_BYTES,
  MAC_BYTES,
  MESSAGE_COOKIE_REPLY,
  MESSAGE_INITIATION,
  RESPONSE_BYTES,
} from '../../../src/noise/messages.ts';
import { seededRandom } from '../../support/gossip-sim.ts';
import { NoiseSim, type SimNode } from '../../support/noise-sim.ts';
import { type FuzzTarget, require } from '../target.ts';

const STRANGER = { address: 0xcb00_7109, port: 4789 };
/** The size of each kind of message, by its first byte; 0: there is no such kind. */
const SIZES = [0, INITIATION_BYTES, RESPONSE_BYTES, COOKIE_REPLY_BYTES];

const sim = new NoiseSim(2);
const [node] = sim.nodes as [SimNode, SimNode];
const macs = new CookieJar(
  { crypto, clock: sim.clock, random: seededRandom(1) },
  node.keys.publicKey,
);

function encode(message: HandshakeMessage): Uint8Array {
  switch (message.type) {
    case MESSAGE_INITIATION:
      return encodeInitiation(message.sender, message.noise);
    case MESSAGE_COOKIE_REPLY:
      return encodeCookieReply(message.receiver, message.nonce, message.sealedCookie);
    default:
      return encodeResponse(message.sender, message.receiver, message.noise);
  }
}

/** What a message says, without its three reserved bytes and its MACs. */
function said(message: HandshakeMessage | undefined): string {
  return JSON.stringify(message, (_, field: unknown) =>
    field instanceof Uint8Array ? Buffer.from(field).toString('hex') : field,
  );
}

/** Handshake messages: with the MAC that anyone can make, so that what is behind it is reached. */
export const handshakes: FuzzTarget = {
  name: 'handshakes',
  bytesMax: 256,
  dictionary: SIZES.map((_, kind) => Uint8Array.of(kind, 0, 0, 0)),
  seeds: () =>
    SIZES.map((size, kind) => Uint8Array.of(kind, ...new Uint8Array(Math.max(0, size - 1)))),
  run(input) {
    const message = decodeHandshake(input);
    if (message === undefined) return { kind: 'none', detail: '' };
    const detail = said(message);
    require(said(decodeHandshake(encode(message))) ===
      detail, 'it is written so that it reads the same');
    const kinds = [receive(input)];
    if (message.type !== MESSAGE_COOKIE_REPLY && input.length > 2 * MAC_BYTES) {
      const signed = Uint8Array.from(input);
      macs.addMacs(signed);
      kinds.push(receive(signed));
    }
    return { kind: kinds.join(), detail: `${detail} ${kinds.join()}` };
  },
};

/** Why the node refuses it: nothing that a stranger makes up begins a session. */
function receive(bytes: Uint8Array): string {
  sim.advance(1_000); // slowly enough for a node that is not under load
  const effects = node.channels.receive(STRANGER, bytes);
  require(effects.every(
    ({ kind }) => kind === 'drop',
  ), `a stranger is only refused, not ${effects.map(({ kind }) => kind).join()}`);
  return effects.map((effect) => (effect.kind === 'drop' ? effect.reason : effect.kind)).join();
}
