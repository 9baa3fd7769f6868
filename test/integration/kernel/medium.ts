// What is on a medium: files and block devices, read past the page cache.
import { closeSync, constants, openSync, readSync } from 'node:fs';
import { onTestFinished } from 'vitest';

const ALIGNMENT = 4096; // bytes: enough for every device here
const PAGE = 65536; // bytes of a page of WebAssembly

declare const WebAssembly: {
  Memory: new (size: { initial: number }) => { readonly buffer: ArrayBuffer; grow(pages: number): number };
};

export class Medium {
  readonly #fd: number;
  /** O_DIRECT wants aligned memory; that of WebAssembly begins at a page. */
  readonly #memory = new WebAssembly.Memory({ initial: 17 });

  /** Closed when the running test ends, if it has not been. */
  constructor(path: string) {
    this.#fd = openSync(path, constants.O_RDONLY | constants.O_DIRECT);
    onTestFinished(() => closeSync(this.#fd));
  }

  /** A view that holds until the next call. Shorter where the medium ends before. */
  read(offset: number, length: number): Buffer {
    const from = Math.floor(offset / ALIGNMENT) * ALIGNMENT;
    const most = Math.ceil((offset + length - from) / ALIGNMENT) * ALIGNMENT;
    const missing = most - this.#memory.buffer.byteLength;
    if (missing > 0) this.#memory.grow(Math.ceil(missing / PAGE));
    const bytes = Buffer.from(this.#memory.buffer, 0, most);
    let done = 0;
    for (let n = -1; done < most && n !== 0 && done % ALIGNMENT === 0; done += n) {
      n = readSync(this.#fd, bytes, done, most - done, from + done);
    }
    return bytes.subarray(offset - from, Math.max(offset - from, Math.min(done, offset - from + length)));
  }
}
