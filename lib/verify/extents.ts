// Where the file systems beneath a file say that its bytes are: FIEMAP of each level, one laid over the other. An oracle,
// and nothing else: what the map knows never comes from here.
import { open } from 'node:fs/promises';
import { native } from '../native.js';
import type { Level } from './levels.js';

/** An extent of a file that holds data. */
export interface FileExtent {
  /** In the file, bytes. */
  offset: number;
  length: number;
  /** On the whole device, bytes; undefined where the file system does not say, or means something else by it. */
  place: number | undefined;
}

export interface Range {
  offset: number;
  length: number;
}

/** Of FIEMAP's flags (linux/fiemap.h): what has no place yet, none of its own, or is not stored as it is read. */
const NO_PLACE = 0x2 | 0x4 | 0x8 | 0x80 | 0x100 | 0x200 | 0x400;
/** Allocated, and reads as zeroes. */
const UNWRITTEN = 0x800;
/** Where FIEMAP's places are the device's own; btrfs, for one, has addresses of its own. */
const MEANINGFUL = new Set(['ext2', 'ext3', 'ext4', 'xfs']);
/** Bytes between two ranges that are asked for as one. */
const GAP = 65536;

/** What a device beneath a file holds of it: sorted by offset in that file. What is in none is a hole there. */
export interface Truth {
  device: string;
  extents: FileExtent[];
}

/** For each level, the topmost first; of the ranges of the topmost file. */
export async function truthsOf(levels: readonly Level[], ranges: readonly Range[]): Promise<Truth[]> {
  const truths: Truth[] = [];
  let above: FileExtent[] | undefined;
  for (const level of levels) {
    const asked: Range[] = above === undefined ? [...ranges] : placesOf(above, level.base);
    const own = await fileExtents(level, joinedRanges(asked, above === undefined ? 0 : GAP));
    above = above === undefined ? clipped(own, joinedRanges(asked, 0)) : composed(above, own, level.base);
    truths.push({ device: level.device, extents: above });
  }
  return truths;
}

async function fileExtents({ file, fileSystem, start }: Level, ranges: readonly Range[]): Promise<FileExtent[]> {
  const handle = await open(file, 'r');
  try {
    const flat = Float64Array.from(ranges.flatMap(({ offset, length }) => [offset, length]));
    return extentsIn(await native.fileExtents(handle.fd, flat), start, MEANINGFUL.has(fileSystem));
  } finally {
    await handle.close();
  }
}

const endOf = ({ offset, length }: Range) => offset + length;

/** Words of native.fileExtents, as extents that do not overlap: what meets two ranges is told twice there. */
export function extentsIn(words: Float64Array, start: number, meaningful: boolean): FileExtent[] {
  const extents: FileExtent[] = [];
  let end = 0;
  for (let at = 0; at < words.length; at += 4) {
    const [offset, place, length, flags] = words.subarray(at, at + 4) as unknown as [number, number, number, number];
    if ((flags & UNWRITTEN) !== 0 || offset + length <= end) continue;
    const whole = { offset, length, place: meaningful && (flags & NO_PLACE) === 0 ? place + start : undefined };
    extents.push(part(whole, Math.max(offset, end), offset + length));
    end = offset + length;
  }
  return extents;
}

/** Sorted, and joined where no more than `gap` bytes lie between. */
export function joinedRanges(ranges: readonly Range[], gap: number): Range[] {
  const joined: Range[] = [];
  for (const range of ranges.toSorted((a, b) => a.offset - b.offset)) {
    const last = joined.at(-1);
    if (last && range.offset <= endOf(last) + gap) last.length = Math.max(endOf(last), endOf(range)) - last.offset;
    else joined.push({ ...range });
  }
  return joined;
}

/** The part of an extent from `from` to `to`, which both lie in it. */
const part = ({ offset, place }: FileExtent, from: number, to: number): FileExtent => ({
  offset: from,
  length: to - from,
  place: place === undefined ? undefined : place + from - offset,
});

/** What of each extent lies in a range. Both are sorted, and ranges do not overlap. */
function clipped(extents: readonly FileExtent[], ranges: readonly Range[]): FileExtent[] {
  return ranges.flatMap((range) =>
    overlapping(extents, range).map((each) =>
      part(each, Math.max(each.offset, range.offset), Math.min(endOf(each), endOf(range))),
    ),
  );
}

/** Those that meet a range; `extents` are sorted and do not overlap. */
export function overlapping<T extends Range>(extents: readonly T[], { offset, length }: Range): T[] {
  let first = 0;
  for (let end = extents.length; first < end; ) {
    const middle = (first + end) >> 1;
    if (endOf(extents[middle] as T) <= offset) first = middle + 1;
    else end = middle;
  }
  let last = first;
  while (last < extents.length && (extents[last] as T).offset < offset + length) ++last;
  return extents.slice(first, last);
}

/** Where, in the file beneath, the extents lie. */
const placesOf = (extents: readonly FileExtent[], base: number): Range[] =>
  extents.flatMap(({ place, length }) => (place === undefined ? [] : [{ offset: place + base, length }]));

/**
 * Extents of the topmost file on the device of the next level. `below`: the extents of the file behind the device that
 * `above` has its places on, which begins at `base` in it. What has no place above has none below.
 */
export function composed(above: readonly FileExtent[], below: readonly FileExtent[], base: number): FileExtent[] {
  return above.flatMap((extent) => {
    if (extent.place === undefined) return [extent];
    const range = { offset: extent.place + base, length: extent.length };
    return overlapping(below, range).map((each) => {
      const from = Math.max(each.offset, range.offset);
      const piece = part(each, from, Math.min(endOf(each), endOf(range)));
      return { ...piece, offset: extent.offset + from - range.offset };
    });
  });
}
