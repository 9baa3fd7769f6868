// The image of what was written to a virtual disk, kept apart from the stack: a plain file, and which of its blocks
// were written and not discarded since.
import { closeSync, ftruncateSync, openSync, readSync, writeSync } from 'node:fs';

/** Everything that the demo writes or discards begins and ends at a multiple of this. */
export const BLOCK = 4096;

const ZEROES = Buffer.alloc(256 * 1024);

export class KeptImage {
  readonly size: number;
  readonly #fd: number;
  readonly #written: Uint8Array; // for each block

  constructor(file: string, size: number) {
    this.size = size;
    this.#fd = openSync(file, 'w+');
    ftruncateSync(this.#fd, size);
    this.#written = new Uint8Array(size / BLOCK);
  }

  write(offset: number, data: Uint8Array): void {
    writeSync(this.#fd, data, 0, data.length, offset);
    this.#written.fill(1, offset / BLOCK, (offset + data.length) / BLOCK);
  }

  discard(offset: number, length: number): void {
    for (let at = 0; at < length; at += ZEROES.length) {
      writeSync(this.#fd, ZEROES, 0, Math.min(ZEROES.length, length - at), offset + at);
    }
    this.#written.fill(0, offset / BLOCK, (offset + length) / BLOCK);
  }

  read(offset: number, into: Uint8Array): void {
    readSync(this.#fd, into, 0, into.length, offset);
  }

  isWritten(offset: number): boolean {
    return this.#written[Math.floor(offset / BLOCK)] === 1;
  }

  close(): void {
    closeSync(this.#fd);
  }
}
