// Repeatable random numbers: the generator sfc32 of PractRand, seeded with any number of safe integers.

export class Random {
  #a = 0x9e3779b9;
  #b = 0x243f6a88;
  #c = 0xb7e15162;
  #counter = 1;

  constructor(...seeds: number[]) {
    for (const seed of seeds) {
      this.#a ^= seed >>> 0;
      this.#b ^= Math.floor(seed / 2 ** 32) >>> 0;
      for (let i = 0; i < 12; ++i) this.next();
    }
  }

  /** 0 … 2^32 - 1 */
  next(): number {
    const sum = (this.#a + this.#b + this.#counter) | 0;
    this.#counter = (this.#counter + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + sum) | 0;
    return sum >>> 0;
  }

  /** 0 … limit - 1, for limits that are small against 2^32. */
  below(limit: number): number {
    return Math.floor((this.next() / 2 ** 32) * limit);
  }

  /** Fills a view whose offset and length are multiples of 4. */
  fill(view: Uint8Array): void {
    const words = new Uint32Array(view.buffer, view.byteOffset, view.byteLength / 4);
    for (let i = 0; i < words.length; ++i) words[i] = this.next();
  }

  /** A version 4 UUID. */
  uuid(): string {
    const bytes = Buffer.alloc(16);
    this.fill(bytes);
    bytes[6] = (bytes[6]! & 0x0f) | 0x40;
    bytes[8] = (bytes[8]! & 0x3f) | 0x80;
    return bytes.toString('hex').replace(/(.{8})(.{4})(.{4})(.{4})(.{12})/, '$1-$2-$3-$4-$5');
  }
}
