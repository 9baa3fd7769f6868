// What each association finds through each volume: measured by the conformance suite, kept in capabilities.json.
import { readFileSync } from 'node:fs';
import path from 'node:path';
import type { UnmappedReason } from './map.js';
import type { Association, Correlation } from './probe.js';

/** Of the bytes that were written (or read) through a new probe, how many it then had `mapped`. */
export interface Recall {
  /**
   * Foretold before the suite was run. `whole`: of requests of whole blocks of 4 KiB all, of smaller ones nothing;
   * `some`: it depends on how much room the volume has.
   */
  expected: 'all' | 'whole' | 'some' | 'none';
  bytes: number;
  mapped: number;
  /** Of `mapped`, flagged: the volume read it, perhaps to move it. */
  moving: number;
  /** Of `bytes`, by requests smaller than 4 KiB. */
  small: number;
}

export interface Capability {
  association: Association;
  correlation: Correlation;
  /** The volume, and how it issues children or what it does to the payload. */
  volume: string;
  writes: Recall;
  reads: Recall;
  /** Bytes of devices that were compared with what the disks were last acknowledged to hold. */
  compared: number;
  /** How many mappings were wrong. Precision is 1 where it is 0. */
  wrong: number;
  /** What the interception added to a random 4 KiB write at depth 32: ns of the I/O thread's time. */
  nsPerRequest: number;
  /** Bytes written and left unmapped, by reason. */
  unmapped: Partial<Record<UnmappedReason, number>>;
}

/** The capability table of this version: association × correlation × volume. */
export function capabilities(): Capability[] {
  return JSON.parse(readFileSync(path.join(__dirname, '../capabilities.json'), 'utf8'));
}
