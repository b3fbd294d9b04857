import { gcm } from '@noble/ciphers/aes.js';
import fc from 'fast-check';
import { type Test, test } from 'tap';
import { Gossip } from '../../src/gossip/gossip.ts';
import { KEYS_MAX, Keyring, KeyringError } from '../../src/gossip/keyring.ts';
import { type GossipCipher, open, seal, sealedBytes } from '../../src/gossip/sealing.ts';
import { NodeGossipCipher } from '../../src/io/gossip-cipher.ts';
import { seededRandom } from '../support/gossip-sim.ts';

const bytes = (...values: number[]): Uint8Array => Uint8Array.from(values);
const filled = (length: number, value: number): Uint8Array => new Uint8Array(length).fill(value);
// The keys of memberlist's keyring_test.go.
const KEY_1 = bytes(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
const KEY_2 = bytes(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
const KEY_3 = bytes(8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
const PLAINTEXT = new TextEncoder().encode('this is a plain text message');
const EXTRA = new TextEncoder().encode('random data');
const NONCE = bytes(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12);
const cipher = new NodeGossipCipher();
const oracle: GossipCipher = {
  seal: (key, nonce, plaintext, data) => gcm(key, nonce, data).encrypt(plaintext),
  open(key, nonce, sealed, data) {
    try {
      return gcm(key, nonce, data).decrypt(sealed);
    } catch {
      return undefined;
    }
  },
};

function refuses(t: Test, act: () => void, code: string): void {
  try {
    act();
    t.fail(`not refused with ${code}`);
  } catch (error) {
    if (!(error instanceof KeyringError)) throw error;
    t.equal(error.detail.code, code);
    t.match(error.message, /^Cannot .*expected/);
  }
}

test('a keyring installs, uses and removes keys as memberlist does', (t) => {
  t.same(new Keyring().keys, []);
  t.equal(new Keyring().primary, undefined);
  t.same(new Keyring([KEY_2, KEY_1, KEY_2, KEY_3]).keys, [KEY_2, KEY_1, KEY_3], 'each key once');
  const ring = new Keyring([KEY_2]);
  refuses(t, () => ring.use(KEY_3), 'KEY_UNKNOWN');
  ring.install(KEY_3);
  t.same(ring.keys, [KEY_2, KEY_3], 'a new key does not seal');
  ring.install(KEY_3);
  ring.use(KEY_3);
  t.same(ring.keys, [KEY_3, KEY_2]);
  refuses(t, () => ring.remove(KEY_3), 'KEY_IS_PRIMARY');
  ring.remove(KEY_2);
  ring.remove(KEY_1);
  t.same(ring.keys, [KEY_3], 'what is not there is as good as removed');
  new Keyring().remove(KEY_1);
  t.end();
});

test('a keyring refuses what is no key, and more than it has room for', (t) => {
  for (const size of [16, 24, 32]) t.equal(new Keyring([filled(size, 1)]).keys.length, 1);
  for (const size of [0, 1, 15, 17, 31, 33, 64]) {
    refuses(t, () => new Keyring([filled(size, 1)]), 'KEY_SIZE');
  }
  const many = Array.from({ length: KEYS_MAX + 1 }, (_, index) => filled(16, index));
  refuses(t, () => new Keyring(many), 'KEYRING_FULL');
  const ring = new Keyring(many.slice(1));
  ring.install(filled(16, 1));
  const mine = filled(16, 200);
  const copied = new Keyring([mine]);
  mine.fill(0);
  t.same(copied.primary, filled(16, 200), 'a keyring has copies');
  const config = { name: 'a', address: '127.0.0.1', port: 1, generation: 1 };
  const use = { seal: true, strict: true };
  const without = new Gossip({ random: seededRandom(1) }, config, 0);
  refuses(t, () => without.setKeys([KEY_1], use), 'NO_CIPHER');
  without.setKeys([], use);
  const gossip = new Gossip({ random: seededRandom(1), cipher }, config, 0);
  gossip.setKeys([KEY_1, KEY_2], use);
  refuses(t, () => gossip.setKeys([KEY_3, bytes(1)], use), 'KEY_SIZE');
  t.same(gossip.wire.keyring.keys, [KEY_1, KEY_2], 'a refusal changes nothing');
  t.end();
});

test('any key of a ring opens what was sealed; a removed one does not', (t) => {
  const ring = new Keyring([KEY_1, KEY_2, KEY_3]);
  for (const version of [0, 1] as const) {
    for (const key of [KEY_1, KEY_3]) {
      const sealed = seal(PLAINTEXT, EXTRA, { cipher, key, nonce: NONCE, version });
      t.equal(sealed.length, sealedBytes(version, PLAINTEXT.length));
      t.equal(sealed.length, version === 0 ? 61 : 57);
      t.equal(sealed[0], version);
      t.same(open(sealed, EXTRA, { cipher, keys: ring.keys }), PLAINTEXT);
      t.equal(open(sealed, bytes(), { cipher, keys: ring.keys }), 'undecryptable', 'other data');
      for (const cut of [1, 28, sealed.length - 1]) {
        t.equal(open(sealed.subarray(0, cut), EXTRA, { cipher, keys: ring.keys }), 'undecryptable');
      }
    }
  }
  const sealed = seal(PLAINTEXT, EXTRA, { cipher, key: KEY_3, nonce: NONCE });
  ring.remove(KEY_3);
  t.equal(open(sealed, EXTRA, { cipher, keys: ring.keys }), 'undecryptable');
  t.equal(open(bytes(), EXTRA, { cipher, keys: ring.keys }), 'not-encrypted');
  t.equal(open(bytes(2, ...sealed.subarray(1)), EXTRA, { cipher, keys: [KEY_3] }), 'not-encrypted');
  t.end();
});

test('version 0 is padded to whole blocks, and what is not is dropped', (t) => {
  for (let length = 0; length <= 255; length++) {
    const sealed = seal(filled(length, length), EXTRA, {
      cipher,
      key: KEY_1,
      nonce: NONCE,
      version: 0,
    });
    t.equal(sealed.length, sealedBytes(0, length), `${length} bytes`);
    t.equal((sealed.length - 29) % 16, 0);
    t.same(open(sealed, EXTRA, { cipher, keys: [KEY_1] }), filled(length, length));
  }
  for (const [name, padded] of [
    ['longer than all', filled(16, 17)],
    ['longer than a block', filled(48, 32)],
    ['none', filled(16, 0)],
    ['255', filled(32, 255)],
  ] as const) {
    const body = oracle.seal(KEY_1, NONCE, padded, EXTRA);
    const sealed = bytes(0, ...NONCE, ...body);
    t.equal(open(sealed, EXTRA, { cipher, keys: [KEY_1] }), 'undecryptable', name);
  }
  t.end();
});

test('NodeGossipCipher seals and opens as @noble/ciphers does', (t) => {
  const sized = (length: number): fc.Arbitrary<Uint8Array> =>
    fc.uint8Array({ minLength: length, maxLength: length });
  const key = fc.constantFrom(16, 24, 32).chain(sized);
  const any = fc.uint8Array({ maxLength: 300 });
  fc.assert(
    fc.property(key, sized(12), any, any, fc.nat(), (secret, nonce, plaintext, data, flip) => {
      const sealed = cipher.seal(secret, nonce, plaintext, data);
      t.same(sealed, oracle.seal(secret, nonce, plaintext, data));
      t.same(cipher.open(secret, nonce, sealed, data), plaintext);
      const broken = Uint8Array.from(sealed);
      broken[flip % broken.length] = (broken[flip % broken.length] ?? 0) ^ (1 << (flip % 8));
      t.equal(cipher.open(secret, nonce, broken, data), undefined);
      t.equal(cipher.open(secret, nonce, sealed, bytes(...data, 0)), undefined);
    }),
    { numRuns: 150 },
  );
  t.equal(cipher.open(KEY_1, NONCE, filled(15, 0), EXTRA), undefined, 'shorter than a tag');
  t.end();
});
