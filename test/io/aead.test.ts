import { createCipheriv, randomBytes } from 'node:crypto';
import { gcm } from '@noble/ciphers/aes.js';
import fc from 'fast-check';
import { test } from 'tap';
import type { AeadProvider } from '../../src/io/aead/aead.ts';
import { aeadProviders, chooseAead } from '../../src/io/aead/choose.ts';
import { Arena } from '../../src/io/linux/arena.ts';

const KEY = new Uint8Array(randomBytes(32));
const HEADER = Uint8Array.of(4, 0, 0, 0, 9, 8, 7, 6);
const PLAINTEXT_BYTES_MAX = 65_511;

const arena = new Arena(256 * 1024);
const RECORD = arena.allocate(PLAINTEXT_BYTES_MAX + 24);
const providers = [...aeadProviders(arena)];

/** What a record must be, by a library that is not under test. */
function oracle(counter: bigint, plaintext: Uint8Array): Uint8Array {
  const nonce = new Uint8Array(12);
  new DataView(nonce.buffer).setBigUint64(4, counter);
  const ad = new Uint8Array(13);
  ad.set(HEADER);
  new DataView(ad.buffer).setUint16(11, plaintext.length);
  return Uint8Array.from([...nonce.subarray(4), ...gcm(KEY, nonce, ad).encrypt(plaintext)]);
}

function sealed(seal: (offset: number, length: number) => void, plaintext: Uint8Array): Uint8Array {
  arena.bytes.set(plaintext, RECORD + 8);
  seal(RECORD, plaintext.length);
  return arena.bytes.slice(RECORD, RECORD + plaintext.length + 24);
}

test('OpenSSL of the running Node is the first choice, JavaScript the last', (t) => {
  const names = providers.map((provider) => provider.name);
  t.equal(names[0], "OpenSSL of Node's binary");
  t.equal(names.at(-1), '@noble/ciphers');
  t.equal(chooseAead(providers, arena).name, names[0]);
  t.end();
});

for (const provider of providers) {
  test(`${provider.name} seals every length as the oracle does`, (t) => {
    const sealer = provider.sealer(KEY, HEADER, 0);
    let counter = 0n;
    for (const length of [0, 1, 15, 16, 17, 64, 1_399, 1_400, 1_408, 9_000, PLAINTEXT_BYTES_MAX]) {
      const plaintext = new Uint8Array(randomBytes(length));
      const record = sealed(sealer.seal, plaintext);
      t.ok(Buffer.from(record).equals(oracle(counter, plaintext)), `${length} bytes`);
      counter += 1n;
    }
    sealer.close();
    t.end();
  });

  test(`${provider.name} counts in the lane that it was given`, (t) => {
    for (const lane of [0, 1, 255]) {
      const sealer = provider.sealer(KEY, HEADER, lane);
      for (const step of [0n, 1n, 2n]) {
        const record = sealed(sealer.seal, Uint8Array.of(1, 2, 3));
        const counter = (BigInt(lane) << 56n) + step;
        t.same(record, oracle(counter, Uint8Array.of(1, 2, 3)), `lane ${lane}, record ${step}`);
      }
      sealer.close();
    }
    t.end();
  });

  test(`${provider.name} opens what the oracle sealed, and nothing that was changed`, (t) => {
    const opener = provider.opener(KEY, HEADER);
    const open = (record: Uint8Array): Uint8Array | undefined => {
      arena.bytes.set(record, RECORD);
      const length = record.length - 24;
      if (!opener.open(RECORD, length)) return undefined;
      return arena.bytes.slice(RECORD + 8, RECORD + 8 + length);
    };
    fc.assert(
      fc.property(
        fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
        fc.uint8Array({ maxLength: 200 }),
        fc.nat(),
        (counter, plaintext, place) => {
          const record = oracle(counter, plaintext);
          const changed = record.slice();
          const bit = place % (record.length * 8);
          changed[bit >> 3]! ^= 1 << (bit & 7);
          const isWhole = Buffer.from(open(record) ?? [1]).equals(plaintext);
          const shorter = record.slice(0, -1);
          const isCutRefused = shorter.length < 24 || open(shorter) === undefined;
          return isWhole && isCutRefused && open(changed) === undefined;
        },
      ),
      { numRuns: 100 },
    );
    opener.close();
    t.end();
  });

  test(`${provider.name} refuses a record under another header or key`, (t) => {
    const record = oracle(7n, Uint8Array.of(1, 2, 3, 4));
    for (const [key, header] of [
      [KEY, Uint8Array.of(4, 0, 0, 0, 9, 8, 7, 5)],
      [KEY.map((byte) => byte ^ 1), HEADER],
    ] as const) {
      const opener = provider.opener(key, header);
      arena.bytes.set(record, RECORD);
      t.notOk(opener.open(RECORD, 4));
      opener.close();
    }
    t.end();
  });
}

test('what one provider seals, every other opens', (t) => {
  for (const from of providers) {
    for (const to of providers) {
      const sealer = from.sealer(KEY, HEADER, 3);
      const opener = to.opener(KEY, HEADER);
      const plaintext = new Uint8Array(randomBytes(1_408));
      sealed(sealer.seal, plaintext);
      t.ok(opener.open(RECORD, plaintext.length), `${from.name} to ${to.name}`);
      t.same(arena.bytes.slice(RECORD + 8, RECORD + 8 + plaintext.length), plaintext);
      sealer.close();
      opener.close();
    }
  }
  t.end();
});

test('a provider that is wrong in any way is passed over', (t) => {
  const [sound] = providers as [AeadProvider, ...AeadProvider[]];
  const wrong = (name: string, change: Partial<AeadProvider>): AeadProvider => ({
    name,
    sealer: (key, header, lane) => sound.sealer(key, header, lane),
    opener: (key, header) => sound.opener(key, header),
    ...change,
  });
  const unfit: AeadProvider[] = [
    wrong('seals under another key', {
      sealer: (key, header, lane) =>
        sound.sealer(
          key.map((byte) => byte ^ 1),
          header,
          lane,
        ),
    }),
    wrong('does not count', {
      sealer: (key, header, lane) => ({
        seal: (offset, length) => sound.sealer(key, header, lane).seal(offset, length),
        close: () => {},
      }),
    }),
    wrong('takes forgeries', {
      opener: (key, header) => {
        const opener = sound.opener(key, header);
        return {
          open: (offset, length) => opener.open(offset, length) || true,
          close: () => opener.close(),
        };
      },
    }),
    wrong('opens nothing', { opener: () => ({ open: () => false, close: () => {} }) }),
    wrong('throws', {
      sealer: () => {
        throw new Error('no such cipher');
      },
    }),
  ];
  for (const provider of unfit) {
    t.equal(chooseAead([provider, sound], arena), sound, provider.name);
  }
  t.throws(() => chooseAead(unfit, arena), /none of .*takes forgeries.* passes its self-test/);
  t.end();
});

test('the oracle itself gives the answers of the GCM specification', (t) => {
  // Test cases 13 to 16 of McGrew and Viega, "The Galois/Counter Mode of Operation (GCM)", appendix B.
  const key = `${'feffe9928665731c6d6a8f9467308308'.repeat(2)}`;
  const plaintext =
    'd9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39';
  const ciphertext =
    '522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662';
  const cases = [
    ['00'.repeat(32), '00'.repeat(12), '', '', '', '530f8afbc74536b9a963b4f1c4cb738b'],
    [
      '00'.repeat(32),
      '00'.repeat(12),
      '',
      '00'.repeat(16),
      'cea7403d4d606b6e074ec5d3baf39d18',
      'd0d1c8a799996bf0265b98b5d48ab919',
    ],
    [
      key,
      'cafebabefacedbaddecaf888',
      '',
      `${plaintext}1aafd255`,
      `${ciphertext}898015ad`,
      'b094dac5d93471bdec1a502270e3cc6c',
    ],
    [
      key,
      'cafebabefacedbaddecaf888',
      'feedfacedeadbeeffeedfacedeadbeefabaddad2',
      plaintext,
      ciphertext,
      '76fc6ece0f4e1768cddf8853bb2d551b',
    ],
  ];
  for (const [index, fields] of cases.entries()) {
    const [k, iv, ad, p, c, tag] = fields.map((field) => Buffer.from(field, 'hex')) as [
      Buffer,
      ...Buffer[],
    ];
    const expected = Buffer.concat([c!, tag!]).toString('hex');
    const byNoble = gcm(Uint8Array.from(k), Uint8Array.from(iv!), Uint8Array.from(ad!));
    const name = `test case ${13 + index}`;
    t.equal(Buffer.from(byNoble.encrypt(Uint8Array.from(p!))).toString('hex'), expected, name);
    const cipher = createCipheriv('aes-256-gcm', k, iv!).setAAD(ad!);
    const byNode = [cipher.update(p!), cipher.final(), cipher.getAuthTag()];
    t.equal(Buffer.concat(byNode).toString('hex'), expected, `${name}, node`);
  }
  t.end();
});
