/** All digits that {@link row} leaves. */
const FIGURES = { maximumFractionDigits: 6 };

/** How long and how often to measure. */
export interface BenchOptions {
  /** Length of one throughput run. */
  readonly seconds: number;
  /** Runs of each measurement; rows hold their median. */
  readonly runs: number;
  /** Length of the load between the two looks at the memory of the agents, and of a loss on a link. */
  readonly longSeconds: number;
  /** Packet threads of each agent; absent: as many as an agent chooses itself. */
  readonly packetThreads?: number;
  /** Names of the rows that are wanted; all if undefined. */
  readonly only: readonly string[] | undefined;
  /** Names of the peers that are wanted; all if undefined. */
  readonly peers: readonly string[] | undefined;
}

/** One figure beside a peer's, measured in the same run of the bench. */
export interface Row {
  readonly name: string;
  readonly unit: string;
  readonly value: number;
  readonly peer: string;
  readonly peerValue: number;
  /** Ours divided by the peer's: 0.5 is half as fast, or, for `ms`, `s/GB` and `MB`, half as much of it. */
  readonly ratio: number;
}

/** Makes a row of the medians of both sides. */
export function row(
  name: string,
  unit: string,
  ours: readonly number[],
  peer: string,
  theirs: readonly number[],
): Row {
  const value = median(ours);
  const peerValue = median(theirs);
  const ratio = value === peerValue ? 1 : round(value / peerValue);
  return { name, unit, value: round(value), peer, peerValue: round(peerValue), ratio };
}

/** The middle one of an odd number of values; of an even number, the lower middle. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[(sorted.length - 1) >> 1] ?? Number.NaN;
}

function round(value: number): number {
  return Number(value.toPrecision(4));
}

/** Prints a row as one line of JSON. */
export function printRow(row: Row): void {
  console.log(JSON.stringify(row));
}

/** Prints rows for people. */
export function printTable(rows: readonly Row[]): void {
  const table = [['ROW', 'WEFT', 'PEER', 'ITS FIGURE', 'RATIO'], ...rows.map(cells)];
  const widths = [0, 1, 2, 3, 4].map((column) =>
    Math.max(...table.map((line) => line[column]?.length ?? 0)),
  );
  for (const line of table) {
    console.log(
      line
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    );
  }
}

/** Prints rows as a table for a document. */
export function printMarkdown(rows: readonly Row[]): void {
  console.log('| row | weft | peer | its figure | ratio |\n|---|---|---|---|---|');
  for (const [name, ...rest] of rows.map(cells))
    console.log(`| \`${name}\` | ${rest.join(' | ')} |`);
}

function cells({ name, unit, value, peer, peerValue, ratio }: Row): string[] {
  const figure = (number: number): string => `${number.toLocaleString('en-US', FIGURES)} ${unit}`;
  return [name, figure(value), peer, figure(peerValue), String(ratio)];
}
