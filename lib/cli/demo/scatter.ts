// How far a volume scatters a disk, at the granularity at which it places bytes.

/** What one mapped range of a disk needs for this: any extent of a map. */
export interface Placed {
  diskOffset: number;
  length: number;
  places: readonly { device: string; offset: number }[];
}

export interface Scatter {
  /** Neighbouring chunks in virtual order of which both are mapped. */
  neighbours: number;
  /** Those of them that are not neighbours on a device. */
  apart: number;
}

export function scatterOf(mapped: Iterable<Placed>, chunk: number): Scatter {
  const homes = new Map<number, { device: string; offset: number }>();
  for (const { diskOffset, length, places } of mapped) {
    const place = places[0];
    if (!place) continue;
    for (let index = Math.floor(diskOffset / chunk); index * chunk < diskOffset + length; ++index) {
      if (homes.has(index)) continue;
      homes.set(index, { device: place.device, offset: place.offset + index * chunk - diskOffset });
    }
  }
  const result = { neighbours: 0, apart: 0 };
  for (const [index, home] of homes) {
    const next = homes.get(index + 1);
    if (!next) continue;
    ++result.neighbours;
    if (next.device !== home.device || Math.abs(next.offset - home.offset) !== chunk) ++result.apart;
  }
  return result;
}
