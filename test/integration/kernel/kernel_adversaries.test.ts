// The same stacks, with everything beneath that reorders, cuts and mixes requests: nothing that is mapped is wrong, and
// what is missed is counted.
import { expect } from 'vitest';
import { unless } from '../../support/machine.js';
import { NOISE_PROGRAMS, startNoise } from './noise.js';
import { type FileSystemName, lacksScheduler, setQueue } from './stacks.js';
import { lacksHint, needsHint, operations, Watched, type WatchedOptions } from './watched.js';

const BOTH = ['ext4 4k', 'xfs'] satisfies FileSystemName[];
const QUICK = 600; // I/Os
const ORDERS = [
  ['mq-deadline', 'bfq'],
  ['bfq', 'mq-deadline'],
] as const;
const noSchedulers = lacksScheduler(...ORDERS[0]);
const inOrder = unless('adversarial schedulers', lacksHint(BOTH), noSchedulers);
const inNoise = needsHint('noise on the devices', BOTH, ...NOISE_PROGRAMS);
const inBoth = unless('noise and adversarial schedulers', lacksHint(BOTH, ...NOISE_PROGRAMS), noSchedulers);

/** What passed is mapped rightly, or counted among what could not be. */
async function neverWrong(watched: Watched): Promise<void> {
  const missed = await watched.rightByPlaces();
  expect(watched.states().mapped).toBeGreaterThan(0);
  if (Math.max(...missed) > 0) expect(watched.excuses()).toBeGreaterThan(0);
}

/** With these schedulers, and requests of at most 32 KiB on both devices. */
const cut = (options: WatchedOptions, [above, below]: readonly [string, string]): Promise<Watched> =>
  Watched.open({
    ...options,
    async prepare(stack) {
      for (const { device } of [stack.upper, stack.lower]) setQueue(stack, device, 'max_sectors_kb', '32');
      setQueue(stack, stack.upper.device, 'scheduler', above);
      setQueue(stack, stack.lower.device, 'scheduler', below);
    },
  });

for (const upper of BOTH) {
  for (const order of ORDERS) {
    inOrder(`${order.join(' above ')}, requests of 32 KiB: ${upper}`, async () => {
      const watched = await cut({ upper }, order);
      await watched.load.run({ operations: operations(QUICK) });
      await neverWrong(watched);
    });
  }

  for (const direct of [true, false]) {
    inNoise(`another process does ${direct ? 'direct' : 'buffered'} I/O in the file system: ${upper}`, async () => {
      const watched = await Watched.open({ upper });
      const noise = await startNoise(watched.stack.upper.directory, { direct });
      await watched.load.run({ operations: operations(QUICK) });
      expect(await noise.stop()).toBeGreaterThan(0);
      expect(unattributed(watched, watched.upper)).toBeGreaterThan(0);
      await neverWrong(watched);
    });
  }

  inNoise(`noise in the file system beneath: ${upper}`, async () => {
    const watched = await Watched.open({ upper });
    const noise = await startNoise(watched.stack.lower.directory);
    await watched.load.run({ operations: operations(QUICK) });
    expect(await noise.stop()).toBeGreaterThan(0);
    expect(unattributed(watched, watched.lower)).toBeGreaterThan(0);
    await neverWrong(watched);
  });

  inBoth(`all of it at once: ${upper}`, async () => {
    const watched = await cut({ upper, tagging: 'adaptive' }, ORDERS[0]);
    const { directory } = watched.stack.upper;
    const noise = [await startNoise(directory), await startNoise(watched.stack.lower.directory, { direct: false })];
    await watched.load.run({ operations: operations(QUICK) });
    for (const each of noise) expect(await each.stop()).toBeGreaterThan(0);
    await neverWrong(watched);
  });
}

const unattributed = ({ map }: Watched, device: string): number =>
  map.ledger().devices[device]?.unattributed.operations ?? 0;
