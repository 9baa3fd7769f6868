// Every operation of a disk, through every volume and driver, on loop devices and on plain files.
import { attachLoop, openHost } from 'stratamap';
import { describe, expect, onTestFinished, test } from 'vitest';
import { tmpFile } from '../support/files.js';
import { needsLoop } from '../support/machine.js';
import { failureOf, MiB, openStack, pattern, type Stack } from '../support/stack.js';

const zero = (bytes: number) => Buffer.alloc(bytes);

async function everyOperation({ disk }: Stack): Promise<void> {
  const data = pattern(3 * MiB + 4096);
  await disk.write(MiB - 4096, data);
  expect((await disk.read(MiB - 4096, data.length)).equals(data)).toBe(true);
  expect((await disk.read(0, MiB - 4096)).equals(zero(MiB - 4096))).toBe(true);

  await disk.write(8 * MiB, pattern(8192, 2), { fua: true });
  const view = new Uint32Array(2048);
  expect(await disk.read(8 * MiB, view)).toBe(view);
  expect(Buffer.from(view.buffer).equals(pattern(8192, 2))).toBe(true);

  // Views of odd lengths: their sum alone must be whole blocks.
  const whole = pattern(2 * MiB, 3);
  await disk.writev(10 * MiB, [whole.subarray(0, 100), new DataView(new ArrayBuffer(412)), whole.subarray(512)]);
  whole.fill(0, 100, 512);
  const parts = [Buffer.alloc(MiB + 1), new Uint8Array(MiB - 1)];
  expect(await disk.readv(10 * MiB, parts)).toBe(parts);
  expect(Buffer.concat(parts).equals(whole)).toBe(true);

  await disk.writeZeroes(8 * MiB, 4096, { fua: true });
  await disk.discard(MiB, 65536);
  await disk.flush();
  expect((await disk.read(8 * MiB, 8192)).equals(Buffer.concat([zero(4096), pattern(8192, 2).subarray(4096)]))).toBe(
    true,
  );
  expect((await disk.read(MiB, 65536)).equals(zero(65536))).toBe(true);
  expect((await disk.read(MiB - 4096, 4096)).equals(data.subarray(0, 4096))).toBe(true);
}

async function reopens({ host, devices, volume, disk }: Stack): Promise<void> {
  await disk.write(0, pattern(MiB, 4));
  const { type } = volume;
  await volume.close();
  const again = await host.openVolume({ name: 'again', type, devices });
  expect(await again.listDisks()).toEqual([{ vm: 'vm-1', name: 'vda', size: 16 * MiB }]);
  const reopened = await again.openDisk({ vm: 'vm-1', name: 'vda' });
  expect(reopened).toMatchObject({ vm: 'vm-1', name: 'vda', size: 16 * MiB, closed: false });
  expect((await reopened.read(0, MiB)).equals(pattern(MiB, 4))).toBe(true);
  await reopened.close();
  await again.deleteDisk({ vm: 'vm-1', name: 'vda' });
  expect(await again.listDisks()).toEqual([]);
}

describe.each(['extent', 'log', 'stripe'])('%s', (type) => {
  test.each(['uring', 'posix'] as const)('%s on files', async (driver) => {
    const stack = await openStack({ type, driver });
    await everyOperation(stack);
    await reopens(stack);
  });

  needsLoop('round trips on loop devices').each(['uring', 'posix'] as const)('%s on loop devices', async (driver) => {
    const paths: string[] = [];
    for (let i = 0; i < 2; ++i) {
      const loop = await attachLoop(tmpFile(64 * MiB), { directIo: true });
      onTestFinished(() => loop.detach());
      paths.push(loop.path);
    }
    const stack = await openStack({ type, driver, paths });
    expect(stack.devices.map(({ path, size, direct }) => ({ path, size, direct }))).toEqual(
      paths.map((path) => ({ path, size: 64 * MiB, direct: true })),
    );
    await everyOperation(stack);
    await reopens(stack);
    await stack.host.close();
  });

  test('resize grows with zeroes and shrinks for good', async () => {
    const { disk } = await openStack({ type });
    await disk.write(0, pattern(16 * MiB));
    await disk.resize(4 * MiB);
    expect(disk.size).toBe(4 * MiB);
    expect(await failureOf(disk.read(4 * MiB, 4096))).toMatchObject({ name: 'RangeError', code: 'ERR_OUT_OF_RANGE' });
    await disk.resize(8 * MiB);
    expect((await disk.read(4 * MiB, 4 * MiB)).equals(zero(4 * MiB))).toBe(true);
    expect((await disk.read(0, 4 * MiB)).equals(pattern(16 * MiB).subarray(0, 4 * MiB))).toBe(true);
  });

  test('resize waits for what is in flight, and what comes meanwhile is not lost', async () => {
    const { disk } = await openStack({ type });
    const before = Array.from({ length: 64 }, (_, i) => disk.write(i * 65536, pattern(65536, i)));
    const resized = disk.resize(12 * MiB);
    const after = Array.from({ length: 64 }, (_, i) => disk.write((64 + i) * 65536, pattern(65536, 64 + i)));
    await Promise.all([...before, resized, ...after]);
    for (let i = 0; i < 128; ++i)
      expect((await disk.read(i * 65536, 65536)).equals(pattern(65536, i)), `${i}`).toBe(true);
  });
});

test('a null device has a size and no data', async () => {
  const host = await openHost();
  onTestFinished(() => host.close());
  const device = await host.openDevice({ name: 'nothing', driver: 'null', size: 2 ** 40 });
  expect(device).toMatchObject({ name: 'nothing', driver: 'null', size: 2 ** 40, shared: false });
});

test('a read-only device is not formatted', async () => {
  const { host, devices, volume, disk, paths } = await openStack();
  await disk.write(0, pattern(4096));
  await volume.close();
  await devices[0]!.close();
  const device = await host.openDevice({ name: 'ro', path: paths[0]!, readOnly: true });
  expect(device.readOnly).toBe(true);
  expect(await failureOf(host.formatVolume({ type: 'extent', devices: [device], force: true }))).toMatchObject({
    name: 'StratamapError',
  });
});

test('more operations than slots and memory hold wait their turn, and none fails', async () => {
  const { disk } = await openStack({ bytes: 256 * MiB, diskBytes: 128 * MiB });
  const block = pattern(MiB);
  await Promise.all(Array.from({ length: 300 }, (_, i) => disk.write((i % 128) * MiB, block)));
  const small = await Promise.all(Array.from({ length: 5000 }, (_, i) => disk.read(i * 4096, 4096)));
  expect(small.every((buffer, i) => buffer.equals(block.subarray((i % 256) * 4096, (i % 256) * 4096 + 4096)))).toBe(
    true,
  );
});

test('one operation longer than all the memory for I/O', async () => {
  const { disk } = await openStack({ bytes: 256 * MiB, diskBytes: 128 * MiB });
  const data = pattern(100 * MiB);
  await disk.write(0, data);
  expect((await disk.read(0, 100 * MiB)).equals(data)).toBe(true);
});

test('however fast I/O completes, everything else has its turn', async () => {
  const { disk } = await openStack();
  const depth = 32;
  let completed = 0;
  let over = false;
  const load = Array.from({ length: depth }, async () => {
    for (; !over; ++completed) await disk.read(0, 4096);
  });
  // One pass of the event loop delivers what had completed when it looked: by the wake-up, and by looking again.
  let most = 0;
  for (let pass = 0; pass < 500; ++pass) {
    const before = completed;
    await new Promise((resolve) => setImmediate(resolve));
    most = Math.max(most, completed - before);
  }
  over = true;
  await Promise.all(load);
  expect(completed).toBeGreaterThan(0);
  expect(most).toBeLessThanOrEqual(2 * depth);
});
