// Where the bytes of a file are on the devices of a stack, by `filefrag` of both file systems: shares nothing with what
// it judges.
import path from 'node:path';
import type { AddressMap, DiskReference, Extent } from 'stratamap';
import type { Medium } from './medium.js';
import { run } from './run.js';
import type { KernelStack } from './stacks.js';

/** The unit of what is compared, bytes: the smallest block of a file system here. */
export const UNIT = 1024;
export const HOLE = -1;
/** As filefrag calls what is allocated and not written, or is not where it says. */
const NOT_THERE = /unwritten|unknown|delalloc|encoded|inline|not_aligned/;

/** For each unit of a file its place, bytes; HOLE where nothing is written. */
type Places = Float64Array;

/** An extent of `filefrag -v`, bytes. */
export interface Fragment {
  offset: number;
  place: number;
  length: number;
  flags: string;
}

export async function fragmentsOf(file: string): Promise<Fragment[]> {
  const lines = (await run('filefrag', '-s', '-v', `-b${UNIT}`, file)).split('\n');
  return lines.flatMap((line) => {
    const [, offset, place, length, flags = ''] =
      /^ *\d+: *(\d+)\.\. *\d+: *(\d+)\.\. *\d+: *(\d+):(?: *\d+:)? ?(.*)$/.exec(line) ?? [];
    if (length === undefined) return [];
    const [a, b, c] = [offset, place, length].map((number) => UNIT * Number(number)) as [number, number, number];
    return [{ offset: a, place: b, length: c, flags }];
  });
}

async function placesOf(file: string, bytes: number): Promise<Places> {
  const places = new Float64Array(Math.ceil(bytes / UNIT)).fill(HOLE);
  for (const { offset, place, length, flags } of await fragmentsOf(file)) {
    if (NOT_THERE.test(flags)) continue;
    for (let at = 0; at < length && (offset + at) / UNIT < places.length; at += UNIT)
      places[(offset + at) / UNIT] = place + at;
  }
  return places;
}

/** The places of a file of `bytes` on each device; of the stack's upper file system, which FIEMAP has to mean something on. */
export async function oracleOf(stack: KernelStack, file: string, bytes: number): Promise<Map<string, Places>> {
  const upper = await placesOf(file, bytes);
  const most = upper.reduce((a, b) => Math.max(a, b), 0) + UNIT;
  const below = await placesOf(path.join(stack.lower.directory, 'upper.img'), most);
  const lower = upper.map((place) => (place === HOLE ? HOLE : (below[place / UNIT] as number)));
  return new Map([
    [stack.upper.device, upper],
    [stack.lower.device, lower],
  ]);
}

export interface Judged {
  /** Bytes that are `mapped`, for each device. */
  mapped: Record<string, number>;
  /** Bytes of what was to be found that are not. */
  missed: Record<string, number>;
  /** What is wrong: some of it. */
  wrong: string[];
}

const TOLD = 8;

/** What a map says, against the oracle. `seen`: which units passed while the probe learned, and so are to be found. */
export function judgedByPlaces(
  map: AddressMap,
  disk: DiskReference,
  oracle: ReadonlyMap<string, Places>,
  seen: (unit: number) => boolean,
): Judged {
  const judged: Judged = { mapped: {}, missed: {}, wrong: [] };
  const extents = [...map.extents(disk)].filter(({ state }) => state === 'mapped');
  for (const [device, places] of oracle) {
    const found = new Uint8Array(places.length);
    let mapped = 0;
    for (const extent of extents) {
      for (const place of extent.places.filter((each) => each.device === device)) {
        mapped += extent.length;
        const at = firstElsewhere(extent, place.offset, places);
        if (at !== undefined && judged.wrong.length < TOLD) {
          judged.wrong.push(
            `${extent.diskOffset + at} is said to be on ${device} at ${place.offset + at}; it is at ${places[Math.floor((extent.diskOffset + at) / UNIT)]}`,
          );
        }
        found.fill(1, Math.ceil(extent.diskOffset / UNIT), Math.floor((extent.diskOffset + extent.length) / UNIT));
      }
    }
    judged.mapped[device] = mapped;
    judged.missed[device] = places.filter((place, i) => place !== HOLE && seen(i) && !found[i]).length * UNIT;
  }
  const stranger = extents.flatMap(({ places }) => places).find(({ device }) => !oracle.has(device));
  if (stranger) judged.wrong.push(`${stranger.device} is no device of the stack`);
  return judged;
}

/** The first byte of an extent that the oracle has at another place. */
function firstElsewhere({ diskOffset, length }: Extent, place: number, places: Places): number | undefined {
  for (let at = 0; at < length; at += UNIT - ((diskOffset + at) % UNIT)) {
    const unit = Math.floor((diskOffset + at) / UNIT);
    if ((places[unit] as number) + ((diskOffset + at) % UNIT) !== place + at) return at;
  }
  return undefined;
}

/** What a map says, against the bytes that were last acknowledged: read from the devices. */
export function judgedByBytes(
  map: AddressMap,
  disk: DiskReference,
  media: ReadonlyMap<string, Medium>,
  content: Buffer,
): Pick<Judged, 'mapped' | 'wrong'> {
  const judged: Pick<Judged, 'mapped' | 'wrong'> = { mapped: {}, wrong: [] };
  for (const { state, diskOffset, length, places } of map.extents(disk)) {
    if (state !== 'mapped') continue;
    for (const { device, offset } of places) {
      judged.mapped[device] = (judged.mapped[device] ?? 0) + length;
      const there = media.get(device)?.read(offset, length);
      if (there?.equals(content.subarray(diskOffset, diskOffset + length)) || judged.wrong.length >= TOLD) continue;
      const first = there?.findIndex((byte, i) => byte !== content[diskOffset + i]);
      judged.wrong.push(
        `${diskOffset}, ${length} bytes, is said to be on ${device} at ${offset}: byte ${first} differs`,
      );
    }
  }
  return judged;
}
