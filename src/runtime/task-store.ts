import { mkdir, open, readdir, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Log } from '../core/capabilities.ts';
import type { TaskRecord } from './task-lifecycle.ts';

/** Where a node remembers its tasks while no manager answers, and across its own restarts. */
export class TaskStore {
  readonly #log: Log;
  readonly #directory: string;

  /** @param directory - Holds one file per task. Two agents never share one. */
  constructor(deps: { readonly log: Log }, directory: string) {
    this.#log = deps.log;
    this.#directory = directory;
  }

  /** All records. One that cannot be read is logged and left out. */
  async list(): Promise<readonly TaskRecord[]> {
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    const names = (await readdir(this.#directory)).filter((name) => name.endsWith('.json')).sort();
    const records = await Promise.all(names.map((name) => this.#read(join(this.#directory, name))));
    return records.filter((record) => record !== undefined);
  }

  async #read(path: string): Promise<TaskRecord | undefined> {
    try {
      const record = JSON.parse(await readFile(path, 'utf8')) as Partial<TaskRecord>;
      const { assignment, status } = record;
      if (assignment !== undefined && status?.taskId === assignment.id) {
        return { assignment, status };
      }
      throw new Error('Cannot read a task record: expected an assignment and its status');
    } catch (error) {
      this.#log.error({ error, path }, 'a task record is unreadable, the task is given up');
      return undefined;
    }
  }

  /**
   * Writes a record in one piece; durable when it resolves. Calls for one task must not overlap.
   *
   * @throws {Error} the operating system's error, such as ENOSPC
   */
  async save(record: TaskRecord): Promise<void> {
    const path = this.#path(record.assignment.id);
    const file = await open(`${path}.new`, 'w', 0o600); // variables of a task may be secret
    try {
      await file.writeFile(JSON.stringify(record));
      await file.datasync();
    } finally {
      await file.close();
    }
    await rename(`${path}.new`, path);
    await syncDirectory(this.#directory);
  }

  /** Forgets a task. */
  async remove(taskId: string): Promise<void> {
    await rm(this.#path(taskId), { force: true });
  }

  #path(taskId: string): string {
    return join(this.#directory, `${taskId}.json`);
  }
}

/** Makes a rename durable. */
async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}
