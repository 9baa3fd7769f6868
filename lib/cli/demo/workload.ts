// Random overwrites, discards and reads of one disk. The same seed gives the same requests with the same data, and the
// same content afterwards: requests that overlap are carried out in the order in which they were drawn.
import type { Disk } from '../../index.js';
import { BLOCK, type KeptImage } from './kept.js';
import { parallel } from './parallel.js';
import { Random } from './random.js';

export const QUEUE_DEPTH = 32;
const LARGEST_IO = 64 * 1024;
const LARGEST_DISCARD = 256 * 1024;

export type Kind = 'write' | 'discard' | 'read';

export interface PlannedRequest {
  kind: Kind;
  offset: number;
  length: number;
  /** Gives the data of a write. */
  random: Random;
}

export interface Tally {
  operations: number;
  bytes: number;
}

export interface WorkloadResult extends Record<Kind, Tally> {
  /** Where a read first gave other bytes than had been written; -1: nowhere. */
  firstDifference: number;
}

/** As many requests as touch most of a disk, and leave some of it. */
export function requestCount(size: number): number {
  return Math.ceil(size / 16384);
}

/** Request `number` of the disk `disk`: of 20, 13 write, 2 discard and 5 read. */
export function planRequest(seed: number, disk: number, number: number, size: number): PlannedRequest {
  const random = new Random(seed, disk, number);
  const choice = random.below(20);
  const kind = choice < 13 ? 'write' : choice < 15 ? 'discard' : 'read';
  const blocks = 1 + random.below((kind === 'discard' ? LARGEST_DISCARD : LARGEST_IO) / BLOCK);
  const offset = random.below(size / BLOCK - blocks + 1) * BLOCK;
  return { kind, offset, length: blocks * BLOCK, random };
}

export async function runRandomWorkload(
  disk: Disk,
  index: number,
  kept: KeptImage,
  seed: number,
  signal: AbortSignal,
  onDone: () => void,
): Promise<WorkloadResult> {
  const result: WorkloadResult = {
    write: { operations: 0, bytes: 0 },
    discard: { operations: 0, bytes: 0 },
    read: { operations: 0, bytes: 0 },
    firstDifference: -1,
  };
  const inFlight = new Set<{ from: number; to: number; ended: Promise<void> }>();
  const buffers = Array.from({ length: QUEUE_DEPTH }, () => Buffer.alloc(LARGEST_IO));
  const expected = Buffer.alloc(LARGEST_IO);

  const perform = async ({ kind, offset, length, random }: PlannedRequest, buffer: Buffer) => {
    const data = buffer.subarray(0, length);
    if (kind === 'write') {
      random.fill(data);
      await disk.write(offset, data);
      kept.write(offset, data);
    } else if (kind === 'discard') {
      await disk.discard(offset, length);
      kept.discard(offset, length);
    } else {
      await disk.read(offset, data);
      const truth = expected.subarray(0, length);
      kept.read(offset, truth);
      if (!truth.equals(data) && result.firstDifference < 0) {
        result.firstDifference = offset + truth.findIndex((byte, i) => byte !== data[i]);
      }
    }
    result[kind].operations += 1;
    result[kind].bytes += length;
  };

  const numbers = Array.from({ length: requestCount(disk.size) }, (_, number) => number);
  await parallel(numbers, QUEUE_DEPTH, async (number, slot) => {
    signal.throwIfAborted();
    const request = planRequest(seed, index, number, disk.size);
    const from = request.offset;
    const to = from + request.length;
    const before = [...inFlight].filter((other) => other.from < to && from < other.to).map((other) => other.ended);
    let end = () => {};
    const ended = new Promise<void>((resolve) => {
      end = resolve;
    });
    const self = { from, to, ended };
    inFlight.add(self);
    try {
      await Promise.all(before);
      await perform(request, buffers[slot]!);
    } finally {
      inFlight.delete(self);
      end();
    }
    onDone();
  });
  return result;
}
