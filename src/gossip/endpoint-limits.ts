import { utf8Bytes } from './bytes.ts';
import { type EndpointRecord, RECORD_ENTRIES_MAX } from './endpoint-record.ts';
import { isJsonTooDeep, JSON_DEPTH_MAX } from './json-depth.ts';

/** Largest key of an endpoint, in UTF-8. Our own bound. */
export const ENDPOINT_KEY_BYTES_MAX = 255;
/** Largest value of an endpoint, as JSON in UTF-8. Our own bound. */
export const ENDPOINT_VALUE_BYTES_MAX = 16_384;
/**
 * All records together, as {@link EndpointRecord.bytes} counts; past it deltas are dropped. With what
 * weft announces of a task, 424 bytes, that is 600,000 of them, and resident memory is about as much as
 * is counted: see "A table of 100,000 endpoints" in docs/performance.md.
 */
export const TABLE_BYTES_MAX: number = 256 * 1_024 * 1_024;
/** This node's record, counted likewise: a quarter of what others have room for. Our own bound. */
export const RECORD_BYTES_MAX: number = TABLE_BYTES_MAX / 4;

/** Why an endpoint of this node cannot be stored. Sizes are in bytes of UTF-8. */
export type EndpointErrorDetail =
  | { readonly code: 'KEY_TOO_LONG'; readonly bytes: number; readonly bytesMax: number }
  | { readonly code: 'VALUE_TOO_LARGE'; readonly bytes: number; readonly bytesMax: number }
  | { readonly code: 'VALUE_TOO_DEEP'; readonly depthMax: number }
  | { readonly code: 'RECORD_FULL'; readonly entriesMax: number }
  | { readonly code: 'RECORD_TOO_LARGE'; readonly bytesMax: number };

/** A refusal the caller is expected to handle. Match on `detail.code`, never on `message`. */
export class EndpointError extends Error {
  override readonly name = 'EndpointError';
  readonly detail: EndpointErrorDetail;

  constructor(message: string, detail: EndpointErrorDetail) {
    super(message);
    this.detail = detail;
  }
}

/**
 * Checks what this node wants to say of one endpoint.
 *
 * @param text - The value as JSON.
 * @throws {EndpointError} if a bound is broken
 */
export function checkEndpoint(key: string, text: string): void {
  const keyBytes = utf8Bytes(key).length;
  const valueBytes = utf8Bytes(text).length;
  const name = JSON.stringify(key);
  if (keyBytes > ENDPOINT_KEY_BYTES_MAX) {
    throw new EndpointError(
      `Cannot use an endpoint key of ${keyBytes} bytes: expected at most ${ENDPOINT_KEY_BYTES_MAX}`,
      { code: 'KEY_TOO_LONG', bytes: keyBytes, bytesMax: ENDPOINT_KEY_BYTES_MAX },
    );
  }
  if (valueBytes > ENDPOINT_VALUE_BYTES_MAX) {
    throw new EndpointError(
      `Cannot set endpoint ${name} to ${valueBytes} bytes of JSON: ` +
        `expected at most ${ENDPOINT_VALUE_BYTES_MAX}`,
      { code: 'VALUE_TOO_LARGE', bytes: valueBytes, bytesMax: ENDPOINT_VALUE_BYTES_MAX },
    );
  }
  if (isJsonTooDeep(text)) {
    throw new EndpointError(
      `Cannot set endpoint ${name}: expected JSON nested at most ${JSON_DEPTH_MAX} deep`,
      { code: 'VALUE_TOO_DEEP', depthMax: JSON_DEPTH_MAX },
    );
  }
}

/**
 * Checks that this node's record has room for what it wants to say of one endpoint.
 *
 * @param text - The value as JSON.
 * @throws {EndpointError} if there is none
 */
export function checkRoom(own: EndpointRecord, key: string, text: string): void {
  const known = own.get(key);
  if (known === undefined && own.entryCount >= RECORD_ENTRIES_MAX) {
    throw new EndpointError(
      `Cannot add endpoint ${JSON.stringify(key)}: this node has ${RECORD_ENTRIES_MAX} entries`,
      { code: 'RECORD_FULL', entriesMax: RECORD_ENTRIES_MAX },
    );
  }
  // Whoever cannot hold it never has the same as the others.
  const grownBytes = key.length + text.length - (known?.length ?? 0);
  if (grownBytes > 0 && own.bytes + grownBytes > RECORD_BYTES_MAX) {
    throw new EndpointError(
      `Cannot set endpoint ${JSON.stringify(key)}: this node has ${own.bytes} bytes of ` +
        `endpoints, expected at most ${RECORD_BYTES_MAX}`,
      { code: 'RECORD_TOO_LARGE', bytesMax: RECORD_BYTES_MAX },
    );
  }
}
