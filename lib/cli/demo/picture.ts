// A device at one glance: cells of equal size, and which disk owns most of each.
import { formatBytes } from '../size.js';

/** What a picture needs of one extent of a disk. */
export interface Drawn {
  diskOffset: number;
  length: number;
  state: string;
  places: readonly { device: string; offset: number }[];
}

export interface Cell {
  /** The disk that owns most of the cell; -1: nobody that is known. */
  owner: number;
  /** 0 … 1 of the cell is mapped to that disk. */
  share: number;
  /** More of the cell is stale than mapped. */
  stale: boolean;
  /** Where in the disk the first of its bytes in the cell is. */
  diskOffset: number;
}

export interface DevicePicture {
  device: string;
  size: number;
  cellBytes: number;
  cells: Cell[];
}

/** The smallest power-of-two multiple of `chunk` at which `size` bytes need no more than `limit` cells. */
export function cellBytesFor(size: number, chunk: number, limit: number): number {
  let bytes = chunk;
  while (Math.ceil(size / bytes) > limit) bytes *= 2;
  return bytes;
}

/** `extents`: those of each disk. */
export function drawDevice(
  device: string,
  size: number,
  cellBytes: number,
  extents: readonly (readonly Drawn[])[],
): DevicePicture {
  const count = Math.ceil(size / cellBytes);
  const owned = extents.map(() => new Float64Array(count));
  const first = extents.map(() => new Float64Array(count).fill(Number.POSITIVE_INFINITY));
  const stale = new Float64Array(count);
  for (const [disk, list] of extents.entries()) {
    for (const extent of list) {
      for (const place of extent.places) {
        if (place.device !== device) continue;
        const end = place.offset + extent.length;
        for (let cell = Math.floor(place.offset / cellBytes); cell * cellBytes < end; ++cell) {
          const from = Math.max(place.offset, cell * cellBytes);
          const bytes = Math.min(end, (cell + 1) * cellBytes) - from;
          if (extent.state !== 'mapped') {
            stale[cell]! += bytes;
            continue;
          }
          owned[disk]![cell]! += bytes;
          const diskOffset = extent.diskOffset + from - place.offset;
          if (diskOffset < first[disk]![cell]!) first[disk]![cell] = diskOffset;
        }
      }
    }
  }
  const cells = Array.from({ length: count }, (_, at): Cell => {
    let owner = -1;
    for (const [disk, bytes] of owned.entries()) {
      if (bytes[at]! > (owner < 0 ? 0 : owned[owner]![at]!)) owner = disk;
    }
    const most = owner < 0 ? 0 : owned[owner]![at]!;
    return {
      owner,
      share: most / Math.min(cellBytes, size - at * cellBytes),
      stale: stale[at]! > most,
      diskOffset: owner < 0 ? -1 : first[owner]![at]!,
    };
  });
  return { device, size, cellBytes, cells };
}

/** Colours one letter; `full` where the disk owns at least half of the cell. */
export type Paint = (text: string, owner: number, full: boolean) => string;

const plain: Paint = (text) => text;

/** The sign of a cell: a disk's letter, large where it owns at least half of the cell. */
export function signOf(cell: Cell, letters: readonly string[]): string {
  if (cell.stale) return '?';
  if (cell.owner < 0) return '·';
  const letter = letters[cell.owner]!;
  return cell.share >= 0.5 ? letter.toUpperCase() : letter.toLowerCase();
}

/** Lines of text, `columns` cells in each, with offsets on the left. */
export function renderPicture(
  picture: DevicePicture,
  letters: readonly string[],
  columns: number,
  paint: Paint = plain,
): string[] {
  const lines: string[] = [];
  const labels: string[] = [];
  for (let row = 0; row * columns < picture.cells.length; ++row) {
    let line = '';
    for (const cell of picture.cells.slice(row * columns, (row + 1) * columns)) {
      line += paint(signOf(cell, letters), cell.stale ? -1 : cell.owner, cell.share >= 0.5);
    }
    lines.push(line);
    labels.push(formatBytes(row * columns * picture.cellBytes));
  }
  const width = Math.max(...labels.map((label) => label.length));
  return lines.map((line, row) => `${labels[row]!.padStart(width)} │${line}`);
}
