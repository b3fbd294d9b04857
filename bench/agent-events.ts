import type { LabAgent } from '../test/support/cluster.ts';

/** A line of an agent's log, as far as benches read it. */
export interface AgentEvent {
  /** In milliseconds since the epoch. */
  readonly atMs: number;
  readonly msg: string;
  /** Of `member changed`. */
  readonly node?: string;
  readonly change?: string;
  /** Of `task`. */
  readonly taskId?: string;
  readonly state?: string;
}

/** What an agent has logged from `sinceMs` on, as far as its last part is still there. */
export function eventsOf({ log }: LabAgent, sinceMs: number): readonly AgentEvent[] {
  return log.split('\n').flatMap((line): AgentEvent[] => {
    if (!line.startsWith('{') || !line.endsWith('}')) return [];
    const event = JSON.parse(line) as Omit<AgentEvent, 'atMs'> & { readonly time: string };
    const atMs = Date.parse(event.time);
    return atMs >= sinceMs ? [{ ...event, atMs }] : [];
  });
}

/** When it first logged that a member has failed; undefined if it did not. */
export function failedMs(agent: LabAgent, nodeId: string, sinceMs: number): number | undefined {
  const isIt = ({ msg, node, change }: AgentEvent): boolean =>
    msg === 'member changed' && change === 'failed' && node === nodeId;
  return eventsOf(agent, sinceMs).find(isIt)?.atMs;
}
