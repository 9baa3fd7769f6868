import { expect, test } from 'vitest';
import { CompletionBatch } from '../../lib/completions.js';
import type { Names } from '../../lib/map.js';

const names = {
  disk: (key: number) => ({ vm: `vm-${key}`, name: 'vda' }),
  device: (key: number) => `d${key}`,
} as Names;

// Two records as native/map/event_ring.h lays them out: a write in two pieces, one of unknown position, and a flush.
const WORDS = [
  [19, 2, 0, 1, 8192, 6144, 100, 110, 190, 200, 2, 0, 65536, 4096, 0, 1, 512, 2048, -1],
  [11, 3, -5, 0, 0, 0, 300, 0, 0, 310, 0],
].flat();

function batchOf(words: number[]): CompletionBatch {
  const batch = new CompletionBatch(Float64Array.from([...words, 99, 99]), names);
  CompletionBatch.fill(batch, words.length);
  return batch;
}

test('a batch shows each completion', () => {
  expect([...batchOf(WORDS)].length).toBe(2);
  const [first, second] = Array.from(batchOf(WORDS), (completion) => completion.toObject());
  expect(first).toEqual({
    vm: 'vm-1',
    disk: 'vda',
    offset: 8192,
    length: 6144,
    op: 'write',
    status: 0,
    pieces: [
      { device: 'd0', offset: 65536, length: 4096, diskOffset: 8192 },
      { device: 'd1', offset: 512, length: 2048, diskOffset: undefined },
    ],
    submitted: 100,
    firstIssued: 110,
    lastCompleted: 190,
    completed: 200,
  });
  expect(second).toMatchObject({ vm: 'vm-0', op: 'flush', status: -5, length: 0, pieces: [], firstIssued: 0 });
});

test('the cursor is reused, and toObject keeps what it showed', () => {
  const cursors = new Set<object>();
  const kept: object[] = [];
  for (const completion of batchOf(WORDS)) {
    cursors.add(completion);
    kept.push(completion.toObject());
  }
  expect(cursors.size).toBe(1);
  expect(kept.map((object) => (object as { op: string }).op)).toEqual(['write', 'flush']);
});

test('a piece is shown by a cursor that is reused', () => {
  const [first] = batchOf(WORDS);
  expect(first?.pieceCount).toBe(2);
  const piece = first?.piece(0);
  expect(piece).toMatchObject({ device: 'd0', offset: 65536, length: 4096, diskOffset: 8192 });
  expect(first?.piece(1)).toBe(piece);
  expect(piece?.toObject()).toEqual({ device: 'd1', offset: 512, length: 2048, diskOffset: undefined });
  for (const index of [-1, 2, 0.5, Number.NaN]) expect(() => first?.piece(index)).toThrow(RangeError);
});

test('an empty batch ends at once', () => {
  expect([...batchOf([])]).toEqual([]);
});
