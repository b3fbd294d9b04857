// `npm run bench -- AREA [FLAG…]`: measures one area beside its peers. Rows go to standard output, all
// else to standard error; the exit code is 1 if something could not be measured.
import { parseArgs } from 'node:util';
import { benchDataPlane, dataPlanePeers, dataPlaneRows } from './data-plane.ts';
import { benchGossip, gossipPeers, gossipRows } from './gossip.ts';
import { describeMachine } from './machine.ts';
import type { BenchOptions, Row } from './rows.ts';
import { printMarkdown, printRow, printTable } from './rows.ts';
import { benchTables, tablePeers, tableRows } from './tables.ts';

const USAGE = `npm run bench -- dataplane|tables|gossip [FLAG…]

  --seconds N         length of one throughput run (3)
  --runs N            runs of each measurement, of which rows hold the median (5)
  --only ROW,…        these rows only
  --peers PEER,…      beside these peers only
  --packet-threads N  of each agent (as many as an agent chooses itself)
  --long SECONDS      load between the two looks at the agents' memory, or loss on a link (60)
  --json              a line of JSON per row, as soon as it is there
  --markdown          a table for a document, with the command and the machine
`;

const AREAS = {
  dataplane: { bench: benchDataPlane, rows: dataPlaneRows, peers: dataPlanePeers },
  gossip: { bench: benchGossip, rows: gossipRows, peers: gossipPeers },
  tables: { bench: benchTables, rows: tableRows, peers: tablePeers },
};

const args = process.argv.slice(2);
const { values, positionals } = parse();
if (values.help) {
  console.log(USAGE);
  process.exit(0);
}
const area = Object.entries(AREAS).find(([name]) => name === positionals[0])?.[1];
if (area === undefined) {
  const expected = Object.keys(AREAS).join(', ');
  fail(
    `Cannot bench ${JSON.stringify(positionals[0] ?? '')}: expected one of ${expected}, as in "npm run bench -- dataplane"`,
  );
}
const longSeconds = positive('--long', values.long);
const threads = values['packet-threads'];
const options: BenchOptions = {
  seconds: positive('--seconds', values.seconds),
  runs: positive('--runs', values.runs),
  longSeconds,
  ...(threads && { packetThreads: positive('--packet-threads', threads) }),
  only: list('--only', values.only, area.rows({ longSeconds })),
  peers: list('--peers', values.peers, area.peers()),
};
if (process.geteuid?.() !== 0) fail('Cannot bench: network namespaces need root');

const rows: Row[] = [];
for await (const row of area.bench(options, complain)) {
  rows.push(row);
  if (values.json) printRow(row);
}
if (values.markdown) {
  console.log(`\`npm run bench -- ${args.join(' ')}\` on ${describeMachine()}:\n`);
  printMarkdown(rows);
} else if (!values.json) printTable(rows);

function parse() {
  try {
    return parseArgs({
      args,
      allowPositionals: true,
      options: {
        seconds: { type: 'string', default: '3' },
        runs: { type: 'string', default: '5' },
        only: { type: 'string' },
        peers: { type: 'string' },
        'packet-threads': { type: 'string' },
        long: { type: 'string', default: '60' },
        json: { type: 'boolean', default: false },
        markdown: { type: 'boolean', default: false },
        help: { type: 'boolean', default: false },
      },
    });
  } catch (error) {
    return fail(`${(error as Error).message}\n\n${USAGE}`);
  }
}

function positive(flag: string, text: string): number {
  const value = Number(text);
  if (Number.isInteger(value) && value > 0) return value;
  return fail(`Cannot use ${flag} ${JSON.stringify(text)}: expected a whole number above 0`);
}

function list(
  flag: string,
  text: string | undefined,
  known: readonly string[],
): readonly string[] | undefined {
  const names = text?.split(',');
  const unknown = names?.find((name) => !known.includes(name));
  if (unknown === undefined) return names;
  return fail(
    `Cannot use ${flag} ${JSON.stringify(unknown)}: expected some of ${known.join(', ')}`,
  );
}

function complain(text: string, isFailure: boolean): void {
  console.error(`bench: ${text}`);
  if (isFailure) process.exitCode = 1;
}

function fail(text: string): never {
  console.error(text);
  process.exit(1);
}
