// Wrong arguments are refused before anything is touched; what cannot be done fails with a code, and changes nothing.
import { execFileSync } from 'node:child_process';
import { closeSync, openSync, readFileSync, readSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import path from 'node:path';
import { attachLoop, type Device, type Disk, openHost, openMap, runWorkload, StratamapError } from 'stratamap';
import { describe, expect, onTestFinished, test } from 'vitest';
import { checkout } from '../support/checkout.js';
import { tmpDir, tmpFile } from '../support/files.js';
import { needsLoop, needsProgram } from '../support/machine.js';
import { failureOf, MiB, openStack, pattern, testHost } from '../support/stack.js';

describe('arguments of I/O', () => {
  const data = Buffer.alloc(4096);
  const range = { name: 'RangeError', code: 'ERR_OUT_OF_RANGE' };
  const type = { name: 'TypeError', code: 'ERR_INVALID_ARG_TYPE' };
  const wrong: [string, (disk: Disk) => Promise<unknown>, object][] = [
    ['a negative offset', (disk) => disk.read(-4096, 4096), range],
    ['a fractional offset', (disk) => disk.read(0.5, 4096), range],
    ['an unsafe offset', (disk) => disk.write(2 ** 53, data), range],
    ['an offset that is NaN', (disk) => disk.write(Number.NaN, data), range],
    ['an offset that is a bigint', (disk) => disk.write(0n as never, data), type],
    ['an offset inside a block', (disk) => disk.write(1, data), range],
    ['a length that is not whole blocks', (disk) => disk.read(0, 4095), range],
    ['no length', (disk) => disk.read(0, undefined as never), type],
    ['a length of 0', (disk) => disk.read(0, 0), range],
    ['an offset behind the end', (disk) => disk.read(disk.size, 4096), range],
    ['a length beyond the end', (disk) => disk.write(disk.size - 512, data), range],
    ['the longest length', (disk) => disk.discard(512, Number.MAX_SAFE_INTEGER - 511), range],
    ['zeroes beyond the end', (disk) => disk.writeZeroes(0, disk.size + 512), range],
    ['data that is a string', (disk) => disk.write(0, 'x' as never), type],
    ['data of half a block', (disk) => disk.write(0, Buffer.alloc(256)), range],
    ['views that are none', (disk) => disk.writev(0, [data, 5 as never]), type],
    ['no views', (disk) => disk.readv(0, []), range],
    ['views that do not add up to blocks', (disk) => disk.readv(0, [data, Buffer.alloc(1)]), range],
    ['options that are null', (disk) => disk.read(0, 4096, null as never), type],
    ['fua that is a number', (disk) => disk.write(0, data, { fua: 1 as never }), type],
    ['a signal that is none', (disk) => disk.flush({ signal: {} as never }), type],
    ['a size of half a block', (disk) => disk.resize(disk.blockSize * 1.5), range],
    ['a size of 0', (disk) => disk.resize(0), range],
    [
      'a workload of no length',
      (disk) => runWorkload(disk, { pattern: 'read' }),
      { name: 'TypeError', code: 'ERR_INVALID_ARG_VALUE' },
    ],
    [
      'a workload of half blocks',
      (disk) => runWorkload(disk, { pattern: 'read', operations: 1, blockSize: 256 }),
      range,
    ],
    ['a workload on no disk', () => runWorkload({} as never, { pattern: 'read', operations: 1 }), type],
  ];
  test('each is refused, and the disk is as it was', async () => {
    const { disk } = await openStack();
    const before = pattern(disk.size);
    await disk.write(0, before);
    for (const [what, call, error] of wrong) expect(await failureOf(call(disk)), what).toMatchObject(error);
    expect(disk.size).toBe(before.length);
    expect((await disk.read(0, disk.size)).equals(before)).toBe(true);
  });
});

describe('devices', () => {
  const notOne = { name: 'StratamapError', code: 'ERR_STRATAMAP_NOT_A_DEVICE', layer: 'device', device: 'd0' };
  test('a path that is not there', async () => {
    const host = await testHost();
    const failure = await failureOf(host.openDevice({ name: 'd0', path: '/there/is/none' }));
    expect(failure).toMatchObject({ name: 'StratamapError', code: 'ENOENT', errno: -2, layer: 'device', device: 'd0' });
    expect(failure.message).toContain('/there/is/none');
  });
  test('a folder, a character device', async () => {
    const host = await testHost();
    expect(await failureOf(host.openDevice({ name: 'd0', path: tmpDir() }))).toMatchObject(notOne);
    expect(await failureOf(host.openDevice({ name: 'd0', path: '/dev/zero' }))).toMatchObject(notOne);
  });
  test('a pipe does not block the call', async () => {
    const pipe = path.join(tmpDir(), 'pipe');
    execFileSync('mkfifo', [pipe]);
    const host = await testHost();
    expect(await failureOf(host.openDevice({ name: 'd0', path: pipe }))).toMatchObject(notOne);
  });
  test('an empty file', async () => {
    const host = await testHost();
    expect(await failureOf(host.openDevice({ name: 'd0', path: tmpFile(0) }))).toMatchObject({
      code: 'ERR_STRATAMAP_SIZE',
    });
  });
  test('options that do not go together', async () => {
    const host = await testHost();
    const value = { name: 'TypeError', code: 'ERR_INVALID_ARG_VALUE' };
    for (const options of [
      { name: 'n', driver: 'null', size: 4096, path: '/dev/null' },
      { name: 'n', path: '/dev/null', size: 4096 },
      { name: 'n', path: '/dev/null', driver: 'nvme' },
    ]) {
      expect(await failureOf(host.openDevice(options as never))).toMatchObject(value);
    }
    for (const options of [undefined, {}, { name: 'n' }, { name: 'n', driver: 'null' }, { name: 'n', path: 5 }]) {
      expect(await failureOf(host.openDevice(options as never))).toMatchObject({ code: 'ERR_INVALID_ARG_TYPE' });
    }
  });
  test.each(['uring', 'posix'] as const)('%s: one that is in use, here or in another host', async (driver) => {
    const file = tmpFile(MiB);
    const host = await testHost();
    await host.openDevice({ name: 'd0', path: file, driver });
    const other = await testHost();
    const busy = { code: 'ERR_STRATAMAP_BUSY', errno: -16, layer: 'device' };
    expect(await failureOf(other.openDevice({ name: 'd0', path: file }))).toMatchObject({ ...busy, device: 'd0' });
    expect(await failureOf(host.openDevice({ name: 'd1', path: file }))).toMatchObject({ ...busy, device: 'd1' });
    expect(await failureOf(host.openDevice({ name: 'd0', path: tmpFile(MiB) }))).toMatchObject({ code: 'EEXIST' });
  });
  test('one that a volume uses is not closed', async () => {
    const { devices, disk } = await openStack();
    await disk.write(0, pattern(4096));
    expect(await failureOf(devices[0]!.close())).toMatchObject({ code: 'ERR_STRATAMAP_BUSY', device: 'd0' });
    expect(devices[0]!.closed).toBe(false);
    expect((await disk.read(0, 4096)).equals(pattern(4096))).toBe(true);
  });
});

describe('loop devices', () => {
  test('arguments', async () => {
    expect(await failureOf(attachLoop(5 as never))).toMatchObject({ name: 'TypeError' });
    expect(await failureOf(attachLoop('f', { blockSize: 1000 }))).toMatchObject({ name: 'RangeError' });
    expect(await failureOf(attachLoop('f', { directIo: 'yes' as never }))).toMatchObject({ name: 'TypeError' });
  });
  const loopTest = needsLoop('errors of loop devices');
  loopTest('files that cannot be attached', async () => {
    expect(await failureOf(attachLoop('/there/is/none'))).toMatchObject({ code: 'ENOENT', layer: 'loop' });
    expect(await failureOf(attachLoop(tmpDir()))).toMatchObject({ name: 'StratamapError', layer: 'loop' });
  });
  loopTest('one that is in use stays attached, and is detached later', async () => {
    const loop = await attachLoop(tmpFile(MiB));
    const host = await testHost();
    const device = await host.openDevice({ name: 'd0', path: loop.path });
    expect(await failureOf(loop.detach())).toMatchObject({ code: 'ERR_STRATAMAP_BUSY', device: loop.path });
    await device.close();
    await loop.detach();
    await loop.detach();
  });
});

describe('hosts and volumes', () => {
  test('arguments', async () => {
    for (const options of [{ threads: 0 }, { threads: 1e6 }, { threads: 1.5 }, { requests: 1 }, { bufferBytes: 1 }]) {
      expect(await failureOf(openHost(options)), JSON.stringify(options)).toMatchObject({
        name: 'RangeError',
        code: 'ERR_OUT_OF_RANGE',
      });
    }
    const host = await testHost();
    const devices = [await host.openDevice({ name: 'd0', path: tmpFile(16 * MiB) })];
    const type = { name: 'TypeError' };
    expect(await failureOf(host.formatVolume({ type: 'extent', devices: [] }))).toMatchObject(type);
    expect(await failureOf(host.formatVolume({ type: 'extent', devices: ['d0'] as never }))).toMatchObject(type);
    expect(await failureOf(host.formatVolume({ type: 5 as never, devices }))).toMatchObject(type);
    expect(await failureOf(host.formatVolume({ type: 'extent', devices, options: { a: {} as never } }))).toMatchObject(
      type,
    );
    expect(await failureOf(host.formatVolume({ type: 'extent', devices, options: { bogus: 1 } }))).toMatchObject({
      layer: 'volume',
    });
    expect(await failureOf(host.formatVolume({ type: 'zfs', devices }))).toMatchObject({
      code: 'ERR_STRATAMAP_VOLUME_TYPE',
    });
    const other = await testHost();
    expect(await failureOf(other.formatVolume({ type: 'extent', devices }))).toMatchObject({ name: 'StratamapError' });
  });

  test('names and sizes of disks', async () => {
    const { volume } = await openStack({ diskBytes: MiB });
    const name = { name: 'RangeError', code: 'ERR_STRATAMAP_NAME' };
    expect(await failureOf(volume.createDisk({ vm: '', name: 'x', size: MiB }))).toMatchObject(name);
    expect(await failureOf(volume.createDisk({ vm: 'x', name: 'n'.repeat(64), size: MiB }))).toMatchObject(name);
    expect(await failureOf(volume.createDisk({ vm: 'x', name: 'y', size: 1000 }))).toMatchObject({
      name: 'RangeError',
    });
    expect(await failureOf(volume.createDisk({ vm: 'x', name: 'y', size: 2 ** 53 }))).toMatchObject({
      name: 'RangeError',
    });
    expect(await failureOf(volume.createDisk({ vm: 'x', name: 'y', size: 2 ** 50 }))).toMatchObject({
      code: 'EFBIG',
      layer: 'volume',
    });
    expect(await failureOf(volume.createDisk({ vm: 'vm-1', name: 'vda', size: MiB }))).toMatchObject({
      code: 'EEXIST',
    });
    expect(await failureOf(volume.openDisk({ vm: 'no', name: 'no' }))).toMatchObject({
      code: 'ENOENT',
      vm: 'no',
      disk: 'no',
    });
    expect(await failureOf(volume.openDisk({ vm: 'vm-1', name: 'vda' }))).toMatchObject({ code: 'ERR_STRATAMAP_BUSY' });
    expect(await failureOf(volume.deleteDisk({ vm: 'vm-1', name: 'vda' }))).toMatchObject({
      code: 'ERR_STRATAMAP_BUSY',
    });
    expect(await volume.listDisks()).toEqual([{ vm: 'vm-1', name: 'vda', size: MiB }]);
  });

  test('a full thin volume gives ENOSPC to that write alone', async () => {
    const { disk, volume } = await openStack({ bytes: 16 * MiB, diskBytes: 15 * MiB });
    const other = await volume.createDisk({ vm: 'vm-2', name: 'vda', size: 15 * MiB });
    await disk.write(0, pattern(10 * MiB));
    const written: number[] = [];
    let failure: StratamapError | undefined;
    for (let i = 0; i < 60 && failure === undefined; ++i) {
      await other.write(i * 262144, pattern(262144, i)).then(
        () => written.push(i),
        (error: StratamapError) => {
          failure = error;
        },
      );
    }
    expect(failure).toBeInstanceOf(StratamapError);
    expect(failure).toMatchObject({ code: 'ENOSPC', errno: -28, layer: 'disk', vm: 'vm-2', disk: 'vda' });
    expect(failure!.offset).toBeGreaterThanOrEqual(written.length * 262144);
    expect(written.length).toBeGreaterThan(4);
    for (const i of written)
      expect((await other.read(i * 262144, 262144)).equals(pattern(262144, i)), `${i}`).toBe(true);
    expect((await disk.read(0, 10 * MiB)).equals(pattern(10 * MiB))).toBe(true);
    await disk.write(0, pattern(4096, 9)); // overwriting needs no space
    await disk.discard(0, 10 * MiB); // and what is given back can be had
    await other.write(written.length * 262144, pattern(262144));
  });
});

describe('media that are not ours', () => {
  async function deviceOn(file: string): Promise<{ device: Device; host: Awaited<ReturnType<typeof testHost>> }> {
    const host = await testHost();
    return { host, device: await host.openDevice({ name: 'd0', path: file }) };
  }
  const open = (host: Awaited<ReturnType<typeof testHost>>, device: Device) =>
    failureOf(host.openVolume({ name: 'v0', type: 'extent', devices: [device] }));

  test('nothing is opened that was not formatted, and nothing is written to it', async () => {
    const file = tmpFile(8 * MiB);
    writeFileSync(file, pattern(8 * MiB));
    const { host, device } = await deviceOn(file);
    const failure = await open(host, device);
    expect(failure).toMatchObject({ name: 'StratamapError', layer: 'volume' });
    await host.close();
    expect(readFileSync(file).equals(pattern(8 * MiB))).toBe(true);
  });

  needsProgram('a signature of ext4', 'mkfs.ext4')('a signature is refused, unless forced', async () => {
    const file = tmpFile(16 * MiB);
    execFileSync('mkfs.ext4', ['-q', file], { env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` } });
    const before = readFileSync(file);
    const { host, device } = await deviceOn(file);
    const failure = await failureOf(host.formatVolume({ type: 'extent', devices: [device] }));
    expect(failure).toMatchObject({ code: 'ERR_STRATAMAP_SIGNATURE', device: 'd0' });
    expect(failure.message).toContain('ext');
    expect(readFileSync(file).equals(before)).toBe(true);
    await host.formatVolume({ type: 'extent', devices: [device], force: true });
    await host.openVolume({ name: 'v0', type: 'extent', devices: [device] });
  });

  test('our own signature is refused too', async () => {
    const { host, volume, devices } = await openStack();
    await volume.close();
    expect(await failureOf(host.formatVolume({ type: 'extent', devices }))).toMatchObject({
      code: 'ERR_STRATAMAP_SIGNATURE',
    });
  });

  test('a torn superblock is found', async () => {
    const { host, paths } = await openStack({ bytes: 16 * MiB, diskBytes: MiB });
    await host.close();
    const file = paths[0]!;
    const fd = openSync(file, 'r+');
    onTestFinished(() => closeSync(fd));
    const sector = Buffer.alloc(512);
    readSync(fd, sector, 0, 512, 0);
    const torn = Buffer.from(sector);
    torn[40] = (torn[40] as number) ^ 0xff;
    writeSync(fd, torn, 0, 512, 0);
    const { host: again, device } = await deviceOn(file);
    expect(await open(again, device)).toMatchObject({ name: 'StratamapError', layer: 'volume' });
    writeSync(fd, sector, 0, 512, 0);
    await again.openVolume({ name: 'v0', type: 'extent', devices: [device] });
  });

  test('a device that lost its end', async () => {
    const { host, paths } = await openStack({ bytes: 16 * MiB, diskBytes: MiB });
    await host.close();
    truncateSync(paths[0]!, 8 * MiB);
    const { host: again, device } = await deviceOn(paths[0]!);
    expect(await open(again, device)).toMatchObject({ name: 'StratamapError', layer: 'volume' });
  });
});

needsProgram('shared objects that do not fit', 'cc')('a shared object of another contract, or of none', async () => {
  const folder = tmpDir();
  const include = path.join(checkout, 'native/include');
  const compile = (name: string, source: string) => {
    const file = path.join(folder, `${name}.c`);
    writeFileSync(file, source);
    execFileSync('cc', ['-shared', '-fPIC', '-I', include, '-o', path.join(folder, `${name}.so`), file]);
    return path.join(folder, `${name}.so`);
  };
  const table = (version: string, size: string) =>
    `#include <stratamap/volume.h>
     static const sm_volume_ops ops = {${version}, ${size}, "stranger"};
     const sm_volume_ops *stratamap_volume(void) { return &ops; }`;
  const host = await testHost();
  const devices = [await host.openDevice({ name: 'd0', path: tmpFile(16 * MiB) })];
  const format = (type: string) => failureOf(host.formatVolume({ type, devices }));
  const contract = { name: 'StratamapError', code: 'ERR_STRATAMAP_CONTRACT', layer: 'volume' };
  expect(await format(compile('newer', table('SM_CONTRACT_VERSION + 1', 'sizeof(sm_volume_ops)')))).toMatchObject(
    contract,
  );
  expect(await format(compile('short', table('SM_CONTRACT_VERSION', '16')))).toMatchObject(contract);
  expect(await format(compile('empty', 'int nothing;'))).toMatchObject({ name: 'StratamapError', layer: 'volume' });
  expect(await format(path.join(folder, 'none.so'))).toMatchObject({ code: 'ERR_STRATAMAP_VOLUME_TYPE' });
});

test('use after close, of every handle', async () => {
  const { host, devices, volume, disk } = await openStack();
  const map = await openMap();
  const probe = await host.attachProbe({ map });
  await host.close();
  await Promise.all([host, ...devices, volume, disk, probe].map((handle) => handle.close()));
  const closed = { name: 'StratamapError', code: 'ERR_STRATAMAP_CLOSED' };
  const about = { ...closed, layer: 'disk', vm: 'vm-1', disk: 'vda' };
  for (const call of [
    () => disk.read(0, 4096),
    () => disk.write(0, Buffer.alloc(4096)),
    () => disk.readv(0, [Buffer.alloc(4096)]),
    () => disk.writeZeroes(0, 4096),
    () => disk.discard(0, 4096),
    () => disk.flush(),
    () => disk.resize(4096),
    () => runWorkload(disk, { pattern: 'read', operations: 1 }),
  ]) {
    expect(await failureOf(call()), String(call)).toMatchObject(call.toString().includes('Workload') ? closed : about);
  }
  expect(await failureOf(volume.createDisk({ vm: 'a', name: 'b', size: MiB }))).toMatchObject({
    ...closed,
    layer: 'volume',
  });
  expect(await failureOf(volume.listDisks())).toMatchObject(closed);
  expect(await failureOf(host.openDevice({ name: 'd', driver: 'null', size: MiB }))).toMatchObject({
    ...closed,
    layer: 'host',
  });
  expect(await failureOf(host.openVolume({ name: 'v', type: 'extent', devices }))).toMatchObject(closed);
  expect(await failureOf(host.attachProbe({ map }))).toMatchObject(closed);
  expect(() => probe.completions()).toThrowError(expect.objectContaining({ ...closed, layer: 'probe' }));
  expect([host, ...devices, volume, disk, probe].every((handle) => handle.closed)).toBe(true);
  expect(host.notices).toEqual([]);
  await map.close();
  await map.close();
  expect(() => map.locate('vm-1/vda', 0, 4096)).toThrowError(expect.objectContaining({ ...closed, layer: 'map' }));
  expect(() => map.ledger()).toThrowError(expect.objectContaining(closed));
});
