import { Command, Help, Option } from 'commander';
import type { AgentClient } from './agent-client.ts';
import { CliError, isExpected } from './errors.ts';
import type { Terminal } from './terminal.ts';
import { collect, type Parse } from './values.ts';

/** What every command is given. */
export interface Cli {
  readonly terminal: Terminal;
  /** The agent that `--host` or `WEFT_HOST` names. @throws {CliError} if that is no address */
  client(): AgentClient;
}

/** A command that reports a wrong command line by throwing, and knows its own full name. */
export class WeftCommand extends Command {
  override createCommand(name?: string): WeftCommand {
    return new WeftCommand(name).helpOption('-h, --help', 'Show this help').helpCommand(false);
  }

  override createHelp(): Help {
    return Object.assign(new WeftHelp(), this.configureHelp());
  }

  /** @throws {CliError} always, in weft's form of commander's message */
  override error(message: string): never {
    const sentence = message
      .replace(/^error: /, '')
      .replace(/\. Allowed choices are (.*)\.$/, ': expected one of $1')
      .replace(/( is invalid(?: for argument '\S+')?)\. /, '$1: ')
      .replace(/\n\(Did you mean (.*)\?\)/s, ', did you mean $1?');
    throw new CliError(
      { code: 'USAGE', command: fullName(this) },
      sentence.charAt(0).toUpperCase() + sentence.slice(1),
    );
  }
}

/** Commander's help with less noise: commands by name, no default of flags that start as a list. */
class WeftHelp extends Help {
  override subcommandTerm(command: Command): string {
    return command.name();
  }

  override optionDescription(option: Option): string {
    const { defaultValue } = option;
    const isEmptyList = Array.isArray(defaultValue) && defaultValue.length === 0;
    return isEmptyList ? option.description : super.optionDescription(option);
  }
}

/** `weft service create`. */
export function fullName(command: Command): string {
  const parent = command.parent === null ? '' : `${fullName(command.parent)} `;
  return parent + command.name();
}

/** A flag that may be given several times; its values make a list. */
export function repeatable<T>(flags: string, description: string, parse: Parse<T>): Option {
  return new Option(flags, `${description} (repeatable)`).argParser(collect(parse)).default([]);
}

/**
 * Does `act` for each of `targets` in turn, and goes on when one fails.
 *
 * @throws {CliError} at the end, with the messages of all that failed
 */
export async function forEachTarget(
  targets: readonly string[],
  act: (target: string) => Promise<void>,
): Promise<void> {
  const failures: Error[] = [];
  for (const target of targets) {
    try {
      await act(target);
    } catch (error) {
      if (!isExpected(error)) throw error;
      failures.push(error);
      if (error.detail.code === 'UNREACHABLE') break; // the others would say the same
    }
  }
  const [first, ...more] = failures;
  if (first === undefined) return;
  if (more.length === 0) throw first;
  const message = failures.map((failure) => failure.message).join('\n');
  throw new CliError({ code: 'TARGETS' }, message, { cause: first });
}
