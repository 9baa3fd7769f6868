import { runWorkload } from 'stratamap';
import { describe, expect, test } from 'vitest';
import { failureOf, MiB, openStack } from '../support/stack.js';

describe.each(['extent', 'log', 'stripe'])('on %s', (type) => {
  test.each(['read', 'write', 'randread', 'randwrite', 'randrw'] as const)('%s counts what it did', async (pattern) => {
    const { disk } = await openStack({ type });
    const result = await runWorkload(disk, { pattern, blockSize: 8192, queueDepth: 16, operations: 500, seed: 7 });
    expect(result).toMatchObject({ operations: 500, bytes: 500 * 8192, errors: 0, mismatches: 0, discards: 0 });
    expect(result.reads + result.writes).toBe(500);
    expect(result.reads > 0).toBe(/read|rw/.test(pattern));
    expect(result.iops).toBeCloseTo((500 * 1e9) / result.elapsed, 3);
    expect(result.bandwidth).toBeCloseTo(result.iops * 8192, 0);
    const { latency } = result;
    expect(latency.p50 <= latency.p90 && latency.p90 <= latency.p99 && latency.p99 <= latency.p999).toBe(true);
    expect(latency.p999).toBeLessThanOrEqual(latency.max);
    expect(latency.histogram().reduce((sum, { count }) => sum + count, 0)).toBe(500);
  });

  test('mixed with verify does all operations and finds no difference', async () => {
    const { disk } = await openStack({ type });
    const result = await runWorkload(disk, {
      pattern: 'mixed',
      operations: 1500,
      verify: true,
      readPercent: 30,
      discardPercent: 10,
      zeroesPercent: 10,
      flushPercent: 1,
    });
    expect(result).toMatchObject({ errors: 0, mismatches: 0 });
    for (const name of ['reads', 'writes', 'discards', 'zeroes', 'flushes', 'verifiedBytes'] as const) {
      expect(result[name], name).toBeGreaterThan(0);
    }
  });
});

test('verify finds a block that someone else has changed', async () => {
  const { disk } = await openStack();
  const options = { pattern: 'write', blockSize: 4096, operations: 1024, length: 4 * MiB, verify: true } as const;
  let over = false;
  const run = runWorkload(disk, { ...options, pattern: 'randrw', operations: 200_000 }).finally(() => {
    over = true;
  });
  while (!over) await disk.write(MiB, Buffer.alloc(4096, 0xee));
  const result = await run;
  expect(result.mismatches).toBeGreaterThan(0);
  expect(result.firstMismatch).toContain('vm-1');
});

test('seconds end it', async () => {
  const { disk } = await openStack();
  const result = await runWorkload(disk, { pattern: 'randread', seconds: 0.05 });
  expect(result.operations).toBeGreaterThan(0);
  expect(result.elapsed).toBeGreaterThanOrEqual(0.05e9);
});

test('errors are counted, with the first of them', async () => {
  const { disk, volume } = await openStack({ bytes: 16 * MiB, diskBytes: 12 * MiB });
  const other = await volume.createDisk({ vm: 'vm-2', name: 'vda', size: 12 * MiB });
  await disk.write(0, Buffer.alloc(12 * MiB, 1));
  const result = await runWorkload(other, { pattern: 'write', blockSize: 65536, operations: 180 });
  expect(result.errors).toBeGreaterThan(0);
  expect(result.firstError).toMatchObject({ code: 'ENOSPC' });
});

test('closing the disk stops it', async () => {
  const { disk } = await openStack();
  const run = failureOf(runWorkload(disk, { pattern: 'randwrite', seconds: 3600 }));
  await disk.close();
  expect(await run).toMatchObject({ code: 'ERR_STRATAMAP_CLOSED', layer: 'disk' });
});

test('several at once, on disks of one host', async () => {
  const { disk, volume } = await openStack({ host: { threads: 2 } });
  const other = await volume.createDisk({ vm: 'vm-2', name: 'vda', size: 16 * MiB });
  const results = await Promise.all(
    [disk, other].map((each) => runWorkload(each, { pattern: 'randrw', operations: 1000, verify: true })),
  );
  for (const result of results) expect(result).toMatchObject({ operations: 1000, errors: 0, mismatches: 0 });
});
