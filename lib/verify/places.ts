// The mapped places of a range of a disk, against what the file systems say.
import type { AddressMap, DiskReference, Extent } from '../map.js';
import { type FileExtent, overlapping, type Range, type Truth } from './extents.js';
import type { FiemapTally } from './result.js';

/** What of a map is asked. */
export type MapReader = Pick<AddressMap, 'locate'>;

/** A range of a disk, and one place that the map gives for it. */
export interface Mapped extends Range {
  device: string;
  place: number;
}

export const placesIn = (extents: readonly Extent[], state: Extent['state']): Mapped[] =>
  extents
    .filter((extent) => extent.state === state)
    .flatMap(({ diskOffset, length, places }) =>
      places.map(({ device, offset }) => ({ offset: diskOffset, length, device, place: offset })),
    );

export const bytesIn = (ranges: readonly Range[]): number => ranges.reduce((sum, { length }) => sum + length, 0);

/** The part of a place from `from` to `to`, offsets of the disk that lie in it. */
export const partOf = (mapped: Mapped, from: number, to: number): Mapped => ({
  ...mapped,
  offset: from,
  length: to - from,
  place: mapped.place + from - mapped.offset,
});

/** What of a place the map still says. */
export function still(map: MapReader, disk: DiskReference, mapped: Mapped): Mapped[] {
  return map.locate(disk, mapped.offset, mapped.length).flatMap(({ state, diskOffset, length, places }) => {
    const part = partOf(mapped, diskOffset, diskOffset + length);
    const same = places.some(({ device, offset }) => device === part.device && offset === part.place);
    return state === 'mapped' && same ? [part] : [];
  });
}

type Verdict = 'agreeing' | 'differing' | 'incomparable';

/** A place, cut by what the file system says; where that says nothing is a hole. */
export function verdictsOn(mapped: Mapped, truth: readonly FileExtent[]): { part: Mapped; verdict: Verdict }[] {
  const verdicts: { part: Mapped; verdict: Verdict }[] = [];
  let at = mapped.offset;
  const end = mapped.offset + mapped.length;
  const add = (to: number, verdict: Verdict) => {
    if (to > at) verdicts.push({ part: partOf(mapped, at, to), verdict });
    at = Math.max(at, to);
  };
  for (const { offset, length, place } of overlapping(truth, mapped)) {
    add(offset, 'differing');
    const there = place === undefined ? undefined : place + at - offset;
    const agrees = there === mapped.place + at - mapped.offset;
    add(Math.min(offset + length, end), there === undefined ? 'incomparable' : agrees ? 'agreeing' : 'differing');
  }
  add(end, 'differing');
  return verdicts;
}

const LOOKS = 2; // beyond the first: what changes between two looks at map and file system differs by itself

/**
 * Every place against the truths. What differs is looked at again: `ask` gives the truth of some ranges anew, and what
 * the map says no longer is not held against it. Returns the tally, and what differs in the end.
 */
export async function compareWithTruths(
  places: readonly Mapped[],
  truths: readonly Truth[],
  ask: (ranges: readonly Range[]) => Promise<readonly Truth[]>,
  again: (mapped: Mapped) => Mapped[],
): Promise<{ tallies: Map<string, FiemapTally>; differing: Mapped[] }> {
  const tallies = new Map<string, FiemapTally>();
  const judge = (mapped: Mapped, by: readonly Truth[]): Mapped[] => {
    const truth = by.find(({ device }) => device === mapped.device)?.extents;
    const tally = tallyOf(tallies, mapped.device);
    if (truth === undefined) tally.incomparable += mapped.length;
    return (truth === undefined ? [] : verdictsOn(mapped, truth)).flatMap(({ part, verdict }) => {
      if (verdict === 'differing') return [part];
      tally[verdict] += part.length;
      return [];
    });
  };
  let differing = places.flatMap((mapped) => judge(mapped, truths));
  for (let look = 0; look < LOOKS && differing.length > 0; ++look) {
    const fresh = await ask(differing);
    differing = differing.flatMap((mapped) => {
      const kept = again(mapped);
      tallyOf(tallies, mapped.device).moved += mapped.length - bytesIn(kept);
      return kept.flatMap((part) => judge(part, fresh));
    });
  }
  for (const { device, length } of differing) tallyOf(tallies, device).differing += length;
  return { tallies, differing };
}

function tallyOf(tallies: Map<string, FiemapTally>, device: string): FiemapTally {
  const tally = tallies.get(device) ?? { agreeing: 0, differing: 0, incomparable: 0, moved: 0 };
  tallies.set(device, tally);
  return tally;
}
