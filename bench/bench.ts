// `npm run bench -- AREA [--json] [--seconds N] [--runs N]`: measures one area beside its peers.
import { parseArgs } from 'node:util';
import { benchDataPlane } from './data-plane.ts';
import type { BenchOptions, Row } from './rows.ts';
import { printRow, printTable } from './rows.ts';

const AREAS: Readonly<Record<string, (options: BenchOptions) => AsyncIterable<Row>>> = {
  dataplane: benchDataPlane,
};

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    json: { type: 'boolean', default: false },
    seconds: { type: 'string', default: '3' },
    runs: { type: 'string', default: '5' },
  },
});
const [area = ''] = positionals;
const bench = AREAS[area];
if (bench === undefined) {
  console.error(
    `Cannot bench ${JSON.stringify(area)}: expected one of ${Object.keys(AREAS).join(', ')}, as in "npm run bench -- dataplane"`,
  );
  process.exit(1);
}
if (process.geteuid?.() !== 0) {
  console.error('Cannot bench: network namespaces need root');
  process.exit(1);
}
const rows: Row[] = [];
const options = { seconds: Number(values.seconds), runs: Number(values.runs) };
for await (const row of bench(options)) {
  rows.push(row);
  if (values.json) printRow(row);
}
if (!values.json) printTable(rows);
