// A thread that writes numbered frames into a capture's ring as fast as it can.
import { workerData } from 'node:worker_threads';
import { CaptureRingWriter } from '../../src/dataplane/capture-ring.ts';

const { ring, frames, bytesMax } = workerData as {
  readonly ring: SharedArrayBuffer;
  readonly frames: number;
  readonly bytesMax: number;
};
const writer = new CaptureRingWriter(ring);
const source = new DataView(new ArrayBuffer(bytesMax));
for (let number = 0; number < frames; number++) {
  const bytes = 4 + ((Math.imul(number, 0x9e37_79b1) >>> 16) % (bytesMax - 4));
  source.setInt32(0, number);
  source.setUint8(bytes - 1, number);
  if (!writer.begin(number, 1, bytes, bytes, number)) continue;
  writer.append(source, 0, bytes);
  writer.commit();
}
