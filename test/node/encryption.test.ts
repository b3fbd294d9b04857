import { type Test, test } from 'tap';
import { SILENT_LOG } from '../../src/core/capabilities.ts';
import type { Ip } from '../../src/core/ip.ts';
import type { DataPlaneCommand, SecureCommand } from '../../src/dataplane/commands.ts';
import { NODE_NOISE_CRYPTO as crypto } from '../../src/io/noise-crypto.ts';
import { SYSTEM_RANDOM } from '../../src/io/system.ts';
import type { AssignmentSet } from '../../src/manager/session-protocol.ts';
import { type EncryptedPeer, Encryption, encryptedPeers } from '../../src/node/encryption.ts';
import { SESSION_LANES_MAX } from '../../src/noise/keypairs.ts';
import { REPLAY_WINDOW_WORDS } from '../../src/noise/replay-window.ts';

const PORT = 4789;

type Command<Kind extends SecureCommand['kind']> = Extract<SecureCommand, { kind: Kind }>;

/** A node whose data plane only notes what it is told. */
class TestNode {
  readonly peer: EncryptedPeer;
  readonly encryption: Encryption;
  commands: DataPlaneCommand[] = [];

  constructor(nodeId: string, vtep: Ip, time: TestTime, clusterId = 'c') {
    const { privateKey, publicKey } = crypto.generateKeyPair();
    this.peer = { nodeId, publicKey, vtep, port: PORT };
    this.encryption = new Encryption(
      {
        clock: { nowMs: () => time.nowMs, epochMs: () => 1_790_000_000_000 + time.nowMs },
        random: SYSTEM_RANDOM,
        log: SILENT_LOG,
        schedule: (atMs, task) => time.schedule(atMs, task),
        apply: async (commands) => {
          this.commands.push(...commands);
        },
      },
      { privateKey, clusterId, generation: 0 },
    );
  }

  /** What the data plane was told of one kind since the last time. */
  take<Kind extends SecureCommand['kind']>(kind: Kind): Command<Kind>[] {
    const taken = this.commands.filter((one): one is Command<Kind> => one.kind === kind);
    this.commands = this.commands.filter((one) => one.kind !== kind);
    return taken;
  }
}

class TestTime {
  nowMs = 0;
  readonly #tasks = new Set<{ readonly atMs: number; readonly task: () => void }>();

  schedule(atMs: number, task: () => void): () => void {
    const entry = { atMs, task };
    this.#tasks.add(entry);
    return () => this.#tasks.delete(entry);
  }

  get pending(): number {
    return this.#tasks.size;
  }

  advance(ms: number): void {
    this.nowMs += ms;
    for (const entry of [...this.#tasks]) {
      if (entry.atMs > this.nowMs || !this.#tasks.delete(entry)) continue;
      entry.task();
    }
  }
}

/** Carries datagrams between the nodes until there are none. */
function deliver(...nodes: readonly TestNode[]): void {
  for (let moved = true; moved; ) {
    moved = false;
    for (const from of nodes) {
      for (const { to, bytes } of from.take('sendDatagram')) {
        const target = nodes.find(({ peer }) => peer.vtep === to);
        const { vtep, port } = from.peer;
        target?.encryption.receive({ kind: 'handshake', address: vtep, port, bytes });
        moved = true;
      }
    }
  }
}

function makePair(t: Test, clusterIds: readonly [string, string] = ['c', 'c']) {
  const time = new TestTime();
  const a = new TestNode('a', 0x0a00_0001, time, clusterIds[0]);
  const b = new TestNode('b', 0x0a00_0002, time, clusterIds[1]);
  a.encryption.setPeers([b.peer]);
  b.encryption.setPeers([a.peer]);
  t.teardown(() => [a, b].map(({ encryption }) => encryption.close()));
  return { time, a, b };
}

test('a request of the data plane ends with a session in both data planes', (t) => {
  const { time, a, b } = makePair(t);
  a.encryption.receive({ kind: 'needSession', vtep: b.peer.vtep });
  deliver(a, b);
  const [mine] = a.take('installSession');
  const [theirs] = b.take('installSession');
  t.same(mine?.keypair.sendKey, theirs?.keypair.receiveKey);
  t.equal(mine?.keypair.remoteIndex, theirs?.keypair.localIndex);
  t.same([mine?.isConfirmed, theirs?.isConfirmed], [true, false]);
  t.same([mine?.vtep, mine?.address, mine?.port], [b.peer.vtep, b.peer.vtep, PORT]);
  t.same(a.take('sendKeepalive'), [{ kind: 'sendKeepalive', vtep: b.peer.vtep }]);
  t.equal(mine?.replayWords.length, SESSION_LANES_MAX * REPLAY_WINDOW_WORDS);
  t.ok(mine?.replayWords.buffer instanceof SharedArrayBuffer, 'packet threads share it');
  const localIndex = theirs!.keypair.localIndex;
  b.encryption.receive({ kind: 'sessionConfirmed', localIndex });
  t.same(b.take('confirmSession'), [{ kind: 'confirmSession', localIndex }]);
  time.nowMs = 4_000;
  for (const node of [a, b]) {
    t.match(node.encryption.status(), [{ state: 'established', sessionAgeMs: 4_000 }]);
  }
  t.end();
});

test('handshakes are tried again on time, and nothing is planned where nothing is due', (t) => {
  const { time, a, b } = makePair(t);
  t.equal(time.pending, 0);
  a.encryption.receive({ kind: 'needSession', vtep: b.peer.vtep });
  t.equal(a.take('sendDatagram').length, 1);
  t.equal(time.pending, 1);
  time.advance(4_999);
  t.same(a.take('sendDatagram'), []);
  time.advance(400);
  t.equal(a.take('sendDatagram').length, 1);
  a.encryption.close();
  t.equal(time.pending, 0);
  t.end();
});

test('a node that the manager vouches for no more loses its session, and gets no other', (t) => {
  const { time, a, b } = makePair(t);
  a.encryption.receive({ kind: 'needSession', vtep: b.peer.vtep });
  deliver(a, b);
  const [mine] = a.take('installSession');
  a.encryption.setPeers([]);
  const { localIndex } = mine!.keypair;
  t.same(a.take('removeSession'), [{ kind: 'removeSession', localIndex }]);
  a.encryption.receive({ kind: 'needSession', vtep: b.peer.vtep });
  t.same(a.take('sendDatagram'), [], 'it is not asked');
  time.advance(6_000);
  b.encryption.receive({ kind: 'needSession', vtep: a.peer.vtep });
  deliver(a, b);
  t.same(a.take('installSession'), [], 'and is not answered');
  t.equal(a.encryption.drops()['unknown-peer'], 1);
  t.end();
});

test('nodes of different clusters do not understand each other', (t) => {
  const { a, b } = makePair(t, ['c', 'd']);
  a.encryption.receive({ kind: 'needSession', vtep: b.peer.vtep });
  deliver(a, b);
  t.same([...a.take('installSession'), ...b.take('installSession')], []);
  t.equal(b.encryption.drops()['not-authentic'], 1);
  t.end();
});

test('a node that moves is followed', (t) => {
  const { a, b } = makePair(t);
  a.encryption.receive({ kind: 'needSession', vtep: b.peer.vtep });
  deliver(a, b);
  const [{ keypair }] = a.take('installSession') as [Command<'installSession'>];
  const address = 0x0a00_0063;
  a.encryption.receive({ kind: 'peerMoved', localIndex: keypair.localIndex, address });
  t.same(a.take('movePeer'), [{ kind: 'movePeer', vtep: b.peer.vtep, address, port: PORT }]);
  t.end();
});

test('a session that carries data is renewed', (t) => {
  const { time, a, b } = makePair(t);
  a.encryption.receive({ kind: 'needSession', vtep: b.peer.vtep });
  deliver(a, b);
  const [{ keypair }] = a.take('installSession') as [Command<'installSession'>];
  const { localIndex } = keypair;
  time.advance(121_000);
  const silent = { localIndex, received: 0, keepalivesSent: 0, keepalivesReceived: 0 };
  a.encryption.receive({ kind: 'sessionActivity', sessions: [{ ...silent, sent: 1 }] });
  deliver(a, b);
  t.equal(a.take('installSession').length, 1);
  t.end();
});

test('keys come from the assignments, this node’s own left out', (t) => {
  const key = Buffer.alloc(32, 7).toString('base64');
  const nodes = [
    { id: 'me', publicKey: key, address: '192.0.2.1', dataPathPort: 4790 },
    { id: 'you', publicKey: key, address: '192.0.2.2', dataPathPort: 4790 },
    { id: 'six', publicKey: key, address: 'fd00::6', dataPathPort: 4790 },
  ];
  t.same(encryptedPeers({ nodeId: 'me', nodes } as unknown as AssignmentSet), [
    { nodeId: 'you', publicKey: Buffer.alloc(32, 7), vtep: 0xc000_0202, port: 4790 },
    { nodeId: 'six', publicKey: Buffer.alloc(32, 7), vtep: 'fd00::6', port: 4790 },
  ]);
  t.same(encryptedPeers({ nodeId: 'me' } as unknown as AssignmentSet), [], 'from before');
  t.end();
});
