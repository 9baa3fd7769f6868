import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { composed, extentsIn, type FileExtent, joinedRanges, overlapping } from '../../../lib/verify/extents.js';

describe('FIEMAP’s words', () => {
  const UNWRITTEN = 0x800;
  const ENCODED = 0x8;

  test('places are those of the whole device; what is unwritten is a hole', () => {
    const words = Float64Array.of(0, 4096, 8192, 0, 8192, 65536, 4096, UNWRITTEN, 12288, 0, 4096, ENCODED | 1);
    const [first, last] = [
      { offset: 0, length: 8192, place: 4096 + 512 },
      { offset: 12288, length: 4096, place: undefined },
    ];
    expect(extentsIn(words, 512, true)).toEqual([first, last]);
    expect(extentsIn(words, 512, false)).toEqual([{ ...first, place: undefined }, last]);
  });

  test('what meets two ranges, and so is told twice, is one', () => {
    const words = Float64Array.of(0, 100, 10, 0, 0, 100, 10, 0, 5, 105, 10, 0);
    expect(extentsIn(words, 0, true)).toEqual([
      { offset: 0, length: 10, place: 100 },
      { offset: 10, length: 5, place: 110 },
    ]);
  });
});

/** Extents that do not overlap, of a file or device of 64 bytes. */
const extents = fc
  .array(fc.record({ gap: fc.nat(3), length: fc.integer({ min: 1, max: 9 }), place: fc.nat(200) }), { maxLength: 8 })
  .map((parts) => {
    let at = 0;
    return parts.map(({ gap, length, place }): FileExtent => {
      const offset = at + gap;
      at = offset + length;
      return { offset, length, place: place % 5 === 0 ? undefined : place % 64 };
    });
  });

/** Byte by byte: a hole is missing, and what has no place is undefined. */
function bytesOf(all: readonly FileExtent[]): Map<number, number | undefined> {
  const bytes = new Map<number, number | undefined>();
  for (const { offset, length, place } of all) {
    for (let i = 0; i < length; ++i) bytes.set(offset + i, place === undefined ? undefined : place + i);
  }
  return bytes;
}

test('two levels laid over each other are what they are byte by byte', () => {
  fc.assert(
    fc.property(extents, extents, fc.nat(5), (above, below, base) => {
      const expected = new Map<number, number | undefined>();
      const under = bytesOf(below);
      for (const [byte, place] of bytesOf(above)) {
        if (place === undefined) expected.set(byte, undefined);
        else if (under.has(place + base)) expected.set(byte, under.get(place + base));
      }
      const both = composed(above, below, base);
      expect(bytesOf(both)).toEqual(expected);
      for (const [i, { offset }] of both.entries()) {
        if (i > 0) expect(offset).toBeGreaterThanOrEqual(both[i - 1]!.offset + both[i - 1]!.length);
      }
    }),
  );
});

test('what overlaps a range is found, and nothing else', () => {
  fc.assert(
    fc.property(extents, fc.nat(70), fc.integer({ min: 1, max: 20 }), (all, offset, length) => {
      const expected = all.filter((each) => each.offset < offset + length && offset < each.offset + each.length);
      expect(overlapping(all, { offset, length })).toEqual(expected);
    }),
  );
});

test('ranges are joined over gaps that are small enough', () => {
  const ranges = [
    { offset: 30, length: 5 },
    { offset: 0, length: 10 },
    { offset: 4, length: 2 },
    { offset: 12, length: 3 },
  ];
  expect(joinedRanges(ranges, 2)).toEqual([
    { offset: 0, length: 15 },
    { offset: 30, length: 5 },
  ]);
  expect(joinedRanges(ranges, 0).map(({ offset }) => offset)).toEqual([0, 12, 30]);
});
