import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { test } from 'tap';
import { PcapngWriter } from '../../src/node/pcapng.ts';
import { ethernetFrame } from '../dataplane/frames.ts';
import { readPcapng } from '../support/pcapng-reader.ts';

/** In the year 2026; its high word and its low word both have their top bits set in some runs. */
const TIME_US = 1_790_000_000_123_456;

/** Whether `program` can be run here: Wireshark's tools are asked when they are there. */
function isInstalled(program: string): boolean {
  try {
    execFileSync(program, ['--version'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

function sample(): Uint8Array {
  const writer = new PcapngWriter();
  writer.section('weft 1.2.3', 'Linux');
  writer.interface({ name: 'web.1', description: 'task web.1', snaplen: 1000 });
  writer.interface({ name: 'peer host2', description: 'VTEP 192.0.2.2', snaplen: 1000 });
  const ping = ethernetFrame({ from: '10.0.0.2:7', to: '10.0.0.3:7', protocol: 1, icmpType: 8 });
  const packet = { timeUs: TIME_US, originalBytes: ping.length, bytes: ping, lost: 0 };
  writer.packet({ ...packet, interfaceId: 0, direction: 1 });
  writer.packet({ ...packet, interfaceId: 1, direction: 2, timeUs: TIME_US + 17, lost: 3 });
  writer.statistics({ interfaceId: 0, timeUs: TIME_US + 20, received: 1, dropped: 0 });
  writer.statistics({ interfaceId: 1, timeUs: TIME_US + 20, received: 4, dropped: 3 });
  return writer.take();
}

test('what is written is read back', (t) => {
  const { application, interfaces, packets } = readPcapng(sample());
  t.equal(application, 'weft 1.2.3');
  t.same(interfaces, [
    {
      name: 'web.1',
      description: 'task web.1',
      linkType: 1,
      snaplen: 1000,
      resolution: 6,
      received: 1,
      dropped: 0,
    },
    {
      name: 'peer host2',
      description: 'VTEP 192.0.2.2',
      linkType: 1,
      snaplen: 1000,
      resolution: 6,
      received: 4,
      dropped: 3,
    },
  ]);
  t.same(
    packets.map(({ interface: { name }, direction, timeUs, lost }) => [
      ...[name, direction, timeUs, lost],
    ]),
    [
      ['web.1', 'in', TIME_US, 0],
      ['peer host2', 'out', TIME_US + 17, 3],
    ],
  );
  t.end();
});

test('any packets are read back, whenever they are taken', (t) => {
  const packet = fc.record({
    interfaceId: fc.nat(2),
    timeUs: fc.maxSafeNat(),
    direction: fc.constantFrom(1, 2),
    bytes: fc.uint8Array({ maxLength: 70_000, size: 'max' }),
    extraBytes: fc.nat(70_000),
    lost: fc.oneof(fc.constant(0), fc.maxSafeNat()),
    take: fc.boolean(),
  });
  fc.assert(
    fc.property(
      fc.array(packet, { maxLength: 12 }),
      fc.string({ unit: 'grapheme' }),
      (sent, name) => {
        const writer = new PcapngWriter();
        const parts: Uint8Array[] = [];
        writer.section('weft', 'Linux');
        for (let id = 0; id <= 2; id++) {
          writer.interface({ name: `${name}${id}`, description: '', snaplen: 9 });
        }
        for (const { extraBytes, take, ...one } of sent) {
          writer.packet({ ...one, originalBytes: one.bytes.length + extraBytes });
          if (take) parts.push(writer.take());
        }
        parts.push(writer.take());
        if (writer.length !== 0) throw new Error('Something was left');
        const { packets } = readPcapng(Buffer.concat(parts));
        const read = packets.map((one) => ({
          name: one.interface.name,
          timeUs: one.timeUs,
          direction: one.direction,
          bytes: [...one.bytes],
          originalBytes: one.originalBytes,
          lost: one.lost,
        }));
        const expected = sent.map((one) => ({
          name: `${name}${one.interfaceId}`,
          timeUs: one.timeUs,
          direction: one.direction === 1 ? 'in' : 'out',
          bytes: [...one.bytes],
          originalBytes: one.bytes.length + one.extraBytes,
          lost: one.lost,
        }));
        assert.deepStrictEqual(read, expected);
      },
    ),
    { numRuns: 30 },
  );
  t.end();
});

test('Wireshark reads it', { skip: !isInstalled('tshark') && 'tshark is not installed' }, (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'weft-pcapng-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'sample.pcapng');
  writeFileSync(file, sample());
  const fields = [
    'frame.interface_name',
    'frame.time_epoch',
    'frame.packet_flags_direction',
    'icmp.type',
  ];
  const output = execFileSync(
    'tshark',
    ['-r', file, '-T', 'fields', ...fields.flatMap((field) => ['-e', field])],
    { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] },
  );
  t.match(
    output,
    /^web\.1\t1790000000\.123456000\t(0x0*1|1)\t8\npeer host2\t1790000000\.123473000\t(0x0*2|2)\t8\n$/,
  );
  t.end();
});
