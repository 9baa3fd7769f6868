// What a verification finds. All numbers are bytes, unless it says otherwise.

/** Of what is mapped: each byte counts once. */
export interface FiemapTally {
  /** The file system says the same place. */
  agreeing: number;
  /** It says another, or a hole. Not wrong by itself: what was moved may still lie where it was. */
  differing: number;
  /** It says none, or means something else by it, as btrfs. */
  incomparable: number;
  /** The mapping changed while it was looked at. */
  moved: number;
}

/** Of what is mapped: each byte counts once. */
export interface BytesTally {
  /** Read from the device they are what the file reads as. */
  equal: number;
  different: number;
  /** The device cannot be opened by that name. */
  incomparable: number;
  /** The mapping changed while it was looked at, or the bytes did, again and again. */
  moved: number;
}

/** What can be added up. */
export interface DeviceCounts {
  mapped: number;
  /** Of places that may hold something else by now. */
  stale: number;
  /** What the file system says is written, and has neither. */
  unknown: number;
  /** What the file system says is written: without holes, and what is only allocated. */
  written: number;
  /** Of `written`: mapped. */
  found: number;
  fiemap: FiemapTally;
  bytes: BytesTally;
}

export interface DeviceVerification extends DeviceCounts {
  /** `/dev/loop9` */
  device: string;
  /** 1 - wrong / mapped. Wrong is what has different bytes; where they cannot be compared, other places. Null: nothing is mapped. */
  precision: number | null;
  /** found / written. Null: nothing is written. */
  recall: number | null;
  /** stale / (mapped + stale). Null: neither. */
  staleness: number | null;
}

/** A place that does not hold what the map says. */
export interface WrongPlace {
  diskOffset: number;
  length: number;
  device: string;
  offset: number;
  /** What was found. */
  why: string;
}

export interface Verification {
  vm: string;
  name: string;
  /** The file that holds the disk. */
  file: string;
  /** Topmost first. */
  devices: DeviceVerification[];
  /** Some of them. */
  wrong: WrongPlace[];
}

const WRONG = 16; // places that are told

export function noCounts(): DeviceCounts {
  return {
    mapped: 0,
    stale: 0,
    unknown: 0,
    written: 0,
    found: 0,
    fiemap: { agreeing: 0, differing: 0, incomparable: 0, moved: 0 },
    bytes: { equal: 0, different: 0, incomparable: 0, moved: 0 },
  };
}

const ratio = (part: number, whole: number): number | null => (whole === 0 ? null : part / whole);

export function verificationOf(device: string, counts: DeviceCounts): DeviceVerification {
  const { mapped, stale, written, found, fiemap, bytes } = counts;
  const wrong = bytes.different + (bytes.incomparable > 0 ? fiemap.differing : 0);
  return {
    device,
    ...counts,
    precision: ratio(mapped - wrong, mapped),
    recall: ratio(found, written),
    staleness: ratio(stale, mapped + stale),
  };
}

function added(a: DeviceCounts, b: DeviceCounts): DeviceCounts {
  const sum = noCounts();
  for (const each of [a, b]) {
    for (const key of ['mapped', 'stale', 'unknown', 'written', 'found'] as const) sum[key] += each[key];
    for (const key of ['agreeing', 'differing', 'incomparable', 'moved'] as const) sum.fiemap[key] += each.fiemap[key];
    for (const key of ['equal', 'different', 'incomparable', 'moved'] as const) sum.bytes[key] += each.bytes[key];
  }
  return sum;
}

/** Of two parts of the same disk. */
export function joined(a: Verification | undefined, b: Verification): Verification {
  if (a === undefined) return b;
  const names = [...new Set([...a.devices, ...b.devices].map(({ device }) => device))];
  const of = ({ devices }: Verification, name: string) => devices.find(({ device }) => device === name) ?? noCounts();
  return {
    ...a,
    devices: names.map((name) => verificationOf(name, added(of(a, name), of(b, name)))),
    wrong: [...a.wrong, ...b.wrong].slice(0, WRONG),
  };
}
