// The bytes of mapped places, against those that the disk's file reads as, while both may be written to.
import type { Mapped } from './places.js';
import { bytesIn, partOf } from './places.js';
import type { BytesTally } from './result.js';

/** What is read: a file, or a device. */
export interface Reader {
  /** Shorter where it ends before. */
  read(offset: number, length: number): Promise<Buffer>;
}

const SECTOR = 512; // bytes that are told apart
const LONGEST = 2 ** 20; // bytes of one read
const LOOKS = 6; // at bytes that differ
const SURE = 2; // looks that find a difference, and neither the map nor the device changing

/** A place, in pieces that are read at once. */
export function* piecesOf(mapped: Mapped): Generator<Mapped, void, undefined> {
  const end = mapped.offset + mapped.length;
  for (let at = mapped.offset; at < end; at += LONGEST) yield partOf(mapped, at, Math.min(at + LONGEST, end));
}

export interface Compared extends Omit<BytesTally, 'incomparable'> {
  /** The first place with different bytes, and both of its bytes. */
  first?: { part: Mapped; why: string };
}

/**
 * One piece. Where it differs, the device is read before and after the file, and then the map is asked again: a write
 * that goes on in between changes one of these, and so is not taken for an error.
 */
export async function compareBytes(
  mapped: Mapped,
  file: Reader,
  device: Reader,
  again: (mapped: Mapped) => Mapped[],
): Promise<Compared> {
  const result: Compared = { equal: 0, different: 0, moved: 0 };
  const here = () => device.read(mapped.place, mapped.length);
  const there = () => file.read(mapped.offset, mapped.length);
  let [before, expected] = await Promise.all([here(), there()]);
  if (before.length === mapped.length && before.equals(expected)) return { ...result, equal: mapped.length };

  const sectors = Array.from({ length: Math.ceil(mapped.length / SECTOR) }, (_, i) =>
    partOf(mapped, mapped.offset + i * SECTOR, mapped.offset + Math.min((i + 1) * SECTOR, mapped.length)),
  );
  const bytesOf = (buffer: Buffer, { offset, length }: Mapped) =>
    buffer.subarray(offset - mapped.offset, offset - mapped.offset + length);
  let open = sectors
    .filter((sector) => !bytesOf(before, sector).equals(bytesOf(expected, sector)))
    .map((sector) => ({ sector, times: 0 }));
  result.equal += mapped.length - bytesIn(open.map(({ sector }) => sector));
  for (let look = 0; look < LOOKS && open.length > 0; ++look) {
    before = await here();
    expected = await there();
    const after = await here();
    const kept = again(mapped);
    open = open.filter((each) => {
      const { sector } = each;
      const stays = kept.some(
        ({ offset, length }) => offset <= sector.offset && sector.offset + sector.length <= offset + length,
      );
      const [a, b, c] = [bytesOf(before, sector), bytesOf(expected, sector), bytesOf(after, sector)];
      if (!stays) result.moved += sector.length;
      else if (a.equals(b) && a.length === sector.length) result.equal += sector.length;
      else {
        each.times = a.equals(c) ? each.times + 1 : 0;
        if (each.times < SURE) return true;
        result.different += sector.length;
        result.first ??= { part: sector, why: differenceOf(a, b) };
      }
      return false;
    });
  }
  result.moved += bytesIn(open.map(({ sector }) => sector));
  return result;
}

function differenceOf(device: Buffer, file: Buffer): string {
  if (file.length < device.length) return 'the file ends before';
  if (device.length < file.length) return 'the device ends before';
  const at = device.findIndex((byte, i) => byte !== file[i]);
  return `byte ${at} of it is ${device[at]} on the device, and ${file[at]} in the file`;
}
