import { once } from 'node:events';
import type { Worker } from 'node:worker_threads';
import { test } from 'tap';
import { TapOpener } from '../../src/io/linux/tap-opener.ts';

const NOWHERE = '/run/netns/weft-there-is-no-such-namespace';

test('a thread opens what is asked for at once, ends when idle, and starts again', async (t) => {
  const exits: Promise<unknown>[] = []; // one per thread that was started
  const watch = (worker: Worker) => void exits.push(once(worker, 'exit'));
  process.on('worker', watch);
  t.teardown(() => process.off('worker', watch));
  const opener = new TapOpener(undefined, 1);
  t.teardown(() => opener.close());
  await Promise.all([
    t.rejects(opener.open(NOWHERE, 'tap0', 1), { code: 'ENOENT' }),
    t.rejects(opener.open(NOWHERE, 'tap1', 1), { code: 'ENOENT' }),
  ]);
  t.equal(exits.length, 1, 'one thread served both');
  await exits[0];
  await t.rejects(
    opener.open(NOWHERE, 'tap0', 1),
    { code: 'ENOENT' },
    'the next one is served, too',
  );
  t.equal(exits.length, 2);
  await exits[1];
});

test('close() refuses what is under way, and the thread ends', async (t) => {
  const started = once(process, 'worker') as Promise<[Worker]>;
  const opener = new TapOpener();
  const refused = t.rejects(opener.open(NOWHERE, 'tap0', 1), {
    message: 'Cannot open a TAP: the opener was closed',
  });
  const [worker] = await started;
  const ended = once(worker, 'exit');
  await opener.close();
  await Promise.all([refused, ended]);
});
