// Random I/O through a disk, with what it must hold kept beside it.
import { randomBytes } from 'node:crypto';
import type { Disk } from 'stratamap';
import { MiB } from '../../support/stack.js';

export const BLOCK = 4096; // bytes: the unit of offsets and lengths
const SECTOR = 512;

/** The same numbers for the same seed: 0 to 1. */
export function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x9e3779b9) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 16), 0x21f0aaad);
    mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97);
    return ((mixed ^ (mixed >>> 15)) >>> 0) / 2 ** 32;
  };
}

export interface LoadOptions {
  /** How many I/Os. */
  operations: number;
  /** How many of a hundred are reads. Default 50. */
  reads?: number;
  /** Lengths, bytes; short ones are as frequent as long ones twice as long. Default 4 KiB to 1 MiB. */
  shortest?: number;
  longest?: number;
  /** I/Os in flight. Default 32. */
  depth?: number;
}

export class Load {
  readonly #disk: Disk;
  readonly #random: () => number;
  /** Everything in it differs. */
  readonly #pool = randomBytes(2 * MiB);
  #serial = 0;
  /** Bytes that were written. */
  written = 0;
  /** What was last acknowledged. */
  readonly content: Buffer;
  /** Blocks that were read or written since `forget`. */
  readonly #seen: Uint8Array;

  /** `content`: what the disk holds; it changes with what is written. */
  constructor(disk: Disk, content: Buffer, seed = 1) {
    this.#disk = disk;
    this.content = content;
    this.#random = randomOf(seed);
    this.#seen = new Uint8Array(content.length / BLOCK);
  }

  /** Whether the byte passed since `forget`. */
  seen(offset: number): boolean {
    return this.#seen[Math.floor(offset / BLOCK)] === 1;
  }

  forget(): void {
    this.#seen.fill(0);
  }

  /** I/Os that do not overlap while they are in flight; what is read is compared. */
  async run(options: LoadOptions): Promise<void> {
    const { operations, reads = 50, shortest = BLOCK, longest = MiB, depth = 32 } = options;
    const busy = new Uint8Array(this.#seen.length);
    let left = operations;
    const worker = async () => {
      while (left-- > 0) {
        const [from, blocks] = this.#free(busy, shortest, longest);
        busy.fill(1, from, from + blocks);
        if (this.#random() * 100 < reads) await this.read(from * BLOCK, blocks * BLOCK);
        else await this.write(from * BLOCK, blocks * BLOCK);
        busy.fill(0, from, from + blocks);
      }
    };
    const ended = await Promise.allSettled(Array.from({ length: depth }, worker));
    for (const each of ended) if (each.status === 'rejected') throw each.reason;
  }

  /** A range of blocks that no other I/O is at. */
  #free(busy: Uint8Array, shortest: number, longest: number): [number, number] {
    for (;;) {
      const length = shortest * (longest / shortest) ** this.#random();
      const blocks = Math.min(Math.round(length / BLOCK), busy.length);
      const from = Math.floor(this.#random() * (busy.length - blocks + 1));
      if (!busy.subarray(from, from + blocks).includes(1)) return [from, blocks];
    }
  }

  /** Bytes of which no sector is like another that was ever written. */
  async write(offset: number, length: number): Promise<void> {
    const data = this.content.subarray(offset, offset + length);
    this.#pool.copy(data, 0, Math.floor(this.#random() * (this.#pool.length - length)));
    for (let at = 0; at < length; at += SECTOR) data.writeDoubleLE(++this.#serial, at);
    await this.#disk.write(offset, data);
    this.written += length;
    this.#pass(offset, length);
  }

  async read(offset: number, length: number): Promise<void> {
    const data = await this.#disk.read(offset, length);
    if (!this.content.subarray(offset, offset + length).equals(data)) {
      throw new Error(`the disk does not read as it was written, from ${offset}, ${length} bytes`);
    }
    this.#pass(offset, length);
  }

  #pass(offset: number, length: number): void {
    this.#seen.fill(1, offset / BLOCK, (offset + length) / BLOCK);
  }
}
