import { randomBytes } from 'node:crypto';
import { test } from 'tap';
import {
  COOKIE_REPLY_BYTES,
  DATA_OVERHEAD_BYTES,
  dataHeader,
  decodeHandshake,
  encodeCookieReply,
  encodeInitiation,
  encodeResponse,
  INITIATION_BYTES,
  RESPONSE_BYTES,
} from '../../src/noise/messages.ts';
import { isLater, tai64n } from '../../src/noise/tai64n.ts';

test('messages have the sizes of WireGuard', (t) => {
  t.same([INITIATION_BYTES, RESPONSE_BYTES, COOKIE_REPLY_BYTES], [148, 92, 64]);
  t.equal(DATA_OVERHEAD_BYTES, 32);
  t.end();
});

test('what is encoded is decoded', (t) => {
  const noise1 = new Uint8Array(randomBytes(108));
  const initiation = encodeInitiation(0xfedc_ba98, noise1);
  t.same(initiation.subarray(0, 8), [1, 0, 0, 0, 0x98, 0xba, 0xdc, 0xfe]);
  t.same(decodeHandshake(initiation), { type: 1, sender: 0xfedc_ba98, noise: noise1 });

  const noise2 = new Uint8Array(randomBytes(48));
  const response = encodeResponse(1, 0x8000_0000, noise2);
  t.same(decodeHandshake(response), { type: 2, sender: 1, receiver: 0x8000_0000, noise: noise2 });

  const nonce = new Uint8Array(randomBytes(24));
  const sealedCookie = new Uint8Array(randomBytes(32));
  const reply = encodeCookieReply(77, nonce, sealedCookie);
  t.same(decodeHandshake(reply), { type: 3, receiver: 77, nonce, sealedCookie });

  t.same(dataHeader(0x0102_0304), [4, 0, 0, 0, 4, 3, 2, 1]);
  t.end();
});

test('nothing but the exact type and size is a handshake message', (t) => {
  for (const [type, size] of [
    [1, INITIATION_BYTES],
    [2, RESPONSE_BYTES],
    [3, COOKIE_REPLY_BYTES],
  ] as const) {
    const message = new Uint8Array(size);
    message[0] = type;
    t.ok(decodeHandshake(message));
    t.equal(decodeHandshake(message.subarray(0, -1)), undefined);
    t.equal(decodeHandshake(Uint8Array.of(...message, 0)), undefined);
    for (const other of [0, 4, 5, 6, 8, 255]) {
      message[0] = other;
      t.equal(decodeHandshake(message), undefined, `type ${other} of ${size} bytes`);
    }
  }
  t.equal(decodeHandshake(new Uint8Array()), undefined);
  t.end();
});

test('TAI64N labels are those of the specification, and in order', (t) => {
  // https://cr.yp.to/libtai/tai64.html: 4000000000000000 is the beginning of 1970 TAI, ten seconds before UTC's.
  const label = (ms: number): string => Buffer.from(tai64n(ms)).toString('hex');
  t.equal(label(0), '400000000000000a00000000');
  t.equal(label(1.5), '400000000000000a0016e360');
  t.equal(label(999), '400000000000000a3b8b87c0');
  t.equal(label(1_790_000_000_123), '400000006ab13b8a0754d4c0');
  const times = [0, 0.001, 1, 999, 1_000, 2 ** 31 * 1_000, 2 ** 32 * 1_000, 2 ** 33 * 1_000];
  for (const [index, ms] of times.entries()) {
    t.notOk(isLater(tai64n(ms), tai64n(ms)));
    for (const earlier of times.slice(0, index)) {
      t.ok(isLater(tai64n(ms), tai64n(earlier)), `${ms} is later than ${earlier}`);
      t.notOk(isLater(tai64n(earlier), tai64n(ms)));
    }
  }
  t.end();
});
