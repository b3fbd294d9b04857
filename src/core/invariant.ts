/**
 * States something that cannot be false unless weft itself has a bug. Used at borders and in cold
 * code; never once per packet.
 *
 * @param condition - What must hold.
 * @param message - A sentence naming the broken rule.
 * @throws {Error} if `condition` is false
 */
export function invariant(condition: boolean, message: string): asserts condition {
  if (!condition) throw new Error(`Invariant broken: ${message}`);
}
