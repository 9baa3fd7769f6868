// Journals of recording devices: what they hold, and the medium as a crash may leave it.
import * as check from './arguments.js';
import { native } from './native.js';

export interface Journal {
  /** Of the medium, bytes. */
  size: number;
  /** Bytes. */
  blockSize: number;
  /** The instant at which the recording began: the medium is as it was opened. */
  from: number;
  /** The instant at which all that is in the journal has happened. One count for all devices of a process. */
  to: number;
  /** Writes, write-zeroes and discards. */
  changes: number;
  flushes: number;
  /** Bytes at the end that are no whole record, and are left out. */
  tornBytes: number;
}

export interface CrashOptions {
  /**
   * The instant: all that was recorded before it has happened, and nothing else. The devices of one volume crash
   * together by the same instant.
   */
  at: number;
  /** Of what is left of changes that were not durable. Default 1. */
  seed?: number | undefined;
  /** The file that becomes the medium, made or overwritten. */
  into: string;
}

/** Reads the journal of a recording device; also of one that is open, as far as it is written out. */
export async function readJournal(journal: string): Promise<Journal> {
  return native.readJournal(check.string(journal, 'journal'));
}

/**
 * Makes the medium as a crash may leave it: all that was flushed or written with FUA by then; of every other change, and
 * of every discard, a random part in sectors of 512 bytes. The same for the same journal, instant and seed.
 */
export async function replayCrash(journal: string, options: CrashOptions): Promise<void> {
  check.string(journal, 'journal');
  const { at, seed = 1, into } = check.object(options, 'options');
  check.integer(at, 'at');
  check.integer(seed, 'seed');
  return native.replayCrash(journal, at, seed, check.string(into, 'into'));
}
