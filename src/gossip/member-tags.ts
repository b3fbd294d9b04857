import { ByteWriter, utf8Text } from './bytes.ts';
import { META_BYTES_MAX } from './messages.ts';
import { decodeMsgpack, type MsgpackValue, writeMsgpack } from './msgpack.ts';

/** First byte of a meta that holds tags (serf.go `tagMagicByte`); without it all is the role. */
const TAG_MAGIC = 0xff;
/** The tag that says what a member is. */
const ROLE_TAG = 'role';
const WEFT_ROLE = 'weft';
/** How the tag is written. */
const WEFT_ROLE_ENTRY: Uint8Array = roleEntry();

/**
 * The meta of a weft node: serf's tags (serf.go `encodeTags`), the role `weft` first.
 *
 * @param tags - What else members should know of the node, by name.
 * @throws {RangeError} if a role is among them, or the whole is above {@link META_BYTES_MAX}
 */
export function encodeTags(tags: ReadonlyMap<string, string>): Uint8Array {
  const role = tags.get(ROLE_TAG);
  if (role !== undefined) {
    throw new RangeError(`Cannot use "${role}" as a node's role: expected no role among the tags`);
  }
  const writer = new ByteWriter().uint8(TAG_MAGIC);
  writeMsgpack(writer, new Map([[ROLE_TAG, WEFT_ROLE], ...tags]));
  const meta = writer.finish();
  if (meta.length > META_BYTES_MAX) {
    throw new RangeError(
      `Cannot use node tags of ${meta.length} bytes: expected at most ${META_BYTES_MAX}`,
    );
  }
  return meta;
}

/**
 * The tags in a member's meta. As in serf a meta without the magic byte is the role alone; of what is
 * damaged, nothing is said.
 *
 * @returns tags by name, those that are no text left out; never throws
 */
export function decodeTags(meta: Uint8Array): ReadonlyMap<string, string> {
  const tags = new Map<string, string>();
  if (meta[0] !== TAG_MAGIC) {
    const role = utf8Text(meta);
    if (role !== undefined && role !== '') tags.set(ROLE_TAG, role);
    return tags;
  }
  const result = decodeMsgpack(meta, 1);
  if (!result.ok || !(result.value instanceof Map)) return tags;
  const entries: ReadonlyMap<string, MsgpackValue> = result.value;
  for (const [name, value] of entries) {
    const text = value instanceof Uint8Array ? utf8Text(value) : undefined;
    if (text !== undefined) tags.set(name, text);
  }
  return tags;
}

/** Whether a member with this meta is a weft node: only these understand endpoint messages. */
export function isWeftMeta(meta: Uint8Array): boolean {
  if (meta[0] !== TAG_MAGIC) return false;
  // Weft nodes put it first, and a sender asks this for each packet.
  if (WEFT_ROLE_ENTRY.every((byte, index) => meta[index + 2] === byte)) return true;
  return decodeTags(meta).get(ROLE_TAG) === WEFT_ROLE;
}

function roleEntry(): Uint8Array {
  const writer = new ByteWriter();
  writeMsgpack(writer, ROLE_TAG);
  writeMsgpack(writer, WEFT_ROLE);
  return writer.finish();
}
