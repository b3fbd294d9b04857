import type { EndpointChange } from '../gossip/effects.ts';
import type { MemberState } from '../gossip/member.ts';
import { EndpointLog } from './endpoint-log.ts';
import type { EndpointView } from './endpoint-view.ts';

/** How long what an earlier agent knew is believed before gossip has told of a node. */
const BELIEVED_MS = 15_000;

/**
 * Keeps a view of what the nodes announce, and what the other ones announced when this host's agent was last
 * alive. A new agent starts from that: until gossip has told of a node anew, its endpoints are where they
 * were, and flows to them go on.
 */
export class RememberedEndpoints {
  readonly #view: EndpointView;
  readonly #self: string;
  readonly #log: EndpointLog;
  readonly #onExpired: () => void;
  /** Nodes that are believed to be as the last agent knew them. */
  readonly #believed = new Set<string>();
  #expiry: NodeJS.Timeout | undefined;

  /**
   * @param self - Id of this node.
   * @param path - On a tmpfs: after a boot nothing of it is true any more.
   * @param onExpired - Told when what was remembered is no longer believed, and gone from the view.
   */
  constructor(view: EndpointView, self: string, path: string, onExpired: () => void) {
    this.#view = view;
    this.#self = self;
    this.#log = new EndpointLog(path, () => view.others());
    this.#onExpired = onExpired;
  }

  /** Reads what was remembered, before gossip tells anything. A file that cannot be read is as good as none. */
  async load(): Promise<void> {
    for (const [node, entries] of await this.#log.read()) {
      if (entries.size === 0 || node === this.#self) continue;
      this.#believed.add(node);
      const added = Array.from(entries, ([key, value]) => ({ key, value }));
      this.#view.change({ node, added, changed: [], removed: [] });
    }
    if (this.#believed.size === 0) return;
    this.#expiry = setTimeout(() => {
      for (const node of this.#believed) this.#forget(node);
      this.#onExpired();
    }, BELIEVED_MS);
  }

  /** Whether what the view shows of a node is what the last agent knew. */
  isBelieved(node: string): boolean {
    return this.#believed.has(node);
  }

  /** Takes what gossip tells of a node's entries, this one included. */
  change(change: EndpointChange): void {
    this.#forget(change.node);
    this.#view.change(change);
    if (change.node !== this.#self) this.#log.note(change);
  }

  /** Takes what gossip tells of a member. */
  setMember(node: string, state: MemberState): void {
    if (state === 'dead' || state === 'left') this.#forget(node);
    this.#view.suspect(node, state === 'suspect');
  }

  /** Writes what is not written yet. */
  async close(): Promise<void> {
    clearTimeout(this.#expiry);
    await this.#log.close();
  }

  #forget(node: string): void {
    if (!this.#believed.delete(node)) return;
    this.#view.drop(node);
    this.#log.forget(node);
  }
}
