import type { AgentClient } from './agent-client.ts';
import { assessConvergence, type Convergence } from './convergence.ts';
import { refused } from './errors.ts';
import type { Terminal } from './terminal.ts';

/** Pause between two looks at the tasks, in milliseconds. */
const POLL_MS = 250;
/** A service counts as running when it was so this often in a row: for about a second. */
const STABLE_POLLS = 4;
/** A failed task that nothing replaced for this many looks (2 s) will not be replaced any more. */
const LOST_POLLS = 8;
/** More tasks than this are shown as a sum only (Docker's `maxProgressBars`). */
const TASK_LINES_MAX = 20;

/** How a wait is shown. */
export interface WaitOptions {
  readonly quiet: boolean;
}

/**
 * Waits until the tasks of a service run as its spec says, and shows how far they are. Ctrl-C ends
 * the wait, not the service.
 *
 * @param id - Of the service.
 * @throws {CliError} if a task failed and is not restarted
 */
export async function waitForService(
  client: AgentClient,
  terminal: Terminal,
  id: string,
  options: WaitOptions,
): Promise<void> {
  const display = new ProgressDisplay(terminal, options.quiet);
  const interrupt = new AbortController();
  const restore = terminal.onInterrupt(() => interrupt.abort());
  try {
    let stablePolls = 0;
    let lostPolls = 0;
    while (stablePolls < STABLE_POLLS) {
      const [service, tasks] = await Promise.all([
        client.service(id),
        client.tasks({ service: [id] }),
      ]);
      const progress = assessConvergence(service, tasks);
      display.show(progress);
      const lost = progress.slots.find((slot) => slot.isLost);
      lostPolls = lost === undefined ? 0 : lostPolls + 1;
      if (lost !== undefined && lostPolls >= LOST_POLLS) {
        const name = `${service.Spec?.Name ?? id}.${lost.name}`;
        throw refused(
          `Service did not converge: task ${name} ${lost.state}: ${lost.error || 'no reason given'}\n` +
            `See 'weft service ps --no-trunc ${id}' and 'weft service logs ${id}'`,
        );
      }
      stablePolls = progress.isConverged ? stablePolls + 1 : 0;
      if (stablePolls < STABLE_POLLS) await terminal.sleep(POLL_MS, interrupt.signal);
      if (interrupt.signal.aborted) {
        display.note(
          `Operation continuing in background.\nUse \`weft service ps ${id}\` to check progress.`,
        );
        return;
      }
    }
    display.note('verify: Service converged');
  } finally {
    restore();
  }
}

/** Shows progress: redrawn in place on a terminal, a line per change elsewhere. */
class ProgressDisplay {
  readonly #terminal: Terminal;
  readonly #isQuiet: boolean;
  #shown = '';
  #errors: ReadonlySet<string> = new Set();

  constructor(terminal: Terminal, isQuiet: boolean) {
    this.#terminal = terminal;
    this.#isQuiet = isQuiet;
  }

  show(progress: Convergence): void {
    if (this.#isQuiet) return;
    if (this.#terminal.isInteractive) this.#redraw(progress);
    else this.#append(progress);
  }

  note(text: string): void {
    if (!this.#isQuiet) this.#terminal.write(`${text}\n`);
  }

  #redraw(progress: Convergence): void {
    const text = [overall(progress), ...taskLines(progress)].map((line) => `${line}\n`).join('');
    if (text === this.#shown) return;
    const linesBefore = this.#shown.split('\n').length - 1;
    const eraseBefore = linesBefore === 0 ? '' : `\x1b[${linesBefore}A\x1b[J`;
    this.#terminal.write(eraseBefore + text);
    this.#shown = text;
  }

  #append(progress: Convergence): void {
    const text = overall(progress);
    if (text !== this.#shown) this.#terminal.write(`${text}\n`);
    this.#shown = text;
    const errors = progress.slots
      .filter((slot) => slot.error !== '' && !slot.isDone)
      .map((slot) => `${slot.name}: ${slot.error}`);
    for (const error of errors) {
      if (!this.#errors.has(error)) this.#terminal.write(`${error}\n`);
    }
    this.#errors = new Set(errors);
  }
}

function overall(progress: Convergence): string {
  return `overall progress: ${progress.done} out of ${progress.desired} tasks`;
}

function taskLines(progress: Convergence): string[] {
  if (progress.slots.length > TASK_LINES_MAX) return [];
  return progress.slots.map(
    ({ name, state, error, isDone }) => `${name}: ${isDone || error === '' ? state : error}`,
  );
}
