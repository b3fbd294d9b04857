import type { SecureEvent } from '../../src/dataplane/commands.ts';
import type { Counters } from '../../src/dataplane/counters.ts';
import type { Peers } from '../../src/dataplane/peers.ts';
import { SecureSessions } from '../../src/dataplane/secure-sessions.ts';
import { aeadProviders, chooseAead } from '../../src/io/aead/choose.ts';
import type { Arena } from '../../src/io/linux/arena.ts';

/** Sessions of a packet thread under test, on a clock that stands still unless it is given. */
export function secureSessions(
  arena: Arena,
  counters: Counters,
  peers: Peers,
  more: {
    readonly post?: (event: SecureEvent) => void;
    readonly nowMs?: () => number;
    readonly lane?: number;
  } = {},
): SecureSessions {
  return new SecureSessions({
    arena,
    aead: chooseAead(aeadProviders(arena), arena),
    lane: 0,
    counters,
    peers,
    post: () => {},
    nowMs: () => 0,
    ...more,
  });
}
