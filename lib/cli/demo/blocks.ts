// Comparing the same bytes that came by several ways, sector by sector.

export const SECTOR = 512;
const ZEROES = Buffer.alloc(SECTOR);

export interface Comparison {
  /** Bytes of sectors that are not all zeroes everywhere. */
  compared: number;
  /** Bytes that are not the same everywhere. */
  differing: number;
  /** Where the first of those is, from the start of the views; -1: none. */
  firstDifference: number;
}

export function isZero(view: Buffer, from: number, to: number): boolean {
  for (let at = from; at < to; at += SECTOR) {
    const end = Math.min(to, at + SECTOR);
    if (view.compare(ZEROES, 0, end - at, at, end) !== 0) return false;
  }
  return true;
}

/** All views are as long as the first, the truth. */
export function compare(truth: Buffer, ...others: Buffer[]): Comparison {
  const result: Comparison = { compared: 0, differing: 0, firstDifference: -1 };
  const same = others.every((other) => truth.equals(other));
  for (let at = 0; at < truth.length; at += SECTOR) {
    const end = Math.min(truth.length, at + SECTOR);
    if (same) {
      if (!isZero(truth, at, end)) result.compared += end - at;
      continue;
    }
    if ([truth, ...others].every((view) => isZero(view, at, end))) continue;
    result.compared += end - at;
    for (let i = at; i < end; ++i) {
      if (others.every((other) => other[i] === truth[i])) continue;
      if (result.firstDifference < 0) result.firstDifference = i;
      ++result.differing;
    }
  }
  return result;
}

/** Cuts `view` where it changes between zeroes and data; offsets and lengths are multiples of `block`. */
export function* runs(view: Buffer, block: number): Generator<{ offset: number; length: number; zero: boolean }> {
  let start = 0;
  let zero = isZero(view, 0, Math.min(block, view.length));
  for (let at = block; at < view.length; at += block) {
    const next = isZero(view, at, Math.min(at + block, view.length));
    if (next === zero) continue;
    yield { offset: start, length: at - start, zero };
    start = at;
    zero = next;
  }
  if (view.length > start) yield { offset: start, length: view.length - start, zero };
}
