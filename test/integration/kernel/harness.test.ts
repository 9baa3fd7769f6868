// The stacks, oracles, noise and movers that other tests rely on, by themselves: without any of it being mapped.
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { expect } from 'vitest';
import { MiB } from '../../support/stack.js';
import { makeFragmented } from './fragments.js';
import { Medium } from './medium.js';
import { defragment, punch, reflink, snapshot, truncate } from './movers.js';
import { NOISE_PROGRAMS, startNoise } from './noise.js';
import { fragmentsOf, HOLE, oracleOf, UNIT } from './oracle.js';
import { run } from './run.js';
import {
  FILE_SYSTEMS,
  type FileSystemName,
  type KernelStack,
  needsStacks,
  openKernelStack,
  schedulersOf,
  setQueue,
} from './stacks.js';

const BYTES = 80 * MiB;
const NAMES = Object.keys(FILE_SYSTEMS) as FileSystemName[];
const FOLLOWED = ['ext4 1k', 'ext4 2k', 'ext4 4k', 'xfs'] satisfies FileSystemName[];

const imageOf = ({ upper }: KernelStack) => path.join(upper.directory, 'a.img');
const mediaOf = ({ upper, lower }: KernelStack) =>
  new Map([upper, lower].map(({ device }) => [device, new Medium(device)]));

/** Units of the file that the oracle has at a place where there are not the bytes of the file; and those that it has. */
async function held(stack: KernelStack, file: string, content: Buffer): Promise<{ wrong: number; right: number }> {
  const media = mediaOf(stack);
  const found = { wrong: 0, right: 0 };
  for (const [device, places] of await oracleOf(stack, file, content.length)) {
    for (const [unit, place] of places.entries()) {
      if (place === HOLE) continue;
      const there = media.get(device)!.read(place, UNIT);
      ++found[there.equals(content.subarray(unit * UNIT, (unit + 1) * UNIT)) ? 'right' : 'wrong'];
    }
  }
  return found;
}

for (const name of NAMES) {
  needsStacks(`stacks of ${name}`, [name])(`files are in thousands of pieces: ${name}`, async () => {
    const stack = await openKernelStack({ upper: name });
    await makeFragmented(imageOf(stack), { bytes: BYTES });
    expect((await fragmentsOf(imageOf(stack))).length).toBeGreaterThan(4000);
    const below = path.join(stack.lower.directory, 'upper.img');
    expect((await fragmentsOf(below)).length).toBeGreaterThan(1000);
  });
}

for (const [upper, lower] of [...FOLLOWED.map((name) => [name, 'ext4 4k'] as const), ['ext4 2k', 'xfs'] as const]) {
  const subject = `${upper} on ${lower}`;
  needsStacks(`the oracle of ${subject}`, [upper, lower])(`what the oracle says is so: ${subject}`, async () => {
    const stack = await openKernelStack({ upper, lower });
    const bytes = 8 * MiB;
    const content = await makeFragmented(imageOf(stack), { bytes });
    expect(await held(stack, imageOf(stack), content)).toEqual({ wrong: 0, right: (2 * bytes) / UNIT });
    // It would be seen, were it not so.
    content.fill(0, 0, UNIT);
    expect(await held(stack, imageOf(stack), content)).toMatchObject({ wrong: 2 });
  });
}

needsStacks(
  'noise',
  ['ext4 4k'],
  ...NOISE_PROGRAMS,
)('noise goes on until it is stopped', async () => {
  const stack = await openKernelStack({ upper: 'ext4 4k' });
  const [above, below] = [
    await startNoise(stack.upper.directory),
    await startNoise(stack.lower.directory, { direct: false }),
  ];
  expect(await above.stop()).toBeGreaterThan(0);
  expect(await below.stop()).toBeGreaterThan(0);
  await startNoise(stack.upper.directory); // which the end of the test stops
});

needsStacks('schedulers', ['ext4 4k'])('queues are as they are set', async () => {
  const stack = await openKernelStack({ upper: 'ext4 4k' });
  const { device } = stack.upper;
  const file = `/sys/block/${path.basename(device)}/queue`;
  for (const scheduler of schedulersOf(device)) {
    setQueue(stack, device, 'scheduler', scheduler);
    expect(readFileSync(`${file}/scheduler`, 'utf8')).toContain(`[${scheduler}]`);
  }
  setQueue(stack, device, 'max_sectors_kb', '32');
  expect(readFileSync(`${file}/max_sectors_kb`, 'utf8').trim()).toBe('32');
});

/** How many bytes of a file are somewhere else than before. */
async function movedBy(stack: KernelStack, work: () => Promise<unknown>): Promise<number> {
  const places = async () => (await oracleOf(stack, imageOf(stack), BYTES)).get(stack.upper.device)!;
  const before = await places();
  await work();
  return (await places()).filter((place, unit) => place !== before[unit]).length * UNIT;
}

for (const [type, name] of [
  ['ext4', 'ext4 4k'],
  ['xfs', 'xfs'],
] as const) {
  const { programs, move } = defragment[type];
  needsStacks(
    `defragmenting ${name}`,
    [name],
    ...programs,
  )(`a file is moved as a whole: ${name}`, async () => {
    const stack = await openKernelStack({ upper: name });
    const content = await makeFragmented(imageOf(stack), { bytes: BYTES });
    expect(await movedBy(stack, () => move(imageOf(stack)))).toBeGreaterThan(BYTES / 2);
    expect((await fragmentsOf(imageOf(stack))).length).toBeLessThan(1000);
    expect(await held(stack, imageOf(stack), content)).toMatchObject({ wrong: 0 });
  });
}

needsStacks('holes and clones', ['xfs'])(
  'what is punched is a hole, and what is cloned moves when it is written',
  async () => {
    const stack = await openKernelStack({ upper: 'xfs' });
    const file = imageOf(stack);
    const content = await makeFragmented(file, { bytes: BYTES });
    await punch(file, MiB, MiB);
    await truncate(file, BYTES - MiB);
    const places = (await oracleOf(stack, file, BYTES)).get(stack.upper.device)!;
    const holes = places.filter((place) => place === HOLE).length * UNIT;
    expect(holes).toBe(2 * MiB);
    await reflink(file, `${file}.clone`);
    expect((await fragmentsOf(file)).every(({ flags }) => flags.includes('shared'))).toBe(true);
    const moved = await movedBy(stack, () =>
      run(
        'dd',
        'if=/dev/urandom',
        `of=${file}`,
        'bs=64k',
        'count=16',
        'seek=64',
        'conv=notrunc',
        'oflag=direct',
        'status=none',
      ),
    );
    expect(moved).toBe(MiB);
    expect(
      readFileSync(`${file}.clone`)
        .subarray(4 * MiB, 5 * MiB)
        .equals(content.subarray(4 * MiB, 5 * MiB)),
    ).toBe(true);
  },
);

needsStacks(
  'snapshots',
  ['btrfs nodatacow'],
  'btrfs',
)('what was snapshotted moves when it is written', async () => {
  const stack = await openKernelStack({ upper: 'btrfs nodatacow' });
  const content = await makeFragmented(imageOf(stack), { bytes: BYTES });
  const places = async () =>
    (await fragmentsOf(imageOf(stack))).filter(({ offset }) => offset < MiB).map(({ place }) => place);
  const before = await places();
  await snapshot(stack.upper.directory, 'before');
  const write = () =>
    run(
      'dd',
      'if=/dev/zero',
      `of=${imageOf(stack)}`,
      'bs=1M',
      'count=1',
      'conv=notrunc',
      'oflag=direct',
      'status=none',
    );
  await write();
  const after = await places();
  expect(after.some((place) => before.includes(place))).toBe(false);
  // Once moved it stays: it is shared no longer.
  await write();
  expect(await places()).toEqual(after);
  expect(readFileSync(path.join(stack.upper.directory, 'before', 'a.img')).equals(content)).toBe(true);
});
