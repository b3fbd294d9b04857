import { readFileSync } from 'node:fs';
import { test } from 'tap';
import { NODE_NOISE_CRYPTO as crypto } from '../../src/io/noise-crypto.ts';
import {
  type HandshakeIdentity,
  InitiatorHandshake,
  ResponderHandshake,
} from '../../src/noise/handshake.ts';
import { aesGcmNonce } from '../../src/noise/symmetric-state.ts';

interface Vector {
  readonly source: string;
  readonly init_prologue: string;
  readonly init_static: string;
  readonly init_ephemeral: string;
  readonly init_remote_static: string;
  readonly resp_prologue: string;
  readonly resp_static: string;
  readonly resp_ephemeral: string;
  readonly handshake_hash?: string;
  readonly messages: readonly { readonly payload: string; readonly ciphertext: string }[];
}

const bytes = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex, 'hex'));
const hex = (data: Uint8Array | undefined): string => Buffer.from(data ?? []).toString('hex');
const { vectors } = JSON.parse(
  readFileSync(new URL('vectors/noise-ik.json', import.meta.url), 'utf8'),
) as { readonly vectors: readonly Vector[] };

function identity(privateKey: string, prologue: string): HandshakeIdentity {
  return { crypto, staticKeys: crypto.keyPair(bytes(privateKey)), prologue: bytes(prologue) };
}

for (const vector of vectors) {
  test(`Noise_IK_25519_AESGCM_SHA256 as in ${vector.source}`, (t) => {
    const [first, second, ...transport] = vector.messages;
    const initiator = InitiatorHandshake.start(
      identity(vector.init_static, vector.init_prologue),
      bytes(vector.init_remote_static),
      crypto.keyPair(bytes(vector.init_ephemeral)),
      bytes(first!.payload),
    );
    t.equal(hex(initiator?.message), first!.ciphertext, 'message 1');

    const responder = ResponderHandshake.read(
      identity(vector.resp_static, vector.resp_prologue),
      bytes(first!.ciphertext),
    );
    const initiatorKey = crypto.keyPair(bytes(vector.init_static)).publicKey;
    t.same(responder?.remoteKey, initiatorKey, 'the responder learns who it is');
    t.equal(hex(responder?.openPayload()), first!.payload, 'payload 1');

    const ephemeral = crypto.keyPair(bytes(vector.resp_ephemeral));
    const response = responder?.respond(ephemeral, bytes(second!.payload));
    t.equal(hex(response?.message), second!.ciphertext, 'message 2');
    const finished = initiator?.finish(bytes(second!.ciphertext));
    t.equal(hex(finished?.payload), second!.payload, 'payload 2');

    t.same(finished?.keys.sendKey, response?.keys.receiveKey);
    t.same(finished?.keys.receiveKey, response?.keys.sendKey);
    t.same(finished?.keys.handshakeHash, response?.keys.handshakeHash);
    if (vector.handshake_hash) t.equal(hex(finished?.keys.handshakeHash), vector.handshake_hash);
    for (const [index, { payload, ciphertext }] of transport.entries()) {
      // The initiator sends first, then they take turns, each with its own key and counter.
      const key = (index % 2 === 0 ? finished : response)!.keys.sendKey;
      const nonce = aesGcmNonce(index >> 1);
      const sealed = crypto.seal(key, nonce, new Uint8Array(), bytes(payload));
      t.equal(hex(sealed), ciphertext, `transport message ${index}`);
      t.equal(hex(crypto.open(key, nonce, new Uint8Array(), sealed)), payload);
    }
    t.end();
  });
}

test('there are vectors of two independent implementations', (t) => {
  t.equal(new Set(vectors.map(({ source }) => source.split('/')[3])).size, 2);
  t.end();
});

/** A handshake between fresh nodes: both sides, and message 2. */
function exchange(prologues: readonly [string, string] = ['', '']) {
  const alice = { crypto, staticKeys: crypto.generateKeyPair(), prologue: bytes(prologues[0]) };
  const bob = { crypto, staticKeys: crypto.generateKeyPair(), prologue: bytes(prologues[1]) };
  const payload = bytes('0102');
  const remote = bob.staticKeys.publicKey;
  const initiator = InitiatorHandshake.start(alice, remote, crypto.generateKeyPair(), payload)!;
  return { alice, bob, initiator };
}

test('a message 1 is refused wherever one bit of it is wrong', (t) => {
  const { bob, initiator } = exchange();
  for (let index = 0; index < initiator.message.length; index += 1) {
    const forged = initiator.message.slice();
    forged[index]! ^= 1 << (index % 7); // X25519 ignores the top bit of a key
    const read = ResponderHandshake.read(bob, forged);
    t.equal(read?.openPayload(), undefined, `byte ${index}`);
  }
  t.end();
});

test('a message 2 is refused wherever one bit is wrong, and the true one is taken afterwards', (t) => {
  const { bob, initiator } = exchange();
  const responder = ResponderHandshake.read(bob, initiator.message)!;
  responder.openPayload();
  const { message } = responder.respond(crypto.generateKeyPair(), new Uint8Array())!;
  for (let index = 0; index < message.length; index += 1) {
    const forged = message.slice();
    forged[index]! ^= 1 << (index % 7);
    t.equal(initiator.finish(forged), undefined, `byte ${index}`);
  }
  t.ok(initiator.finish(message));
  t.end();
});

test('ends with different prologues do not understand each other', (t) => {
  const { bob, initiator } = exchange(['01', '02']);
  t.equal(ResponderHandshake.read(bob, initiator.message), undefined);
  t.end();
});

test('keys that nobody can own are refused', (t) => {
  const { alice, bob, initiator } = exchange();
  const payload = new Uint8Array();
  for (const low of [new Uint8Array(32), Uint8Array.of(1, ...new Uint8Array(31))]) {
    const own = crypto.generateKeyPair();
    t.equal(InitiatorHandshake.start(alice, low, own, payload), undefined);
    const forged = initiator.message.slice();
    forged.set(low);
    t.equal(ResponderHandshake.read(bob, forged), undefined);
  }
  t.end();
});

test('messages that are too short are refused', (t) => {
  const { bob, initiator } = exchange();
  for (const length of [0, 1, 31, 32, 79, 95]) {
    t.equal(ResponderHandshake.read(bob, initiator.message.subarray(0, length)), undefined);
  }
  for (const length of [0, 32, 47]) t.equal(initiator.finish(new Uint8Array(length)), undefined);
  t.end();
});
