// The file system moves data, or lets go of it, while the probe learns: by the bytes on the devices nothing that is
// mapped is ever wrong; what was read without a tag is `moving`, and what was overwritten is stale.
import { expect } from 'vitest';
import { MiB } from '../../support/stack.js';
import { overwriteFree } from './fragments.js';
import { BLOCK } from './load.js';
import { defragment, punch, reflink, snapshot, truncate } from './movers.js';
import { fragmentsOf } from './oracle.js';
import type { FileSystemName, StackOptions } from './stacks.js';
import { needsHint, Watched } from './watched.js';

const QUICK = 300; // I/Os; what counts here is not how many there are
const BYTES = 48 * MiB; // of the image
const STACK = 320 * MiB; // of the file system, which is filled up

async function opened(upper: FileSystemName, options: Partial<StackOptions> = {}): Promise<Watched> {
  const watched = await Watched.open({ upper, bytes: STACK, imageBytes: BYTES, ...options });
  // All of it is known before anything moves.
  for (let at = 0; at < BYTES; at += MiB / 4) await watched.load.write(at, MiB / 4);
  expect(watched.states().mapped).toBe(BYTES);
  watched.rightByBytes();
  return watched;
}

/**
 * Every block that is free is overwritten: whoever still took an old place for the data's would be wrong now. And then
 * the disk is used again.
 */
async function afterwards(watched: Watched): Promise<void> {
  watched.rightByBytes();
  await overwriteFree(watched.stack.upper.directory);
  watched.rightByBytes();
  await watched.load.run({ operations: QUICK });
  watched.rightByBytes();
}

for (const [type, upper] of [
  ['ext4', 'ext4 4k'],
  ['ext4', 'ext4 1k'],
  ['xfs', 'xfs'],
] as const) {
  const { programs, move } = defragment[type];
  const subject = `defragmenting ${upper}`;
  needsHint(
    subject,
    [upper, 'ext4 4k'],
    ...programs,
  )(`${subject}, while the disk is read`, async () => {
    const watched = await opened(upper);
    const before = (await fragmentsOf(watched.file)).length;
    const moved = move(watched.file);
    let over = false;
    const reads = (async () => {
      while (!over) await watched.load.run({ operations: 64, reads: 100 });
    })();
    await moved.finally(() => {
      over = true;
    });
    await reads;
    expect((await fragmentsOf(watched.file)).length).toBeLessThan(before / 2);
    // Where it is not read again, it was read by another.
    expect(watched.states().moving).toBeGreaterThan(0);
    await afterwards(watched);
  });
}

needsHint(
  'defragmenting ext4 under writes',
  ['ext4 4k'],
  ...defragment.ext4.programs,
)('defragmenting ext4, while the disk is written', async () => {
  const watched = await opened('ext4 4k');
  const moved = defragment.ext4.move(watched.file);
  await watched.load.run({ operations: QUICK });
  await moved;
  await afterwards(watched);
});

needsHint('holes', ['ext4 4k', 'xfs'])('what others punch and cut off goes stale when it is overwritten', async () => {
  for (const upper of ['ext4 4k', 'xfs'] satisfies FileSystemName[]) {
    const watched = await opened(upper);
    const { file, load } = watched;
    for (let at = 0; at < 8 * MiB; at += MiB) await punch(file, at, MiB / 2);
    await truncate(file, BYTES - 8 * MiB);
    await truncate(file, BYTES);
    // What was acknowledged is where it was, until the blocks are used again.
    watched.rightByBytes();
    await overwriteFree(watched.stack.upper.directory);
    watched.rightByBytes();
    const { mapped, stale, unknown } = watched.states();
    expect(mapped).toBeLessThan(BYTES - 8 * MiB); // a file system keeps a little free
    expect(mapped + stale + unknown).toBe(BYTES);
    // It reads as zeroes since, which nobody has written: it is written before it is read.
    for (let at = 0; at < 8 * MiB; at += MiB) await load.write(at, MiB / 2);
    for (let at = BYTES - 8 * MiB; at < BYTES; at += MiB) await load.write(at, MiB);
    await load.run({ operations: QUICK });
    watched.rightByBytes();
    expect(watched.states().mapped).toBeGreaterThan(mapped);
  }
});

needsHint('discards', ['ext4 4k', 'xfs'])('what the disk discards is nowhere', async () => {
  for (const upper of ['ext4 4k', 'xfs'] satisfies FileSystemName[]) {
    const watched = await opened(upper);
    const { disk, load, map } = watched;
    await disk.discard(4 * MiB, 4 * MiB);
    load.content.fill(0, 4 * MiB, 8 * MiB);
    await disk.writeZeroes(16 * MiB, MiB);
    load.content.fill(0, 16 * MiB, 17 * MiB);
    expect(map.locate(disk, 4 * MiB, 4 * MiB).some(({ state }) => state === 'mapped')).toBe(false);
    await afterwards(watched);
  }
});

needsHint('copy on write', ['xfs', 'ext4 4k'])('what is cloned moves when it is written: xfs', async () => {
  const watched = await opened('xfs');
  for (let round = 0; round < 3; ++round) {
    await reflink(watched.file, `${watched.file}.${round}`);
    await watched.load.run({ operations: QUICK / 3, longest: 32 * BLOCK });
    watched.rightByBytes();
  }
  await watched.rightByPlaces();
  await afterwards(watched);
});

needsHint(
  'snapshots',
  ['btrfs nodatacow', 'ext4 4k'],
  'btrfs',
)('what is snapshotted moves when it is written: btrfs', async () => {
  const watched = await opened('btrfs nodatacow');
  const places = async () => new Map((await fragmentsOf(watched.file)).map(({ offset, place }) => [offset, place]));
  const before = await places();
  for (let round = 0; round < 3; ++round) {
    await snapshot(watched.stack.upper.directory, `before-${round}`);
    await watched.load.run({ operations: QUICK / 3, longest: 32 * BLOCK });
    watched.rightByBytes();
  }
  const after = await places();
  expect([...before].some(([offset, place]) => after.get(offset) !== place)).toBe(true);
  await afterwards(watched);
});
