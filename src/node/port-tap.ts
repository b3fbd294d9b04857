import type { Log } from '../core/capabilities.ts';
import type { DataPlane } from '../dataplane/data-plane.ts';
import type { OpenedTap, TapOpener } from '../io/linux/tap-opener.ts';

/** What {@link openPortTap} works with. */
export interface PortTapDeps {
  readonly dataPlane: DataPlane;
  readonly opener: TapOpener;
  readonly log: Log;
}

/**
 * Opens the TAP of a port, with a queue for each packet thread. One that an agent with a single packet thread
 * has made keeps its single queue until its task ends.
 *
 * @returns its descriptors are for `addPort`
 * @throws {Error} if the namespace or the device cannot be opened
 */
export async function openPortTap(
  { dataPlane, opener, log }: PortTapDeps,
  netnsPath: string,
  device: string,
): Promise<OpenedTap> {
  const { threads } = dataPlane;
  const opened = await opener.open(netnsPath, device, threads);
  if (opened.fds.length < threads) {
    log.info({ netnsPath, device, threads }, 'interface has one queue: one packet thread reads it');
  }
  return opened;
}
