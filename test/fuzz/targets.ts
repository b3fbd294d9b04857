import type { FuzzTarget } from './target.ts';
import { flowFile } from './targets/flow-file.ts';
import * as gossip from './targets/gossip.ts';
import { handshakes } from './targets/handshake.ts';
import * as packets from './targets/packets.ts';
import * as serf from './targets/serf.ts';
import * as texts from './targets/texts.ts';
import * as wire from './targets/wire.ts';

/** Every reader of bytes from outside. A new decoder gets an entry here. */
export const TARGETS: readonly FuzzTarget[] = [
  packets.parse,
  packets.header,
  packets.arp,
  packets.probes,
  packets.offload,
  packets.frames,
  packets.runs,
  handshakes,
  gossip.packet,
  gossip.member,
  gossip.msgpack,
  wire.lzw,
  wire.sealedPacket,
  wire.stream,
  gossip.endpoints,
  gossip.records,
  serf.message,
  serf.state,
  serf.tags,
  texts.flags,
  texts.service,
  texts.network,
  texts.logFrames,
  texts.files,
  flowFile,
];
