// Verification on demand: what a map says of a disk, against the bytes on the devices and against FIEMAP.
import { stat } from 'node:fs/promises';
import { isAbsolute } from 'node:path';
import * as check from '../arguments.js';
import { AbortError, type StratamapError } from '../errors.js';
import { type DiskReference, type Extent, namesOf } from '../map.js';
import { compareBytes, piecesOf } from './bytes.js';
import { DirectFile } from './direct.js';
import { joinedRanges, type Range, truthsOf } from './extents.js';
import { type Level, levelsBeneath } from './levels.js';
import { bytesIn, compareWithTruths, type Mapped, type MapReader, placesIn, still } from './places.js';
import { type DeviceCounts, joined, noCounts, type Verification, verificationOf, type WrongPlace } from './result.js';

export interface VerifyOptions {
  disk: DiskReference;
  /** The file that holds it, byte for byte: of a volume of type `kernel`, `<directory>/<vm>/<name>.img`. */
  file: string;
  /** The part of the disk, bytes. Default: all of the file. */
  offset?: number | undefined;
  length?: number | undefined;
  /** Ends it: the promise then rejects with an AbortError. */
  signal?: AbortSignal | undefined;
  /** Called as it goes on: how many bytes of the part have been looked at. */
  onProgress?: ((done: number, all: number) => void) | undefined;
}

const WINDOW = 2 ** 24; // bytes of the disk that are looked at as one
const DEPTH = 8; // pieces that are read at once

/**
 * Holds what a map says of a disk against the truth, on every block device beneath its file: against the bytes there,
 * read past the page cache, and, where the file systems are ext4 or xfs, against FIEMAP. It may run while the disk is
 * used: what changes between two looks counts as moved. It changes nothing; the map, which never learns from FIEMAP,
 * sees its reads as those of anybody else.
 *
 * `ENOENT` where there is no such file, `ENOTBLK` where it is on no block device, `EACCES` where a device beneath may not
 * be read.
 */
export async function verify(map: MapReader, options: VerifyOptions): Promise<Verification> {
  const given = check.object(options, 'options');
  const { vm, name } = namesOf(given.disk);
  const path = check.string(given.file, 'file');
  const signal = check.signal(given.signal);
  const offset = check.integer(given.offset ?? 0, 'offset');
  const throwIfAborted = () => {
    if (signal?.aborted) throw new AbortError(signal.reason);
  };
  throwIfAborted();
  const levels = await levelsBeneath(path);
  const length = given.length ?? Math.max(0, (await stat(path)).size - offset);
  check.range(offset, length);
  await using files = await Files.open(path, levels);
  let whole = joined(
    undefined,
    partial(
      { vm, name },
      path,
      levels.map(({ device }) => [device, noCounts()]),
    ),
  );
  for (let at = 0; at < length; at += WINDOW) {
    const window = { offset: offset + at, length: Math.min(WINDOW, length - at) };
    whole = joined(whole, await verifyWindow(map, { vm, name }, levels, files, window, throwIfAborted));
    given.onProgress?.(at + window.length, length);
  }
  return whole;
}

/** The disk's file, and the devices, opened when they are first asked for. */
class Files {
  readonly file: DirectFile;
  readonly #chain: ReadonlySet<string>;
  readonly #devices = new Map<string, Promise<DirectFile | undefined>>();

  private constructor(file: DirectFile, chain: ReadonlySet<string>) {
    this.file = file;
    this.#chain = chain;
  }

  static async open(path: string, levels: readonly Level[]): Promise<Files> {
    return new Files(await DirectFile.open(path), new Set(levels.map(({ device }) => device)));
  }

  /** Undefined where a name that is not beneath the file is none of a device. */
  async device(name: string): Promise<DirectFile | undefined> {
    if (!isAbsolute(name)) return undefined;
    let device = this.#devices.get(name);
    if (device === undefined) {
      device = DirectFile.open(name).catch((error: StratamapError) => {
        if (this.#chain.has(name)) throw error;
        return undefined;
      });
      this.#devices.set(name, device);
    }
    return device;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const devices = await Promise.all([...this.#devices.values()].map((each) => each.catch(() => undefined)));
    await Promise.all([this.file, ...devices].map((each) => each?.close()));
  }
}

interface Names {
  vm: string;
  name: string;
}

const partial = (
  disk: Names,
  file: string,
  counts: Iterable<readonly [string, DeviceCounts]>,
  wrong: WrongPlace[] = [],
): Verification => ({
  ...disk,
  file,
  devices: Array.from(counts, ([device, each]) => verificationOf(device, each)),
  wrong,
});

async function verifyWindow(
  map: MapReader,
  disk: Names,
  levels: readonly Level[],
  files: Files,
  window: Range,
  throwIfAborted: () => void,
): Promise<Verification> {
  const again = (mapped: Mapped) => still(map, disk, mapped);
  const extents = map.locate(disk, window.offset, window.length);
  const truths = await truthsOf(levels, [window]);
  const places = placesIn(extents, 'mapped');
  const counts = new Map(truths.map((truth) => [truth.device, coverage(extents, truth.device, truth.extents)]));
  for (const { device } of [...places, ...placesIn(extents, 'stale')]) {
    if (!counts.has(device)) counts.set(device, coverage(extents, device, []));
  }
  const compared = await compareWithTruths(
    places,
    truths,
    (ranges) => truthsOf(levels, joinedRanges(ranges, 0)),
    again,
  );
  for (const [device, tally] of compared.tallies) (counts.get(device) as DeviceCounts).fiemap = tally;

  const wrong: WrongPlace[] = [];
  const look = async (piece: Mapped) => {
    const { bytes } = counts.get(piece.device) as DeviceCounts;
    const device = await files.device(piece.device);
    if (device === undefined) {
      bytes.incomparable += piece.length;
      return;
    }
    const { equal, different, moved, first } = await compareBytes(piece, files.file, device, again);
    bytes.equal += equal;
    bytes.different += different;
    bytes.moved += moved;
    if (first === undefined) return;
    const { offset, length, place } = first.part;
    const elsewhere = compared.differing.some(
      (each) => each.device === piece.device && each.offset < offset + length && offset < each.offset + each.length,
    );
    const why = elsewhere ? `${first.why}; FIEMAP says another place, or a hole` : first.why;
    wrong.push({ diskOffset: offset, length, device: piece.device, offset: place, why });
  };
  const pieces = places.flatMap((each) => [...piecesOf(each)]);
  for (let at = 0; at < pieces.length; at += DEPTH) {
    throwIfAborted();
    await Promise.all(pieces.slice(at, at + DEPTH).map(look));
  }
  return partial(disk, files.file.path, counts, wrong);
}

/** How much of what is written on a device the map knows. */
function coverage(extents: readonly Extent[], device: string, written: readonly Range[]): DeviceCounts {
  const on = (state: Extent['state']) => placesIn(extents, state).filter((each) => each.device === device);
  const [mapped, stale] = [on('mapped'), on('stale')];
  const all = bytesIn(written);
  return {
    ...noCounts(),
    mapped: bytesIn(mapped),
    stale: bytesIn(stale),
    written: all,
    found: common(mapped, written),
    unknown: all - common([...mapped, ...stale], written),
  };
}

/** Bytes that lie in both; the second are sorted, and do not overlap. */
function common(some: readonly Range[], others: readonly Range[]): number {
  let sum = 0;
  let next = 0;
  for (const { offset, length } of joinedRanges(some, 0)) {
    while (next < others.length && (others[next] as Range).offset + (others[next] as Range).length <= offset) ++next;
    for (let i = next; i < others.length && (others[i] as Range).offset < offset + length; ++i) {
      const other = others[i] as Range;
      sum += Math.min(offset + length, other.offset + other.length) - Math.max(offset, other.offset);
    }
  }
  return sum;
}

export type {
  BytesTally,
  DeviceCounts,
  DeviceVerification,
  FiemapTally,
  Verification,
  WrongPlace,
} from './result.js';
export type { MapReader };
