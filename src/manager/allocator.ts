import { IpamError } from '../ipam/errors.ts';
import { claimTaskAddresses } from './addresses.ts';
import type { ReconcilePass } from './reconcile-pass.ts';
import type { Draft } from './state-writer.ts';
import { isLive, withStatus } from './task-states.ts';

/**
 * Gives new tasks their addresses, all of a task's or none, and makes them pending. A task that a
 * network has no address for stays new and says so; each pass tries again, and there is one whenever
 * anything is released.
 */
export function allocateTasks(draft: Draft, pass: ReconcilePass): void {
  for (const task of [...draft.all('tasks')]) {
    if (task.status.state !== 'new' || !isLive(task)) continue;
    try {
      const attachments = claimTaskAddresses(draft, task);
      const status = { state: 'pending', message: 'pending task scheduling' } as const;
      draft.save('tasks', {
        ...withStatus(task, status, pass.nowMs),
        attachments,
        holdsAddresses: true,
      });
    } catch (error) {
      if (!(error instanceof IpamError)) throw error;
      if (task.status.err === error.message) continue; // Said already: an endless loop otherwise.
      const status = {
        state: 'new',
        message: 'pending task allocation',
        err: error.message,
      } as const;
      draft.save('tasks', withStatus(task, status, pass.nowMs));
    }
  }
}
