// The map at one instant, with no I/O in flight: what the proof, the picture and the tables speak of.
import type { AddressMap, Disk, Extent, Ledger } from '../../index.js';

export interface Snapshot {
  /** For each disk, in virtual order. */
  extents: Extent[][];
  ledger: Ledger;
}

export function snapshot(map: AddressMap, disks: readonly Disk[]): Snapshot {
  return { extents: disks.map((disk) => [...map.extents(disk)]), ledger: structuredClone(map.ledger()) };
}

export const isMapped = (extent: Extent): boolean => extent.state === 'mapped';
