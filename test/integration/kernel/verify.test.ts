// `verify` on real stacks: maps that are right, and maps that are wrong on purpose, whose every byte has to be told apart.
import { closeSync, fdatasyncSync, linkSync, mkdirSync, openSync, renameSync, writeSync } from 'node:fs';
import path from 'node:path';
import { type DeviceVerification, type Extent, type MapReader, verify } from 'stratamap';
import { expect } from 'vitest';
import { tmpFile } from '../../support/files.js';
import { failureOf, MiB, pattern } from '../../support/stack.js';
import { makeFragmented } from './fragments.js';
import { fragmentsOf, oracleOf, UNIT } from './oracle.js';
import { run } from './run.js';
import { type FileSystemName, type KernelStack, makeSparse, memory, needsStacks, openKernelStack } from './stacks.js';

const BLOCK = 4096;
const BYTES = 20 * MiB; // of the image: more than one window, and not a whole number of them
const DISK = 'vm-1/vda';

const FOLLOWED = ['ext4 1k', 'ext4 4k', 'xfs'] satisfies FileSystemName[];
const onStacks = needsStacks('verify on stacks of file systems', FOLLOWED);
const onBtrfs = needsStacks('verify on btrfs', ['btrfs nodatacow', 'btrfs checksums'], 'btrfs-map-logical');

/** A map that says what it is given: extents in order, that do not overlap. */
class Told implements MapReader {
  extents: Extent[];
  /** Called before each answer. */
  onLocate = () => {};

  constructor(extents: Extent[]) {
    this.extents = extents;
  }

  locate(_: unknown, offset: number, length: number): Extent[] {
    this.onLocate();
    const end = offset + length;
    const answer: Extent[] = [];
    let at = offset;
    const add = (to: number, extent?: Extent) => {
      if (to <= at) return;
      const places = (extent?.places ?? []).map((place) => ({
        ...place,
        offset: place.offset + at - (extent as Extent).diskOffset,
      }));
      const { state = 'unknown', moving = false, shared = false } = extent ?? {};
      answer.push({ diskOffset: at, length: to - at, state, moving, shared, places });
      at = to;
    };
    for (const extent of this.extents) {
      if (extent.diskOffset + extent.length <= at || extent.diskOffset >= end) continue;
      add(extent.diskOffset);
      add(Math.min(extent.diskOffset + extent.length, end), extent);
    }
    add(end);
    return answer;
  }
}

const continues = ({ diskOffset, length, places }: Extent, unit: number, i: number, offset: number) =>
  diskOffset + length === unit * UNIT && places[i]!.offset + length === offset;

/** What a probe would have learned, had it missed nothing. */
async function truthOf(stack: KernelStack, file: string): Promise<Told> {
  const oracle = [...(await oracleOf(stack, file, BYTES))];
  const extents: Extent[] = [];
  for (let unit = 0; unit < BYTES / UNIT; ++unit) {
    const places = oracle.map(([device, of]) => ({ device, offset: of[unit] as number }));
    if (places.some(({ offset }) => offset < 0)) continue;
    const last = extents.at(-1);
    if (last && places.every(({ offset }, i) => continues(last, unit, i, offset))) last.length += UNIT;
    else extents.push({ diskOffset: unit * UNIT, length: UNIT, state: 'mapped', moving: false, shared: false, places });
  }
  return new Told(extents);
}

async function openImage(upper: FileSystemName, fill = true) {
  const stack = await openKernelStack({ upper });
  mkdirSync(path.join(stack.upper.directory, 'vm-1'));
  const file = path.join(stack.upper.directory, 'vm-1', 'vda.img');
  const content = fill ? await makeFragmented(file, { bytes: BYTES }) : undefined;
  return { stack, file, content, devices: [stack.upper.device, stack.lower.device] as const };
}

const nothing = { agreeing: 0, differing: 0, incomparable: 0, moved: 0 };
const unread = { equal: 0, different: 0, incomparable: 0, moved: 0 };
const whole = (device: string, changes: Partial<DeviceVerification> = {}): DeviceVerification => ({
  device,
  mapped: BYTES,
  stale: 0,
  unknown: 0,
  written: BYTES,
  found: BYTES,
  fiemap: { ...nothing, agreeing: BYTES },
  bytes: { ...unread, equal: BYTES },
  precision: 1,
  recall: 1,
  staleness: 0,
  ...changes,
});

for (const name of FOLLOWED) {
  onStacks(`a right map is right on both devices: ${name}`, async () => {
    const { stack, file, devices } = await openImage(name);
    const map = await truthOf(stack, file);
    expect(map.extents.length).toBeGreaterThan(1000);
    const progress: number[][] = [];
    const verified = await verify(map, { disk: DISK, file, onProgress: (...each) => progress.push(each) });
    expect(verified).toEqual({
      vm: 'vm-1',
      name: 'vda',
      file,
      devices: devices.map((device) => whole(device)),
      wrong: [],
    });
    expect(progress).toEqual([
      [16 * MiB, BYTES],
      [BYTES, BYTES],
    ]);
  });

  onStacks(`each byte that is wrong is told: ${name}`, async () => {
    const { stack, file, devices } = await openImage(name);
    const map = await truthOf(stack, file);
    // Two of the extents, each on one device: a block further, and where another one is.
    const [a, b] = [map.extents[7], map.extents.at(-7)] as [Extent, Extent];
    a.places[0]!.offset += BLOCK;
    b.places[1]!.offset = map.extents[500]!.places[1]!.offset;
    const { devices: found, wrong } = await verify(map, { disk: DISK, file });
    const off = (length: number): Partial<DeviceVerification> => ({
      fiemap: { ...nothing, agreeing: BYTES - length, differing: length },
      bytes: { ...unread, equal: BYTES - length, different: length },
      precision: (BYTES - length) / BYTES,
    });
    expect(found).toEqual([whole(devices[0], off(a.length)), whole(devices[1], off(b.length))]);
    expect(wrong).toMatchObject([
      { diskOffset: a.diskOffset, device: devices[0], offset: a.places[0]!.offset },
      { diskOffset: b.diskOffset, device: devices[1], offset: b.places[1]!.offset },
    ]);
    for (const { why } of wrong) expect(why).toContain('on the device, and');
  });
}

onStacks('what is stale or missing is counted, and is not wrong', async () => {
  const { stack, file, devices } = await openImage('ext4 4k');
  const map = await truthOf(stack, file);
  const [gone, stale] = [map.extents[11], map.extents[12]] as [Extent, Extent];
  // Wherever it says that stale bytes are.
  stale.state = 'stale';
  stale.places[0]!.offset += 7 * BLOCK;
  map.extents = map.extents.filter((each) => each !== gone);
  const mapped = BYTES - gone.length - stale.length;
  const counts = {
    mapped,
    found: mapped,
    stale: stale.length,
    unknown: gone.length,
    fiemap: { ...nothing, agreeing: mapped },
    bytes: { ...unread, equal: mapped },
    recall: mapped / BYTES,
    staleness: stale.length / (mapped + stale.length),
  };
  expect(await verify(map, { disk: DISK, file })).toMatchObject({
    devices: devices.map((device) => whole(device, counts)),
    wrong: [],
  });
});

onStacks('what the map takes back while it is looked at counts as moved', async () => {
  const { stack, file, devices } = await openImage('ext4 4k');
  const map = await truthOf(stack, file);
  const extent = map.extents[20] as Extent;
  extent.places[0]!.offset += BLOCK;
  // As where the guest writes: the first answer for the window, then others.
  map.onLocate = () => {
    map.onLocate = () => {
      extent.state = 'unknown';
    };
  };
  const { devices: found, wrong } = await verify(map, { disk: DISK, file });
  const moved = extent.length;
  expect(found[0]).toEqual(
    whole(devices[0], {
      fiemap: { ...nothing, agreeing: BYTES - moved, moved },
      bytes: { ...unread, equal: BYTES - moved, moved },
    }),
  );
  expect(wrong).toEqual([]);
});

onStacks('the same bytes at another place are no error, and are told apart', async () => {
  const { stack, file, devices } = await openImage('xfs');
  const map = await truthOf(stack, file);
  linkSync(file, `${file}.old`);
  await run('cp', '--reflink=never', file, `${file}.new`);
  await run('sync', '-f', file);
  renameSync(`${file}.new`, file);
  expect(await verify(map, { disk: DISK, file })).toMatchObject({
    devices: devices.map((device) => whole(device, { fiemap: { ...nothing, differing: BYTES } })),
    wrong: [],
  });
});

onStacks('a hole holds nothing', async () => {
  const { stack, file, devices } = await openImage('ext4 4k', false);
  makeSparse(file, BYTES);
  const fd = openSync(file, 'r+');
  writeSync(fd, pattern(MiB), 0, MiB, 2 * MiB);
  closeSync(fd);
  const map = await truthOf(stack, file);
  const known = { mapped: MiB, found: MiB, written: MiB };
  const right = { fiemap: { ...nothing, agreeing: MiB }, bytes: { ...unread, equal: MiB } };
  expect((await verify(map, { disk: DISK, file })).devices).toEqual(
    devices.map((device) => whole(device, { ...known, ...right })),
  );
  // All of it, a block before.
  for (const extent of map.extents) extent.diskOffset -= BLOCK;
  const shifted = await verify(map, { disk: DISK, file });
  for (const device of shifted.devices) {
    expect(device).toMatchObject({ mapped: MiB, found: MiB - BLOCK, precision: 0, unknown: BLOCK });
    expect(device.fiemap).toEqual({ ...nothing, differing: MiB });
  }
});

onStacks('blocks that are written all the time are no error', async () => {
  const { stack, file } = await openImage('ext4 4k');
  const map = await truthOf(stack, file);
  const fd = openSync(file, 'r+');
  let over = false;
  let serial = 2;
  const writing = (async () => {
    while (!over) {
      // In place: no mapping changes.
      for (let block = 0; block < 64; ++block) writeSync(fd, pattern(BLOCK, ++serial), 0, BLOCK, block * BLOCK);
      fdatasyncSync(fd);
      await new Promise((resolve) => setImmediate(resolve));
    }
  })();
  try {
    for (let round = 0; round < 20; ++round) {
      const { devices, wrong } = await verify(map, { disk: DISK, file, offset: 0, length: MiB });
      expect(wrong).toEqual([]);
      for (const { mapped, bytes } of devices) {
        expect(mapped).toBe(MiB);
        expect(bytes).toMatchObject({ different: 0, incomparable: 0 });
        expect(bytes.equal + bytes.moved).toBe(MiB);
      }
    }
  } finally {
    over = true;
    await writing;
    closeSync(fd);
  }
});

onBtrfs('on btrfs the bytes decide: its FIEMAP means something else', async () => {
  const { file, devices } = await openImage('btrfs nodatacow');
  const extents: Extent[] = [];
  for (const { offset, length, place } of (await fragmentsOf(file)).slice(0, 20)) {
    const said = await run('btrfs-map-logical', '-l', `${place}`, devices[0]);
    const physical = Number(/^mirror 1 logical \d+ physical (\d+) /m.exec(said)?.[1]);
    const places = [{ device: devices[0], offset: physical }];
    extents.push({ diskOffset: offset, length, state: 'mapped', moving: false, shared: false, places });
  }
  const mapped = extents.reduce((sum, { length }) => sum + length, 0);
  const map = new Told(extents);
  const right = await verify(map, { disk: DISK, file });
  expect(right).toMatchObject({
    devices: [
      { device: devices[0], written: BYTES, mapped, found: mapped, unknown: BYTES - mapped, precision: 1 },
      { device: devices[1], written: BYTES, mapped: 0, precision: null, recall: 0, staleness: null },
    ],
    wrong: [],
  });
  expect(right.devices[0]).toMatchObject({
    fiemap: { ...nothing, incomparable: mapped },
    bytes: { ...unread, equal: mapped },
  });
  for (const { places } of extents) places[0]!.offset += BLOCK;
  const shifted = await verify(map, { disk: DISK, file });
  expect(shifted.devices[0]).toMatchObject({ precision: 0, bytes: { ...unread, different: mapped } });
});

onStacks('a device that cannot be read, and an end before the end', async () => {
  const { stack, file, devices } = await openImage('ext4 4k');
  const map = await truthOf(stack, file);
  for (const { places } of map.extents) places.push({ device: 'd0', offset: 0 });
  const { devices: found } = await verify(map, { disk: { vm: 'vm-1', name: 'vda' }, file, offset: MiB, length: MiB });
  expect(found.map(({ device, mapped }) => [device, mapped])).toEqual([...devices, 'd0'].map((each) => [each, MiB]));
  expect(found[2]).toMatchObject({
    written: 0,
    fiemap: { ...nothing, incomparable: MiB },
    bytes: { ...unread, incomparable: MiB },
    precision: 1,
    recall: null,
  });
  const controller = new AbortController();
  const aborted = verify(map, {
    disk: DISK,
    file,
    signal: controller.signal,
    onProgress: () => controller.abort('enough'),
  });
  expect(await failureOf(aborted)).toMatchObject({ name: 'AbortError', cause: 'enough' });
  const early = verify(map, { disk: DISK, file, signal: AbortSignal.abort('early') });
  expect(await failureOf(early)).toMatchObject({ name: 'AbortError', cause: 'early' });
});

onStacks('what cannot be verified says why', async () => {
  const map = new Told([]);
  const absent = await failureOf(verify(map, { disk: DISK, file: path.join(memory(), 'there is none') }));
  expect(absent).toMatchObject({ code: 'ENOENT', layer: 'verify' });
  expect(absent.message).toContain('there is none');
  const { stack } = await openImage('ext4 4k', false);
  const inMemory = path.join(memory(), `stratamap-verify-${process.pid}`);
  makeSparse(inMemory, MiB);
  stack.undo('rm', inMemory);
  const tmpfs = await failureOf(verify(map, { disk: DISK, file: inMemory }));
  expect(tmpfs).toMatchObject({ code: 'ENOTBLK', layer: 'verify' });
  expect(tmpfs.message).toContain('tmpfs');
  const file = tmpFile(MiB);
  for (const options of [null, { disk: 'x', file }, { disk: DISK }, { disk: DISK, file, signal: 1 }]) {
    expect(await failureOf(verify(map, options as never))).toMatchObject({ name: 'TypeError' });
  }
  expect(await failureOf(verify(map, { disk: DISK, file, offset: -1 }))).toMatchObject({ name: 'RangeError' });
});
