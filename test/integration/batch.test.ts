// Many operations in one call.
import type { DiskOperation } from 'stratamap';
import { describe, expect, test } from 'vitest';
import { failureOf, MiB, openStack, pattern } from '../support/stack.js';

const KiB = 2 ** 10;

describe('a batch', () => {
  test('of every operation does what each does by itself', async () => {
    const { disk } = await openStack();
    await disk.write(0, pattern(MiB, 9));
    const words = new Uint32Array(pattern(8 * KiB, 2).buffer.slice(0, 8 * KiB));
    const written = Buffer.from(words.buffer);
    const done = await disk.submit([
      { op: 'write', offset: 2 * MiB, view: words, fua: true },
      { op: 'write', offset: 4 * MiB, view: pattern(3 * MiB, 3) }, // in pieces
      { op: 'writeZeroes', offset: 0, length: 4 * KiB },
      { op: 'discard', offset: 64 * KiB, length: 64 * KiB },
      { op: 'flush' },
    ]);
    expect(done).toEqual([undefined, undefined, undefined, undefined, undefined]);
    const small = new Uint32Array(2 * KiB);
    const [large, zeroes, discarded, kept] = [3 * MiB, 4 * KiB, 64 * KiB, 4 * KiB].map((size) => Buffer.alloc(size, 1));
    await disk.submit([
      { op: 'read', offset: 2 * MiB, view: small },
      { op: 'read', offset: 4 * MiB, view: large as Buffer },
      { op: 'read', offset: 0, view: zeroes as Buffer },
      { op: 'read', offset: 64 * KiB, view: discarded as Buffer },
      { op: 'read', offset: 4 * KiB, view: kept as Buffer },
    ]);
    expect(Buffer.from(small.buffer).equals(written)).toBe(true);
    expect(large?.equals(pattern(3 * MiB, 3))).toBe(true);
    expect(zeroes?.equals(Buffer.alloc(4 * KiB))).toBe(true);
    expect(discarded?.equals(Buffer.alloc(64 * KiB))).toBe(true);
    expect(kept?.equals(pattern(MiB, 9).subarray(4 * KiB, 8 * KiB))).toBe(true);
  });

  test('of more operations than can be in flight is carried out whole', async () => {
    const { disk } = await openStack({ type: 'stripe' });
    const count = 3000;
    const data = pattern(count * 4 * KiB, 5);
    const parts = Array.from({ length: count }, (_, i) => data.subarray(i * 4 * KiB, (i + 1) * 4 * KiB));
    const at = (i: number) => i * 4 * KiB;
    await disk.submit(parts.map((view, i) => ({ op: 'write', offset: at(i), view })));
    const back = Buffer.alloc(data.length);
    const views = parts.map((_, i) => back.subarray(at(i), at(i) + 4 * KiB));
    await disk.submit(views.map((view, i) => ({ op: 'read', offset: at(i), view })));
    expect(back.equals(data)).toBe(true);
  });

  test('tells which of its operations failed, and why', async () => {
    const { host, disk } = await openStack();
    await disk.write(0, pattern(MiB));
    const gone = new Uint8Array(4 * KiB);
    const first = disk.submit([
      { op: 'read', offset: 8 * KiB, view: gone },
      { op: 'read', offset: 0, view: Buffer.alloc(4 * KiB) },
    ]);
    structuredClone(gone.buffer, { transfer: [gone.buffer] });
    expect(await first).toMatchObject([{ code: 'ERR_STRATAMAP_BUFFER', offset: 8 * KiB }, undefined]);

    await host.interpose({ type: 'fault', rules: [{ ops: ['read'], probability: 1, error: 'EIO' }] });
    const [write, read, flush, second] = await disk.submit([
      { op: 'write', offset: MiB, view: pattern(4 * KiB) },
      { op: 'read', offset: 4 * KiB, view: Buffer.alloc(4 * KiB) },
      { op: 'flush' },
      { op: 'read', offset: 16 * KiB, view: Buffer.alloc(4 * KiB) },
    ]);
    expect([write, flush]).toEqual([undefined, undefined]);
    expect(read).toMatchObject({ name: 'StratamapError', code: 'EIO', disk: 'vda', offset: 4 * KiB });
    expect(second).toMatchObject({ code: 'EIO', offset: 16 * KiB });
  });

  test('with a mistake in it touches nothing', async () => {
    const { disk } = await openStack();
    await disk.write(0, pattern(4 * KiB));
    const view = Buffer.alloc(4 * KiB, 7);
    const mistakes: [unknown, string][] = [
      [{ op: 'read', offset: 16 * MiB, view }, 'ERR_OUT_OF_RANGE'],
      [{ op: 'write', offset: 1, view }, 'ERR_OUT_OF_RANGE'],
      [{ op: 'write', offset: 0 }, 'ERR_INVALID_ARG_TYPE'],
      [{ op: 'trim', offset: 0, length: 4 * KiB }, 'ERR_INVALID_ARG_TYPE'],
      [{ op: 'toString' }, 'ERR_INVALID_ARG_TYPE'],
      [{ op: 'discard', offset: 0, length: -1 }, 'ERR_OUT_OF_RANGE'],
      [{ op: 'writeZeroes', offset: 0, length: 4 * KiB, fua: 1 }, 'ERR_INVALID_ARG_TYPE'],
      [null, 'ERR_INVALID_ARG_TYPE'],
    ];
    for (const [mistake, code] of mistakes) {
      const batch = [{ op: 'write', offset: 0, view }, mistake] as DiskOperation[];
      expect(await failureOf(disk.submit(batch)), JSON.stringify(mistake)).toMatchObject({ code });
    }
    expect(await failureOf(disk.submit({} as DiskOperation[]))).toMatchObject({ code: 'ERR_INVALID_ARG_TYPE' });
    expect((await disk.read(0, 4 * KiB)).equals(pattern(4 * KiB))).toBe(true);
    expect(await disk.submit([])).toEqual([]);
    await disk.close();
    expect(await failureOf(disk.submit([{ op: 'flush' }]))).toMatchObject({ code: 'ERR_STRATAMAP_CLOSED' });
  });

  test('that is under way holds up the closing of its disk, and ends first', async () => {
    const { disk } = await openStack();
    const view = Buffer.alloc(MiB);
    await disk.write(0, pattern(MiB));
    const batch = disk.submit(Array.from({ length: 8 }, () => ({ op: 'read', offset: 0, view }) as const));
    const order: string[] = [];
    await Promise.all([batch.then(() => order.push('batch')), disk.close().then(() => order.push('closed'))]);
    expect(order).toEqual(['batch', 'closed']);
    expect(view.equals(pattern(MiB))).toBe(true);
  });
});
