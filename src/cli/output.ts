import { type Command, Option } from 'commander';
import { formatTable } from './table.ts';
import type { Terminal } from './terminal.ts';

/** How a list is shown. */
export interface ListOptions {
  readonly format?: 'table' | 'json';
  readonly quiet?: boolean;
}

/** One object as Docker's `{{json .}}` shows it: texts as in the table, under Docker's names. */
export type Row = Readonly<Record<string, string | boolean>> & { readonly ID: string };

/** A table column: its heading, and the field of the row or a function of it. */
export type Column = readonly [heading: string, cell: string | ((row: Row) => string)];

/** Prints a list as a table, as one JSON object per line, or as ids only. */
export function printList(
  terminal: Terminal,
  columns: readonly Column[],
  rows: readonly Row[],
  options: ListOptions,
): void {
  if (options.quiet === true) {
    terminal.write(rows.map((row) => `${row.ID}\n`).join(''));
  } else if (options.format === 'json') {
    terminal.write(rows.map((row) => `${JSON.stringify(row)}\n`).join(''));
  } else {
    const cells = rows.map((row) =>
      columns.map(([, cell]) => (typeof cell === 'string' ? String(row[cell] ?? '') : cell(row))),
    );
    terminal.write(
      formatTable(
        columns.map(([heading]) => heading),
        cells,
      ),
    );
  }
}

/** Prints whole objects: an indented array as Docker does, or with `json` one object per line. */
export function printObjects(
  terminal: Terminal,
  objects: readonly unknown[],
  format: 'json' | undefined,
): void {
  if (format === 'json') {
    terminal.write(objects.map((object) => `${JSON.stringify(object)}\n`).join(''));
  } else {
    terminal.write(`${JSON.stringify(objects, undefined, 4)}\n`);
  }
}

/** Adds the flags of {@link ListOptions} to a command. */
export function addListOptions(command: Command): Command {
  return command
    .option('-q, --quiet', 'Only display IDs')
    .addOption(
      new Option('--format <format>', 'Print a table, or one JSON object per line').choices([
        'table',
        'json',
      ]),
    );
}

/** Adds `--format json` to a command that prints whole objects. */
export function addInspectOptions(command: Command): Command {
  return command.addOption(
    new Option(
      '--format <format>',
      'Print one JSON object per line, not an indented array',
    ).choices(['json']),
  );
}

/** Characters of an id that tables show (Docker's `stringid.TruncateID`). */
const SHORT_ID_LENGTH = 12;

/** The first characters of an id: enough to name the object on this cluster. */
export function shortId(id: string): string {
  return id.slice(0, SHORT_ID_LENGTH);
}

/** `running` as `Running`. */
export function capitalise(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** Orders names as people count: `web.2` before `web.10`. */
export function compareNames(a: string, b: string): number {
  return NAME_ORDER.compare(a, b);
}
const NAME_ORDER = new Intl.Collator('en', { numeric: true });
