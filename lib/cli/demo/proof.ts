// The proof: three ways to the same bytes. (a) the device, read by dd with O_DIRECT, outside the stack; (b) the virtual
// disk, through the stack; (c) the image of what was written, kept apart. And the way back: whose the map says that each
// place is.
import { closeSync, openSync, readSync } from 'node:fs';
import path from 'node:path';
import type { AddressMap, Disk, Extent } from '../../index.js';
import { compare, isZero, SECTOR } from './blocks.js';
import { chunks } from './image_io.js';
import type { KeptImage } from './kept.js';
import { parallel } from './parallel.js';
import { isMapped, type Snapshot } from './snapshot.js';
import type { Backing } from './stack.js';
import { runTool } from './tool.js';

const PIECE = 2 ** 20;
const DEPTH = 8;

export interface Proof {
  /** Mapped extents that were compared. */
  extents: number;
  /** Bytes of sectors that are not all zeroes, each once for each place. */
  bytesCompared: number;
  /** Bytes that are not the same all three ways. */
  differing: number;
  /** The part of the non-zero bytes written, and not since discarded, that is mapped. */
  recall: number;
}

export interface ProofResult {
  proof: Proof;
  /** Non-zero bytes written and not since discarded, and those of them that are mapped, by disk. */
  written: number[];
  mapped: number[];
  /** Mapped extents for whose places owners() does not name their disk and offset. */
  misnamed: number;
  /** What is wrong. */
  failures: string[];
}

/** A copy of what a device holds, taken outside the stack. */
export class DeviceCopy {
  readonly #fd: number;

  constructor(file: string) {
    this.#fd = openSync(file, 'r');
  }

  read(offset: number, length: number): Buffer {
    const data = Buffer.alloc(length);
    readSync(this.#fd, data, 0, length, offset);
    return data;
  }

  close(): void {
    closeSync(this.#fd);
  }
}

/** Copies a device with dd. `direct` is false where its file system cannot do O_DIRECT. */
export async function copyDevice(
  backing: Backing,
  folder: string,
  signal: AbortSignal,
): Promise<{ copy: DeviceCopy; direct: boolean }> {
  const file = path.join(folder, `${backing.name}.dd`);
  const args = [`if=${backing.path}`, `of=${file}`, 'bs=1M', 'conv=sparse', 'status=none'];
  const direct = await runTool('dd', [...args, 'iflag=direct'], signal);
  if (direct.code === 0) return { copy: new DeviceCopy(file), direct: true };
  const buffered = await runTool('dd', args, signal);
  if (buffered.code === 0) return { copy: new DeviceCopy(file), direct: false };
  throw new Error(`dd cannot read ${backing.path}: ${buffered.output}`);
}

export async function prove(
  snapshot: Snapshot,
  disks: readonly Disk[],
  kept: readonly KeptImage[],
  copies: ReadonlyMap<string, DeviceCopy>,
  map: AddressMap,
  signal: AbortSignal,
  onDone: () => void,
): Promise<ProofResult> {
  const proof: Proof = { extents: 0, bytesCompared: 0, differing: 0, recall: 0 };
  const failures: string[] = [];
  const written: number[] = [];
  const mapped: number[] = [];
  let misnamed = 0;
  for (const [index, disk] of disks.entries()) {
    const extents = snapshot.extents[index]!.filter(isMapped);
    const name = `${disk.vm}/${disk.name}`;
    await parallel(extents, DEPTH, async (extent) => {
      signal.throwIfAborted();
      await compareExtent(extent, disk, kept[index]!, copies, proof, failures);
      const wrong = wrongOwner(map, extent, disk);
      if (wrong) {
        failures.push(wrong);
        ++misnamed;
      }
      ++proof.extents;
    });
    const whole = await compareWhole(disk, kept[index]!, signal);
    if (whole >= 0) failures.push(`${name} does not read as it was written, first at byte ${whole}`);
    const counted = recallOf(kept[index]!, extents);
    written.push(counted.written);
    mapped.push(counted.mapped);
    onDone();
  }
  const all = sum(written);
  proof.recall = all === 0 ? 0 : sum(mapped) / all;
  if (proof.recall < 1) {
    failures.push(`recall is ${proof.recall}: ${all - sum(mapped)} of ${all} bytes written are not mapped`);
  }
  return { proof, written, mapped, misnamed, failures };
}

const sum = (numbers: number[]) => numbers.reduce((a, b) => a + b, 0);

async function compareExtent(
  extent: Extent,
  disk: Disk,
  kept: KeptImage,
  copies: ReadonlyMap<string, DeviceCopy>,
  proof: Proof,
  failures: string[],
): Promise<void> {
  for (const { offset, length } of chunks(extent.length, PIECE)) {
    const truth = Buffer.alloc(length);
    kept.read(extent.diskOffset + offset, truth);
    const read = await disk.read(extent.diskOffset + offset, length);
    for (const place of extent.places) {
      const device = copies.get(place.device)!.read(place.offset + offset, length);
      const { compared, differing, firstDifference } = compare(truth, read, device);
      proof.bytesCompared += compared;
      proof.differing += differing;
      if (differing === 0) continue;
      const at = offset + firstDifference;
      failures.push(
        `${disk.vm}/${disk.name} at ${extent.diskOffset + at}, mapped to ${place.device} at ${place.offset + at}: ` +
          `${differing} bytes differ; the first was written as ${truth[firstDifference]}, reads as ` +
          `${read[firstDifference]} through the disk, and is ${device[firstDifference]} on the device`,
      );
    }
  }
}

/** What map.owners says of an extent's places must be that extent, whole, and nothing else. */
function wrongOwner(map: AddressMap, extent: Extent, disk: Disk): string | undefined {
  for (const place of extent.places) {
    let next = place.offset;
    for (const owner of map.owners(place.device, place.offset, extent.length)) {
      if (owner.state !== 'mapped') continue;
      const ours = owner.vm === disk.vm && owner.disk === disk.name;
      if (!ours || owner.offset !== next || owner.diskOffset !== extent.diskOffset + owner.offset - place.offset) {
        return (
          `${place.device} at ${owner.offset} belongs to ${disk.vm}/${disk.name} at ` +
          `${extent.diskOffset + owner.offset - place.offset}; owners() says ${owner.vm}/${owner.disk} at ${owner.diskOffset}`
        );
      }
      next += owner.length;
    }
    if (next !== place.offset + extent.length) {
      return `${place.device} at ${next} belongs to ${disk.vm}/${disk.name}; owners() knows no owner`;
    }
  }
  return undefined;
}

/** The first byte at which the disk, mapped or not, differs from the image; -1: none. */
async function compareWhole(disk: Disk, kept: KeptImage, signal: AbortSignal): Promise<number> {
  for (const { offset, length } of chunks(disk.size, PIECE)) {
    signal.throwIfAborted();
    const truth = Buffer.alloc(length);
    kept.read(offset, truth);
    const { firstDifference } = compare(truth, await disk.read(offset, length));
    if (firstDifference >= 0) return offset + firstDifference;
  }
  return -1;
}

/** Sectors that are not all zeroes, were written and not discarded since; and those of them that `extents` cover. */
export function recallOf(
  kept: KeptImage,
  extents: Iterable<{ diskOffset: number; length: number }>,
): { written: number; mapped: number } {
  const known = new Uint8Array(kept.size / SECTOR);
  for (const { diskOffset, length } of extents) {
    known.fill(1, Math.ceil(diskOffset / SECTOR), Math.floor((diskOffset + length) / SECTOR));
  }
  const result = { written: 0, mapped: 0 };
  for (const { offset, length } of chunks(kept.size, PIECE)) {
    const data = Buffer.alloc(length);
    kept.read(offset, data);
    for (let at = 0; at < length; at += SECTOR) {
      if (!kept.isWritten(offset + at) || isZero(data, at, at + SECTOR)) continue;
      result.written += SECTOR;
      if (known[(offset + at) / SECTOR]) result.mapped += SECTOR;
    }
  }
  return result;
}
