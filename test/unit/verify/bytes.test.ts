// Bytes that change while they are compared.
import { expect, test } from 'vitest';
import { compareBytes, piecesOf, type Reader } from '../../../lib/verify/bytes.js';
import type { Mapped } from '../../../lib/verify/places.js';

const SECTOR = 512;
const mapped: Mapped = { offset: 8192, length: 4 * SECTOR, device: 'd', place: 65536 };
const same = (mapping: Mapped) => [mapping];

/** Gives these, one after the other, the last again and again: whose sectors have the byte of their number here. */
function readerOf(...answers: number[][]): Reader & { reads: number } {
  const next = [...answers];
  return {
    reads: 0,
    async read(_, length) {
      ++this.reads;
      const sectors = (next.length > 1 ? next.shift() : next[0]) as number[];
      return Buffer.concat(sectors.map((byte) => Buffer.alloc(SECTOR, byte))).subarray(0, length);
    },
  };
}

test('what is equal is read once', async () => {
  const [file, device] = [readerOf([1, 2, 3, 4]), readerOf([1, 2, 3, 4])];
  expect(await compareBytes(mapped, file, device, same)).toEqual({ equal: mapped.length, different: 0, moved: 0 });
  expect([file.reads, device.reads]).toEqual([1, 1]);
});

test('what stays different is, and no more of it', async () => {
  const result = await compareBytes(mapped, readerOf([1, 2, 3, 4]), readerOf([1, 9, 3, 4]), same);
  expect(result).toMatchObject({ equal: 3 * SECTOR, different: SECTOR, moved: 0 });
  expect(result.first).toEqual({
    part: { ...mapped, offset: 8192 + SECTOR, length: SECTOR, place: 65536 + SECTOR },
    why: 'byte 0 of it is 9 on the device, and 2 in the file',
  });
});

test('a write between two reads is none', async () => {
  const device = readerOf([1, 2, 3, 4], [1, 7, 3, 4]);
  const result = await compareBytes(mapped, readerOf([1, 7, 3, 4]), device, same);
  expect(result).toEqual({ equal: 4 * SECTOR, different: 0, moved: 0 });
});

test('a device that never keeps still is not held against the map', async () => {
  let serial = 0;
  const device: Reader = { read: async (_, length) => Buffer.alloc(length, ++serial % 200) };
  const result = await compareBytes(mapped, readerOf([201, 202, 203, 204]), device, same);
  expect(result).toEqual({ equal: 0, different: 0, moved: 4 * SECTOR });
});

test('what the map says no longer is moved: those sectors, and no others', async () => {
  const file = readerOf([1, 2, 3, 4]);
  const kept = (from: number, sectors: number) => ({
    ...mapped,
    offset: mapped.offset + from * SECTOR,
    length: sectors * SECTOR,
  });
  const again = () => [kept(0, 1), kept(2, 2)];
  const result = await compareBytes(mapped, file, readerOf([9, 9, 3, 4]), again);
  expect(result).toMatchObject({ equal: 2 * SECTOR, different: SECTOR, moved: SECTOR });
});

test('what ends before its end is different', async () => {
  const [whole, short] = [readerOf([1, 2, 3, 4]), readerOf([1, 2])];
  expect(await compareBytes(mapped, short, whole, same)).toMatchObject({
    different: 2 * SECTOR,
    first: { why: 'the file ends before' },
  });
  expect(await compareBytes(mapped, whole, short, same)).toMatchObject({
    different: 2 * SECTOR,
    first: { why: 'the device ends before' },
  });
});

test('long places are read in pieces', () => {
  const length = 2 ** 21 + SECTOR;
  const pieces = [...piecesOf({ ...mapped, length })];
  expect(pieces.map((piece) => piece.length)).toEqual([2 ** 20, 2 ** 20, SECTOR]);
  for (const { offset, place } of pieces) expect(place - offset).toBe(mapped.place - mapped.offset);
});
