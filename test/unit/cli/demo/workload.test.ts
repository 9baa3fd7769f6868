import path from 'node:path';
import { expect, test } from 'vitest';
import { KeptImage } from '../../../../lib/cli/demo/kept.js';
import { parallel } from '../../../../lib/cli/demo/parallel.js';
import { Random } from '../../../../lib/cli/demo/random.js';
import { planRequest, QUEUE_DEPTH, requestCount, runRandomWorkload } from '../../../../lib/cli/demo/workload.js';
import { tmpDir } from '../../../support/files.js';

const MIB = 2 ** 20;

test('the same seeds give the same numbers, others give others', () => {
  const draw = (...seeds: number[]) => Array.from({ length: 8 }, () => seeds).map((s, i) => new Random(...s, i).next());
  expect(draw(1, 2)).toEqual(draw(1, 2));
  const all = [draw(1, 2), draw(2, 1), draw(1), draw(1, 2, 0), draw(2 ** 40, 2)].flat();
  expect(new Set(all).size).toBe(all.length);
});

test('a UUID is one', () => {
  expect(new Random(7).uuid()).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
});

test('requests are aligned, inside the disk, of all kinds, and up to the limits', () => {
  const requests = Array.from({ length: 5000 }, (_, number) => planRequest(1, 0, number, 8 * MIB));
  for (const { offset, length } of requests) {
    expect(offset % 4096).toBe(0);
    expect(length % 4096).toBe(0);
    expect(offset).toBeGreaterThanOrEqual(0);
    expect(offset + length).toBeLessThanOrEqual(8 * MIB);
  }
  const lengths = (kind: string) => requests.filter((request) => request.kind === kind).map(({ length }) => length);
  for (const kind of ['write', 'read']) {
    expect(Math.min(...lengths(kind))).toBe(4096);
    expect(Math.max(...lengths(kind))).toBe(65536);
  }
  expect(Math.max(...lengths('discard'))).toBe(262144);
});

// A disk in memory whose operations end after random times, and which notes what was in flight together.
function slowDisk(size: number) {
  const content = Buffer.alloc(size);
  const open = new Set<{ from: number; to: number }>();
  let overlaps = 0;
  let deepest = 0;
  const random = new Random(99);
  const during = async (from: number, length: number, work: () => void) => {
    const self = { from, to: from + length };
    for (const other of open) if (other.from < self.to && self.from < other.to) ++overlaps;
    open.add(self);
    deepest = Math.max(deepest, open.size);
    for (let turns = random.below(6); turns >= 0; --turns) await new Promise(setImmediate);
    work();
    open.delete(self);
  };
  const disk = {
    vm: 'web',
    name: 'vda',
    size,
    content,
    write: (offset: number, data: Buffer) => during(offset, data.length, () => content.set(data, offset)),
    discard: (offset: number, length: number) => during(offset, length, () => content.fill(0, offset, offset + length)),
    read: (offset: number, data: Buffer) =>
      during(offset, data.length, () => content.copy(data, 0, offset, offset + data.length)),
  };
  return { disk, seen: () => ({ overlaps, deepest }) };
}

async function runOn(disk: object & { size: number }, seed: number, signal = new AbortController().signal) {
  const kept = new KeptImage(path.join(tmpDir(), 'kept'), disk.size);
  let done = 0;
  try {
    const result = await runRandomWorkload(disk as never, 0, kept, seed, signal, () => void ++done);
    const image = Buffer.alloc(disk.size);
    kept.read(0, image);
    return { result, image, done };
  } finally {
    kept.close();
  }
}

test('runs at depth 32, never with two requests that overlap, and keeps what was written', async () => {
  const { disk, seen } = slowDisk(8 * MIB);
  const { result, image, done } = await runOn(disk, 1);
  expect(seen().overlaps).toBe(0);
  expect(seen().deepest).toBeGreaterThan(QUEUE_DEPTH / 2);
  expect(seen().deepest).toBeLessThanOrEqual(QUEUE_DEPTH);
  expect(image.equals(disk.content)).toBe(true);
  expect(done).toBe(requestCount(8 * MIB));
  expect(result.write.operations + result.discard.operations + result.read.operations).toBe(done);
  expect(result.firstDifference).toBe(-1);
});

test('the same seed gives the same content, whatever the timing', async () => {
  const first = slowDisk(8 * MIB);
  const second = slowDisk(8 * MIB);
  await second.disk.read(0, Buffer.alloc(4096)); // shifts its random times
  const a = await runOn(first.disk, 5);
  const b = await runOn(second.disk, 5);
  expect(a.image.equals(b.image)).toBe(true);
  const c = await runOn(slowDisk(8 * MIB).disk, 6);
  expect(a.image.equals(c.image)).toBe(false);
});

test('a read that gives other bytes is found, with its place', async () => {
  const { disk } = slowDisk(8 * MIB);
  let reads = 0;
  let spoiled = -1;
  const spoiling = {
    ...disk,
    read: async (offset: number, data: Buffer) => {
      await disk.read(offset, data);
      if (++reads !== 20) return;
      spoiled = offset + 77;
      data[77]! ^= 1;
    },
  };
  const { result } = await runOn(spoiling, 1);
  expect(spoiled).toBeGreaterThan(0);
  expect(result.firstDifference).toBe(spoiled);
});

test('a request that fails ends the workload, when nothing is in flight any more', async () => {
  const { disk } = slowDisk(8 * MIB);
  let open = 0;
  const counted = async (work: Promise<void>) => {
    ++open;
    await work;
    --open;
  };
  let writes = 0;
  const failing = {
    ...disk,
    write: (offset: number, data: Buffer) =>
      ++writes === 50 ? Promise.reject(new Error('no space')) : counted(disk.write(offset, data)),
    read: (offset: number, data: Buffer) => counted(disk.read(offset, data)),
    discard: (offset: number, length: number) => counted(disk.discard(offset, length)),
  };
  await expect(runOn(failing, 1)).rejects.toThrow('no space');
  expect(open).toBe(0);
  expect(writes).toBeLessThan(50 + QUEUE_DEPTH);
});

test('parallel hands out items in order, at most so many at a time', async () => {
  let open = 0;
  let deepest = 0;
  const begun: number[] = [];
  await parallel([...Array(20).keys()], 3, async (item) => {
    begun.push(item);
    deepest = Math.max(deepest, ++open);
    await new Promise(setImmediate);
    --open;
  });
  expect(begun).toEqual([...Array(20).keys()]);
  expect(deepest).toBe(3);
});
