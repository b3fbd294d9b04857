import type { Arena } from '../linux/arena.ts';
import { type AeadProvider, RECORD_COUNTER_BYTES, RECORD_TAG_BYTES } from './aead.ts';
import { EvpAead } from './evp-aead.ts';
import { NobleAead } from './noble-aead.ts';

// The known answer: key 0, 1, 2 ... 31; header 4, 0, 0, 0, 1, 2, 3, 4; the second record of lane 2.
// Computed with Node's createCipheriv and, independently, Python's cryptography package.
const KEY = Uint8Array.from({ length: 32 }, (_, index) => index);
const HEADER = Uint8Array.of(4, 0, 0, 0, 1, 2, 3, 4);
const LANE = 2;
const PLAINTEXT = Uint8Array.from({ length: 32 }, (_, index) => 255 - index);
const SEALED =
  '02000000000000014926a9066a805342895f127ab978b432847925880a0cefdd8ac6af1d31a4eb830beb9df3e1ec6d9e30eb2870c216cfb9';
const RECORD_BYTES = RECORD_COUNTER_BYTES + PLAINTEXT.length + RECORD_TAG_BYTES;

/**
 * The providers that can be had here, best first: OpenSSL as Node's binary has it, as the system has it, and
 * JavaScript. One is loaded when the one before it will not do.
 */
export function* aeadProviders(arena: Arena): Generator<AeadProvider, void> {
  const own = EvpAead.load(null, "OpenSSL of Node's binary", arena);
  if (own !== undefined) yield own;
  const system = EvpAead.load('libcrypto.so.3', 'libcrypto.so.3', arena);
  if (system !== undefined) yield system;
  yield new NobleAead(arena);
}

/**
 * The first of `providers` that seals a known record as it must, opens it, and refuses it when one bit of
 * it is wrong.
 *
 * @throws {Error} if none does: nothing may be sent then
 */
export function chooseAead(providers: Iterable<AeadProvider>, arena: Arena): AeadProvider {
  const offset = arena.allocate(RECORD_BYTES);
  const unfit: string[] = [];
  for (const provider of providers) {
    if (isSound(provider, arena, offset)) return provider;
    unfit.push(provider.name);
  }
  const names = unfit.join(', ') || 'no providers';
  throw new Error(`Cannot encrypt: none of ${names} passes its self-test`);
}

function isSound(provider: AeadProvider, arena: Arena, offset: number): boolean {
  try {
    return seals(provider, arena, offset) && opens(provider, arena, offset);
  } catch {
    return false; // A provider that throws is as unfit as one that is wrong.
  }
}

function seals(provider: AeadProvider, { bytes }: Arena, offset: number): boolean {
  const sealer = provider.sealer(KEY, HEADER, LANE);
  for (let record = 0; record < 2; record += 1) {
    bytes.set(PLAINTEXT, offset + RECORD_COUNTER_BYTES);
    sealer.seal(offset, PLAINTEXT.length);
  }
  sealer.close();
  const sealed = bytes.subarray(offset, offset + RECORD_BYTES);
  return Buffer.from(sealed).toString('hex') === SEALED;
}

function opens(provider: AeadProvider, { bytes }: Arena, offset: number): boolean {
  const opener = provider.opener(KEY, HEADER);
  const sealed = Buffer.from(SEALED, 'hex');
  const accepts = (record: Uint8Array): boolean => {
    bytes.set(record, offset);
    return opener.open(offset, PLAINTEXT.length);
  };
  const wasOpened = accepts(sealed);
  const start = offset + RECORD_COUNTER_BYTES;
  const isRight = Buffer.compare(bytes.subarray(start, start + PLAINTEXT.length), PLAINTEXT) === 0;
  const forged = Uint8Array.from(sealed);
  forged[RECORD_BYTES - 1] = (forged[RECORD_BYTES - 1] ?? 0) ^ 1;
  const wasRefused = !accepts(forged);
  const worksOn = accepts(sealed);
  opener.close();
  return wasOpened && isRight && wasRefused && worksOn;
}
