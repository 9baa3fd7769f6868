// Maps through real stacks of the kernel, learned from live I/O: identical with FIEMAP (on btrfs with the bytes) on both
// devices, and complete. SM_NIGHTLY=1 (npm run verify:kernel) has the full number of I/Os.
import { expect } from 'vitest';
import { BLOCK } from './load.js';
import { reflink } from './movers.js';
import { fragmentsOf } from './oracle.js';
import type { FileSystemName } from './stacks.js';
import { needsHint, operations, Watched, type WatchedOptions } from './watched.js';

const FOLLOWED = ['ext4 1k', 'ext4 2k', 'ext4 4k', 'xfs'] satisfies FileSystemName[];
const onFollowed = needsHint('maps through ext4 and xfs', FOLLOWED);
const onBtrfs = needsHint('maps through btrfs', ['btrfs nodatacow', 'ext4 4k']);

/** Reads all of the disk, in small requests. */
async function readAgain({ disk }: Watched): Promise<void> {
  const parts = Array.from({ length: 32 }, () => Buffer.alloc(BLOCK));
  for (let at = 0; at < disk.size; at += parts.length * BLOCK)
    await Promise.all(parts.map((part, i) => at + i * BLOCK < disk.size && disk.read(at + i * BLOCK, part)));
}

/**
 * Everything that passed is mapped, on both devices, and rightly. On the lower one something may be left for the next
 * time that it passes: where two threads of the kernel passed on at once what has the same length.
 */
async function complete(watched: Watched): Promise<void> {
  let missed = await watched.rightByPlaces();
  const { stats } = watched.probe;
  expect(missed[0], JSON.stringify(stats)).toBe(0);
  if (missed[1] > 0) expect(stats.kernel.unordered, JSON.stringify([missed, stats])).toBeGreaterThan(0);
  expect(missed[1], JSON.stringify(stats)).toBeLessThan(watched.disk.size / 20);
  for (let again = 0; missed[1] > 0 && again < 5; ++again) {
    await readAgain(watched);
    missed = await watched.rightByPlaces();
  }
  expect(missed).toEqual([0, 0]);
  expect(stats).toMatchObject({ unrecorded: 0, evidenceLost: 0, losses: 0 });
  expect(watched.states().shared).toBe(0);
  await watched.verified();
}

async function loaded(options: WatchedOptions, many = operations(1000)): Promise<Watched> {
  const watched = await Watched.open(options);
  await watched.load.run({ operations: many });
  return watched;
}

for (const upper of FOLLOWED) {
  onFollowed(`what passes is mapped, all of it and rightly: ${upper}`, async () => {
    const watched = await loaded({ upper });
    expect((await fragmentsOf(watched.file)).length).toBeGreaterThan(4000);
    await complete(watched);
  });
}

onFollowed('the same on xfs beneath xfs', async () => {
  await complete(await loaded({ upper: 'xfs', lower: 'xfs' }));
});

onFollowed('what is mapped of a file that shares its extents with copies is right: xfs', async () => {
  const prepare = async (_: unknown, file: string) => {
    await reflink(file, `${file}.one`);
    await reflink(file, `${file}.two`);
    expect((await fragmentsOf(file)).every(({ flags }) => flags.includes('shared'))).toBe(true);
  };
  const watched = await loaded({ upper: 'xfs', prepare });
  await complete(watched);
  expect((await fragmentsOf(watched.file)).some(({ flags }) => !flags.includes('shared'))).toBe(true);
});

for (const upper of ['ext4 4k', 'xfs'] satisfies FileSystemName[]) {
  onFollowed(`the same of a file that gets its blocks as it is written: ${upper}`, async () => {
    await complete(await loaded({ upper, sparse: true }));
  });

  onFollowed(`what goes without a tag is never wrong: ${upper}`, async () => {
    const watched = await loaded({ upper, tagging: 'adaptive' }, operations(600));
    await watched.rightByPlaces();
    // Now most of it is known. Short ones, again and again.
    await watched.load.run({ operations: operations(2000), longest: 16 * BLOCK });
    const [missed] = await watched.rightByPlaces();
    expect(watched.probe.stats.kernel.predicted).toBeGreaterThan(0);
    if (missed > 0) expect(watched.excuses()).toBeGreaterThan(0);
    await watched.verified();
  });
}

onBtrfs('what is mapped through btrfs without copy on write is what is there', async () => {
  const watched = await loaded({ upper: 'btrfs nodatacow' });
  const [upper, lower] = watched.rightByBytes();
  expect(Math.min(upper, lower)).toBeGreaterThan(watched.disk.size / 2);
  await watched.verified();
});
