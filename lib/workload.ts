// The native load generator.
import * as check from './arguments.js';
import { type Disk, diskHandle, isDisk } from './disk.js';
import { AbortError, wrongType } from './errors.js';
import { type NativeWorkloadResult, native } from './native.js';

export type Pattern = 'read' | 'write' | 'randread' | 'randwrite' | 'randrw' | 'mixed';
const PATTERNS = ['read', 'write', 'randread', 'randwrite', 'randrw', 'mixed'] as const satisfies readonly Pattern[];

export interface WorkloadOptions {
  /** `randrw` reads and writes; `mixed` also discards, zeroes and flushes. */
  pattern: Pattern;
  /** Bytes of each I/O. Default 4096. */
  blockSize?: number | undefined;
  /** I/Os in flight. Default 32. */
  queueDepth?: number | undefined;
  /** How long, or how many: one of the two. */
  seconds?: number | undefined;
  operations?: number | undefined;
  /** Of the random order. Default 1. */
  seed?: number | undefined;
  /**
   * Each block carries (vm, disk, offset, generation, random); each read is compared with what was last written, and
   * everything that was written is read back and compared at the end. Default false.
   */
  verify?: boolean | undefined;
  /** The part of the disk to use, bytes. Default: all of it. */
  offset?: number | undefined;
  length?: number | undefined;
  /** Shares of the I/Os, percent; the rest are writes. */
  readPercent?: number | undefined;
  discardPercent?: number | undefined;
  zeroesPercent?: number | undefined;
  flushPercent?: number | undefined;
  /** Stops the load; the promise rejects when nothing is in flight any more. */
  signal?: AbortSignal | undefined;
}

export interface HistogramBucket {
  /** The bucket's lowest value, ns. A bucket is at most 1.6 % wide. */
  latency: number;
  count: number;
}

export interface Latency {
  /** ns */
  mean: number;
  p50: number;
  p90: number;
  p99: number;
  p999: number;
  max: number;
  /** The buckets that are not empty, ascending. */
  histogram(): HistogramBucket[];
}

export interface WorkloadResult {
  operations: number;
  bytes: number;
  /** I/Os that failed, and the first of them. */
  errors: number;
  firstError?: { code: string; offset: number } | undefined;
  /** With `verify`: blocks of 512 bytes that were not what they had to be, and what was found first. */
  mismatches: number;
  firstMismatch?: string | undefined;
  reads: number;
  writes: number;
  discards: number;
  zeroes: number;
  flushes: number;
  /** Compared at the end. */
  verifiedBytes: number;
  /** Operations per second. */
  iops: number;
  /** Bytes per second. */
  bandwidth: number;
  /** ns, of the load alone: reading back is not in it. */
  elapsed: number;
  /** CPU time of the I/O thread for each operation, ns. */
  cpuPerIo: number;
  latency: Latency;
}

function toResult(from: NativeWorkloadResult): WorkloadResult {
  const { elapsed, cpu, histogram, latency, ...counts } = from;
  const buckets: HistogramBucket[] = [];
  let sum = 0;
  let samples = 0;
  for (let i = 0; i + 1 < histogram.length; i += 2) {
    const bucket = { latency: histogram[i] as number, count: histogram[i + 1] as number };
    buckets.push(bucket);
    sum += bucket.latency * bucket.count;
    samples += bucket.count;
  }
  return {
    ...counts,
    elapsed,
    iops: elapsed > 0 ? (counts.operations * 1e9) / elapsed : 0,
    bandwidth: elapsed > 0 ? (counts.bytes * 1e9) / elapsed : 0,
    cpuPerIo: counts.operations > 0 ? cpu / counts.operations : 0,
    latency: { ...latency, mean: samples > 0 ? sum / samples : 0, histogram: () => buckets.map((b) => ({ ...b })) },
  };
}

/** Runs a load on a disk, natively: what it measures is the path of an I/O, without JavaScript. */
export async function runWorkload(disk: Disk, options: WorkloadOptions): Promise<WorkloadResult> {
  if (!isDisk(disk)) throw wrongType('the first argument must be an open disk');
  const given = check.object(options, 'options');
  const signal = check.signal(given.signal);
  if ((given.seconds === undefined) === (given.operations === undefined)) {
    throw wrongType('give either seconds or operations', 'ERR_INVALID_ARG_VALUE');
  }
  const percent = (value: number | undefined, what: string, otherwise: number) =>
    value === undefined ? otherwise : check.number(value, what, 0, 100);
  const checked = {
    pattern: check.oneOf(given.pattern, 'pattern', PATTERNS),
    blockSize: check.integer(given.blockSize ?? 4096, 'blockSize', 1),
    queueDepth: check.integer(given.queueDepth ?? 32, 'queueDepth', 1, 2 ** 20),
    seconds: given.seconds === undefined ? 0 : check.number(given.seconds, 'seconds', 1e-9, 1e7),
    operations: given.operations === undefined ? 0 : check.integer(given.operations, 'operations', 1),
    seed: check.integer(given.seed ?? 1, 'seed'),
    verify: check.boolean(given.verify ?? false, 'verify'),
    offset: check.integer(given.offset ?? 0, 'offset'),
    length: check.integer(given.length ?? 0, 'length'),
    readPercent: percent(given.readPercent, 'readPercent', -1),
    discardPercent: percent(given.discardPercent, 'discardPercent', 0),
    zeroesPercent: percent(given.zeroesPercent, 'zeroesPercent', 0),
    flushPercent: percent(given.flushPercent, 'flushPercent', 0),
  };
  if (signal?.aborted) throw new AbortError(signal.reason);
  const { handle, result } = native.startWorkload(diskHandle(disk), checked);
  const stop = () => handle && native.stopWorkload(handle);
  signal?.addEventListener('abort', stop, { once: true });
  try {
    const measured = await result;
    if (signal?.aborted) throw new AbortError(signal.reason);
    return toResult(measured);
  } finally {
    signal?.removeEventListener('abort', stop);
  }
}
