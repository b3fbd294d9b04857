import { readdir, readFile, rm, writeFile } from 'node:fs/promises';
import type { Log } from '../../core/capabilities.ts';
import { killProcess, spawnDetached } from '../process.ts';
import { FdQueue, socketPair } from './fd-queue.ts';
import { check, close, pidfdGetfd, pidfdOpen } from './ffi.ts';

const SHELL = '/bin/sh';
/** What `ps` shows of a keeper, followed by the directory that it serves. */
const KEEPER_NAME = 'weft-keeper';
/** Waits for a line that nobody writes: its standard input's other end is its standard output. */
const KEEPER_SCRIPT = 'read -r never';
/** Descriptors of the keeper. */
const KEEPER_INLET = 3;
const KEEPER_OUTLET = 4;

/**
 * Keeps descriptors open while no agent runs, so that a TAP keeps its carrier and a port its socket,
 * and what arrives meanwhile waits in their queues. They lie in an {@link FdQueue} whose ends belong to
 * a process that does nothing; the next agent takes them out of it.
 *
 * An agent that cannot get at the last one's keeper does without, and opens everything anew.
 */
export class FdKeeper {
  readonly #queue: FdQueue;
  readonly #pid: number;
  readonly #file: string;
  /** What the last agent kept and nobody asked for yet. BOUNDED by the ports that it had. */
  readonly #offered: Map<string, number>;

  private constructor(
    queue: FdQueue,
    pid: number,
    file: string,
    offered: ReadonlyMap<string, number>,
  ) {
    this.#queue = queue;
    this.#pid = pid;
    this.#file = file;
    this.#offered = new Map(offered);
  }

  /**
   * Finds the keeper of the last agent, or starts one. No other agent may run on the same directory.
   *
   * @param directory - The agent's run directory. The keeper's process id is written there, to be
   *   found at once; without that it is looked for by its command line.
   * @throws {Error} if a process cannot be made
   */
  static async open(log: Log, directory: string): Promise<FdKeeper> {
    const file = `${directory}/keeper.pid`;
    const pid = await findKeeper(file, directory);
    const found = pid === undefined ? undefined : reach(pid);
    if (pid !== undefined && found !== undefined) {
      await noteKeeper(file, pid);
      return new FdKeeper(found, pid, file, offer(found));
    }
    if (pid !== undefined) {
      // What it holds would be in the way of what is opened anew.
      log.warn({ pid }, 'the descriptors of the last agent are out of reach, and are given up');
      killProcess(pid);
    }
    const queue = FdQueue.create();
    const started = await startKeeper(queue, directory);
    await noteKeeper(file, started);
    return new FdKeeper(queue, started, file, new Map());
  }

  /** The descriptor that the last agent kept under `name`; from now on it is the caller's as well. */
  take(name: string): number | undefined {
    const fd = this.#offered.get(name);
    this.#offered.delete(name);
    return fd;
  }

  /**
   * Keeps a copy of `fd`, until {@link drop}, even if the caller closes it.
   *
   * @returns whether there was room
   */
  keep(name: string, fd: number): boolean {
    return this.#queue.send({ name, fd });
  }

  /**
   * The descriptors that the last agent kept as a group, in order.
   *
   * @param count - Most that are wanted; what there is more is given up.
   */
  takeGroup(name: string, count: number): readonly number[] {
    const fds: number[] = [];
    for (;;) {
      const fd = this.take(memberName(name, fds.length));
      if (fd === undefined) break;
      fds.push(fd);
    }
    const unwanted = fds.splice(count);
    this.dropGroup(name, count, count + unwanted.length);
    for (const fd of unwanted) close(fd);
    return fds;
  }

  /**
   * Keeps copies of `fds` as a group, from number `first` on: those before it are kept already.
   *
   * @returns whether there was room
   */
  keepGroup(name: string, fds: readonly number[], first: number): boolean {
    return fds
      .slice(first)
      .map((fd, index) => this.keep(memberName(name, first + index), fd))
      .every((isKept) => isKept);
  }

  /** Closes the copies of a group's descriptors from number `first` to the one before `end`. */
  dropGroup(name: string, first: number, end: number): void {
    const names = new Set<string>();
    for (let index = first; index < end; index += 1) names.add(memberName(name, index));
    if (names.size > 0) this.drop(names);
  }

  /** Closes the copies of the descriptors with these names. */
  drop(names: ReadonlySet<string>): void {
    for (const one of this.#queue.receiveAll()) {
      if (!names.has(one.name)) this.#queue.send(one);
      close(one.fd);
    }
    for (const name of names) {
      const fd = this.take(name);
      if (fd !== undefined) close(fd);
    }
  }

  /** Gives up what the last agent kept and nobody asked for. Call it when all is attached again. */
  dropOffered(): void {
    if (this.#offered.size > 0) this.drop(new Set(this.#offered.keys()));
  }

  /** Lets go; what is kept stays for the next agent. */
  close(): void {
    this.#queue.close();
    for (const fd of this.#offered.values()) close(fd);
    this.#offered.clear();
  }

  /** Ends the keeper, and all that it kept with it. */
  async end(): Promise<void> {
    this.close();
    killProcess(this.#pid);
    await rm(this.#file, { force: true });
  }
}

/** What a member of a group is kept as; the first one has the group's name. */
function memberName(name: string, index: number): string {
  return index === 0 ? name : `${name}, ${index}`;
}

/** Copies of all that is in the queue, which stays there. */
function offer(queue: FdQueue): ReadonlyMap<string, number> {
  const all = queue.receiveAll();
  for (const one of all) queue.send(one);
  return new Map(all.map(({ name, fd }) => [name, fd]));
}

async function findKeeper(file: string, directory: string): Promise<number | undefined> {
  const noted = Number(await readFile(file, 'latin1').catch(() => ''));
  if (Number.isSafeInteger(noted) && noted > 0 && (await isKeeper(noted, directory))) return noted;
  const pids = (await readdir('/proc')).map(Number).filter(Number.isInteger);
  const keepers = await Promise.all(pids.map((pid) => isKeeper(pid, directory)));
  return pids.find((_, index) => keepers[index]);
}

async function noteKeeper(file: string, pid: number): Promise<void> {
  await writeFile(file, `${pid}\n`, { mode: 0o600 });
}

async function isKeeper(pid: number, directory: string): Promise<boolean> {
  const wanted = [SHELL, ...keeperArguments(directory)].map((word) => `${word}\0`).join('');
  return (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')) === wanted;
}

function keeperArguments(directory: string): readonly string[] {
  return ['-c', KEEPER_SCRIPT, KEEPER_NAME, directory];
}

/** Gets hold of the queue of a keeper; undefined if it just ended, or this process may not. */
function reach(pid: number): FdQueue | undefined {
  const pidfd = pidfdOpen(pid);
  if (pidfd < 0) return undefined;
  const inlet = pidfdGetfd(pidfd, KEEPER_INLET);
  const outlet = pidfdGetfd(pidfd, KEEPER_OUTLET);
  close(pidfd);
  if (inlet >= 0 && outlet >= 0) return new FdQueue(inlet, outlet);
  for (const fd of [inlet, outlet]) if (fd >= 0) close(fd);
  return undefined;
}

async function startKeeper(queue: FdQueue, directory: string): Promise<number> {
  const [stdin, stdout] = socketPair();
  try {
    const { pid } = await spawnDetached([SHELL, ...keeperArguments(directory)], {
      directory: '/',
      env: {},
      ...{ stdin, stdout, stderr: stdout, more: [queue.inlet, queue.outlet] },
    });
    return check(pid, 'spawn', 'keep descriptors for the next agent');
  } finally {
    close(stdin);
    close(stdout);
  }
}
