// The proof must be able to fail: each of these gives it something wrong to find.
import path from 'node:path';
import { beforeEach, expect, onTestFinished, test } from 'vitest';
import { compare, runs } from '../../../../lib/cli/demo/blocks.js';
import { KeptImage } from '../../../../lib/cli/demo/kept.js';
import { prove, recallOf } from '../../../../lib/cli/demo/proof.js';
import { Random } from '../../../../lib/cli/demo/random.js';
import { scatterOf } from '../../../../lib/cli/demo/scatter.js';
import type { Extent, Owner } from '../../../../lib/index.js';
import { tmpDir } from '../../../support/files.js';

const SIZE = 64 * 1024;
const flags = { state: 'mapped', moving: false, shared: false } as const;

// A disk whose bytes 8192 … 24575 were written, and lie on device `a` from 4096 on, its halves swapped.
let content: Buffer;
let device: Buffer;
let extents: Extent[];
let owners: Owner[];
let kept: KeptImage;

beforeEach(() => {
  content = Buffer.alloc(SIZE);
  new Random(3).fill(content.subarray(8192, 24576));
  content.fill(0, 12288, 12288 + 1024); // zero blocks do not count
  device = Buffer.alloc(SIZE);
  content.copy(device, 12288, 8192, 16384);
  content.copy(device, 4096, 16384, 24576);
  extents = [
    { diskOffset: 8192, length: 8192, ...flags, places: [{ device: 'a', offset: 12288 }] },
    { diskOffset: 16384, length: 8192, ...flags, places: [{ device: 'a', offset: 4096 }] },
  ];
  owners = [
    { offset: 4096, length: 8192, ...flags, vm: 'web', disk: 'vda', diskOffset: 16384 },
    { offset: 12288, length: 8192, ...flags, vm: 'web', disk: 'vda', diskOffset: 8192 },
  ];
  kept = new KeptImage(path.join(tmpDir(), 'kept'), SIZE);
  kept.write(8192, content.subarray(8192, 24576));
  onTestFinished(() => kept.close());
});

function run() {
  const disk = {
    vm: 'web',
    name: 'vda',
    size: SIZE,
    read: async (offset: number, length: number) => Buffer.from(content.subarray(offset, offset + length)),
  };
  const map = {
    owners: (name: string, offset: number, length: number) =>
      owners.filter((owner) => name === 'a' && owner.offset < offset + length && offset < owner.offset + owner.length),
  };
  const copy = {
    read: (offset: number, length: number) => Buffer.from(device.subarray(offset, offset + length)),
  };
  return prove(
    { extents: [extents], ledger: {} as never },
    [disk as never],
    [kept],
    new Map([['a', copy as never]]),
    map as never,
    new AbortController().signal,
    () => {},
  );
}

test('what is right is proven', async () => {
  const { proof, misnamed, failures } = await run();
  expect(proof).toEqual({ extents: 2, bytesCompared: 16384 - 1024, differing: 0, recall: 1 });
  expect(misnamed).toBe(0);
  expect(failures).toEqual([]);
});

test('a byte that differs on the device', async () => {
  device[4096 + 700]! ^= 1;
  const { proof, failures } = await run();
  expect(proof.differing).toBe(1);
  expect(failures).toHaveLength(1);
  expect(failures[0]).toContain('web/vda at 17084, mapped to a at 4796: 1 bytes differ');
});

test('a place that is zeroes where bytes were written, and bytes where zeroes were', async () => {
  device.fill(0, 12288, 12288 + 512);
  device[12288 + 4096 + 5] = 9; // among the zero blocks
  const { proof } = await run();
  expect(proof.differing).toBeGreaterThan(500);
  expect(proof.differing).toBeLessThanOrEqual(513);
});

test('pieces that are swapped', async () => {
  [extents[0]!.places, extents[1]!.places] = [extents[1]!.places, extents[0]!.places];
  const { proof, misnamed } = await run();
  expect(proof.differing).toBeGreaterThan(14000);
  expect(misnamed).toBe(2);
});

test('a disk that reads other bytes, inside extents and outside', async () => {
  content[9000]! ^= 1;
  const inside = await run();
  expect(inside.proof.differing).toBe(1);
  expect(inside.failures).toContain('web/vda does not read as it was written, first at byte 9000');
  content[9000]! ^= 1;
  content[60000] = 1;
  const outside = await run();
  expect(outside.proof.differing).toBe(0);
  expect(outside.failures).toEqual(['web/vda does not read as it was written, first at byte 60000']);
});

test.each<[string, Partial<Owner>]>([
  ['another VM', { vm: 'db' }],
  ['another disk', { disk: 'vdb' }],
  ['another offset', { diskOffset: 16384 + 512 }],
  ['less than the extent', { length: 8192 - 512 }],
  ['nobody', { state: 'stale' }],
])('owners() names %s', async (_, wrong) => {
  Object.assign(owners[0]!, wrong);
  const { proof, misnamed, failures } = await run();
  expect(proof.differing).toBe(0);
  expect(misnamed).toBe(1);
  expect(failures).toHaveLength(1);
  expect(failures[0]).toMatch(/belongs to web\/vda.*owners\(\)/);
});

test('owners() names a second owner, too', async () => {
  owners.splice(1, 0, { ...owners[0]!, vm: 'db' });
  expect((await run()).misnamed).toBe(1);
});

test('bytes that are not mapped lower the recall, and stale ones are not compared', async () => {
  extents[1]!.state = 'stale';
  const { proof, failures } = await run();
  expect(proof.extents).toBe(1);
  expect(proof.recall).toBeCloseTo(7168 / 15360);
  expect(failures).toEqual([expect.stringContaining('8192 of 15360 bytes written are not mapped')]);
});

test('recall counts neither zeroes nor what was discarded since, and half a sector is not covered', () => {
  expect(recallOf(kept, [])).toEqual({ written: 15360, mapped: 0 });
  expect(recallOf(kept, [{ diskOffset: 8192 + 256, length: 1024 }])).toEqual({ written: 15360, mapped: 512 });
  kept.discard(16384, 8192);
  expect(recallOf(kept, [{ diskOffset: 0, length: SIZE }])).toEqual({ written: 7168, mapped: 7168 });
});

test('compare counts bytes of sectors that are not zeroes everywhere', () => {
  const a = Buffer.alloc(2048);
  const b = Buffer.alloc(2048);
  expect(compare(a, b)).toEqual({ compared: 0, differing: 0, firstDifference: -1 });
  a[600] = b[600] = 1;
  b[1030] = 7;
  expect(compare(a, b)).toEqual({ compared: 1024, differing: 1, firstDifference: 1030 });
  expect(compare(a, a, b)).toEqual({ compared: 1024, differing: 1, firstDifference: 1030 });
});

test('runs cut a view where zeroes begin and end', () => {
  const view = Buffer.alloc(4 * 512);
  expect([...runs(view, 512)]).toEqual([{ offset: 0, length: 2048, zero: true }]);
  view[1023] = 1;
  expect([...runs(view, 512)]).toEqual([
    { offset: 0, length: 512, zero: true },
    { offset: 512, length: 512, zero: false },
    { offset: 1024, length: 1024, zero: true },
  ]);
});

test('scatter counts neighbours that are apart', () => {
  const at = (chunk: number, deviceName: string, offset: number, from = 0, length = 100) => ({
    diskOffset: chunk * 100 + from,
    length,
    places: [{ device: deviceName, offset: offset + from }],
  });
  const count = (...placed: ReturnType<typeof at>[]) => scatterOf(placed, 100);
  expect(count(at(0, 'a', 0), at(1, 'a', 100), at(2, 'a', 200))).toEqual({ neighbours: 2, apart: 0 });
  expect(count(at(0, 'a', 100), at(1, 'a', 0))).toEqual({ neighbours: 1, apart: 0 });
  expect(count(at(0, 'a', 0), at(1, 'b', 100), at(2, 'a', 500))).toEqual({ neighbours: 2, apart: 2 });
  expect(count(at(0, 'a', 0), at(2, 'a', 900))).toEqual({ neighbours: 0, apart: 0 });
  // Chunks that are mapped in part are where their first bytes say; one extent may cover several.
  expect(count(at(0, 'a', 0, 40, 10), at(0, 'a', 0, 90, 10), at(1, 'a', 100, 70, 5))).toEqual({
    neighbours: 1,
    apart: 0,
  });
  expect(count(at(0, 'a', 0, 50, 250))).toEqual({ neighbours: 2, apart: 0 });
});
