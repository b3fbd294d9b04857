import {
  createCipheriv,
  createDecipheriv,
  createHash,
  createHmac,
  createPrivateKey,
  createPublicKey,
  diffieHellman,
  generateKeyPairSync,
  type KeyObject,
} from 'node:crypto';
import { KEY_BYTES, type KeyPair, type NoiseCrypto, TAG_BYTES } from '../noise/crypto.ts';

const CIPHER = 'aes-256-gcm';
/** What comes before the 32 raw bytes of an X25519 key in DER: PKCS #8 and SubjectPublicKeyInfo (RFC 8410). */
const PRIVATE_PREFIX = Buffer.from('302e020100300506032b656e04220420', 'hex');
const PUBLIC_PREFIX = Buffer.from('302a300506032b656e032100', 'hex');

function privateKeyObject(raw: Uint8Array): KeyObject {
  const key = Buffer.concat([PRIVATE_PREFIX, raw]);
  return createPrivateKey({ key, format: 'der', type: 'pkcs8' });
}

function publicKeyObject(raw: Uint8Array): KeyObject {
  const key = Buffer.concat([PUBLIC_PREFIX, raw]);
  return createPublicKey({ key, format: 'der', type: 'spki' });
}

function rawPublicKey(key: KeyObject): Uint8Array {
  return new Uint8Array(key.export({ format: 'der', type: 'spki' }).subarray(-KEY_BYTES));
}

function rawPrivateKey(key: KeyObject): Uint8Array {
  return new Uint8Array(key.export({ format: 'der', type: 'pkcs8' }).subarray(-KEY_BYTES));
}

function dh(privateKey: Uint8Array, publicKey: Uint8Array): Uint8Array | undefined {
  try {
    return new Uint8Array(
      diffieHellman({
        privateKey: privateKeyObject(privateKey),
        publicKey: publicKeyObject(publicKey),
      }),
    );
  } catch {
    return undefined; // OpenSSL refuses the points that give all zeros.
  }
}

function seal(
  key: Uint8Array,
  nonce: Uint8Array,
  ad: Uint8Array,
  plaintext: Uint8Array,
): Uint8Array {
  const cipher = createCipheriv(CIPHER, key, nonce);
  cipher.setAAD(ad);
  const parts = [cipher.update(plaintext), cipher.final()];
  return new Uint8Array(Buffer.concat([...parts, cipher.getAuthTag()]));
}

function open(
  key: Uint8Array,
  nonce: Uint8Array,
  ad: Uint8Array,
  ciphertext: Uint8Array,
): Uint8Array | undefined {
  if (ciphertext.length < TAG_BYTES) return undefined;
  const decipher = createDecipheriv(CIPHER, key, nonce, { authTagLength: TAG_BYTES });
  decipher.setAAD(ad);
  decipher.setAuthTag(ciphertext.subarray(-TAG_BYTES));
  const plaintext = decipher.update(ciphertext.subarray(0, -TAG_BYTES));
  try {
    decipher.final();
  } catch {
    return undefined;
  }
  return new Uint8Array(plaintext);
}

/** Node's own primitives for handshakes: some hundred microseconds each, on the control thread. */
export const NODE_NOISE_CRYPTO: NoiseCrypto = {
  generateKeyPair: (): KeyPair => {
    const { privateKey, publicKey } = generateKeyPairSync('x25519');
    return { privateKey: rawPrivateKey(privateKey), publicKey: rawPublicKey(publicKey) };
  },
  keyPair: (privateKey): KeyPair => ({
    privateKey,
    publicKey: rawPublicKey(createPublicKey(privateKeyObject(privateKey))),
  }),
  dh,
  sha256: (data) => new Uint8Array(createHash('sha256').update(data).digest()),
  hmacSha256: (key, data) => new Uint8Array(createHmac('sha256', key).update(data).digest()),
  seal,
  open,
};
