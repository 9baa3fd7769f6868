// Whole ext4 images, through the stack and back.
import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import type { Disk } from '../../index.js';
import { compare, runs } from './blocks.js';
import { BLOCK, type KeptImage } from './kept.js';
import { parallel } from './parallel.js';

const CHUNK = 256 * 1024;
const DEPTH = 8;
const DISCARD_FROM = 64 * 1024;

/** Offsets of the pieces in which a disk or image of `size` bytes is carried. */
export function* chunks(size: number, chunk = CHUNK): Generator<{ offset: number; length: number }> {
  for (let offset = 0; offset < size; offset += chunk) yield { offset, length: Math.min(chunk, size - offset) };
}

/** Writes the image's data to a new disk, whose other bytes are zeroes, and to the kept image. */
export async function writeNew(disk: Disk, image: string, kept: KeptImage, signal: AbortSignal): Promise<void> {
  await eachRun(disk, image, signal, async (offset, data, zero) => {
    if (zero) return;
    await disk.write(offset, data);
    kept.write(offset, data);
  });
}

/** Writes an image over whatever a disk holds: long runs of zeroes are discarded, short ones written as zeroes. */
export async function rewrite(disk: Disk, image: string, signal: AbortSignal): Promise<void> {
  await eachRun(disk, image, signal, async (offset, data, zero) => {
    if (!zero) await disk.write(offset, data);
    else if (data.length >= DISCARD_FROM) await disk.discard(offset, data.length);
    else await disk.writeZeroes(offset, data.length);
  });
}

/** Reads the whole disk into a file. Returns how many bytes are not those of `image`. */
export async function readBack(disk: Disk, image: string, file: string, signal: AbortSignal): Promise<number> {
  const truth = openSync(image, 'r');
  const copy = openSync(file, 'w');
  let differing = 0;
  try {
    await parallel(chunks(disk.size), DEPTH, async ({ offset, length }) => {
      signal.throwIfAborted();
      const data = await disk.read(offset, length);
      const expected = Buffer.alloc(length);
      readSync(truth, expected, 0, length, offset);
      differing += compare(expected, data).differing;
      writeSync(copy, data, 0, length, offset);
    });
  } finally {
    closeSync(truth);
    closeSync(copy);
  }
  return differing;
}

async function eachRun(
  disk: Disk,
  image: string,
  signal: AbortSignal,
  work: (offset: number, data: Buffer, zero: boolean) => Promise<void>,
): Promise<void> {
  const fd = openSync(image, 'r');
  try {
    await parallel(chunks(disk.size), DEPTH, async ({ offset, length }) => {
      signal.throwIfAborted();
      const data = Buffer.alloc(length);
      readSync(fd, data, 0, length, offset);
      for (const run of runs(data, BLOCK)) {
        await work(offset + run.offset, data.subarray(run.offset, run.offset + run.length), run.zero);
      }
    });
  } finally {
    closeSync(fd);
  }
}
