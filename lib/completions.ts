// Completion events, as they come from the native ring: records of doubles, decoded when they are looked at.
import type { Names } from './map.js';

// The layout of native/map/event_ring.h, in constants, and no function to read a word: getters have to be small for V8 to
// inline all of them that a reader uses.
const WORDS = 0;
const OP = 1;
const STATUS = 2;
const DISK = 3;
const DISK_OFFSET = 4;
const LENGTH = 5;
const SUBMITTED = 6;
const FIRST_ISSUED = 7;
const LAST_COMPLETED = 8;
const COMPLETED = 9;
const PIECES = 10;
const HEAD = 11;
const PIECE_WORDS = 4;

export type Operation = 'read' | 'write' | 'flush' | 'discard' | 'writeZeroes';
/** By the number that the addon gives them. */
export const OPERATIONS: readonly (Operation | undefined)[] = [
  undefined,
  'read',
  'write',
  'flush',
  'discard',
  'writeZeroes',
];

/** One I/O to a device that was attributed to the request. */
export interface Piece {
  /** The device's name. */
  device: string;
  /** Bytes from the device's start. */
  offset: number;
  length: number;
  /** Which of the disk's bytes it carried; undefined where that is not known. */
  diskOffset: number | undefined;
}

/** A cursor on one piece, reused for the next one that is asked for; `toObject()` keeps what it shows. */
export class PieceCursor implements Piece {
  readonly #words: Float64Array;
  readonly #names: Names;
  #record = 0;
  #at = 0;
  #deviceKey = -1; // as Completion's disk
  #deviceName = '';

  /** @internal */
  static moveTo: (cursor: PieceCursor, record: number, index: number) => void;
  static {
    PieceCursor.moveTo = (cursor, record, index) => {
      cursor.#record = record;
      cursor.#at = record + HEAD + PIECE_WORDS * index;
    };
  }

  /** @internal */
  constructor(words: Float64Array, names: Names) {
    this.#words = words;
    this.#names = names;
  }

  get device(): string {
    const key = this.#words[this.#at] as number;
    if (key !== this.#deviceKey) {
      this.#deviceName = this.#names.device(key);
      this.#deviceKey = key;
    }
    return this.#deviceName;
  }
  get offset(): number {
    return this.#words[this.#at + 1] as number;
  }
  get length(): number {
    return this.#words[this.#at + 2] as number;
  }
  get diskOffset(): number | undefined {
    const position = this.#words[this.#at + 3] as number;
    return position < 0 ? undefined : (this.#words[this.#record + DISK_OFFSET] as number) + position;
  }

  toObject(): Piece {
    const { device, offset, length, diskOffset } = this;
    return { device, offset, length, diskOffset };
  }
}

/** A completed request. Offsets and lengths are bytes, times ns since the probe was attached (CLOCK_MONOTONIC). */
export interface CompletionRecord {
  vm: string;
  disk: string;
  offset: number;
  length: number;
  op: Operation;
  /** 0, or a negative errno. */
  status: number;
  pieces: Piece[];
  submitted: number;
  /** When the first piece was issued to a device; 0 where none was. */
  firstIssued: number;
  /** When a device completed the last piece; 0 where none was issued. */
  lastCompleted: number;
  completed: number;
}

/** A cursor on one completion of a batch, reused for the next; `toObject()` keeps what it shows. */
export class Completion implements CompletionRecord {
  readonly #words: Float64Array;
  readonly #names: Names;
  readonly #piece: PieceCursor;
  #at = 0;
  // Of the disk that was asked for last: most often the next one's.
  #diskKey = -1;
  #diskName = { vm: '', name: '' };

  /** @internal */
  static moveTo: (cursor: Completion, at: number) => void;
  static {
    Completion.moveTo = (cursor, at) => {
      cursor.#at = at;
    };
  }

  /** @internal */
  constructor(words: Float64Array, names: Names) {
    this.#words = words;
    this.#names = names;
    this.#piece = new PieceCursor(words, names);
  }

  #disk(): { vm: string; name: string } {
    const key = this.#words[this.#at + DISK] as number;
    if (key !== this.#diskKey) {
      this.#diskName = this.#names.disk(key);
      this.#diskKey = key;
    }
    return this.#diskName;
  }

  get vm(): string {
    return this.#disk().vm;
  }
  get disk(): string {
    return this.#disk().name;
  }
  get offset(): number {
    return this.#words[this.#at + DISK_OFFSET] as number;
  }
  get length(): number {
    return this.#words[this.#at + LENGTH] as number;
  }
  get op(): Operation {
    return OPERATIONS[this.#words[this.#at + OP] as number] as Operation;
  }
  get status(): number {
    return this.#words[this.#at + STATUS] as number;
  }
  get submitted(): number {
    return this.#words[this.#at + SUBMITTED] as number;
  }
  get firstIssued(): number {
    return this.#words[this.#at + FIRST_ISSUED] as number;
  }
  get lastCompleted(): number {
    return this.#words[this.#at + LAST_COMPLETED] as number;
  }
  get completed(): number {
    return this.#words[this.#at + COMPLETED] as number;
  }

  get pieceCount(): number {
    return this.#words[this.#at + PIECES] as number;
  }
  /** One of the pieces, 0 … pieceCount - 1, without making an object for it: the same cursor each time. */
  piece(index: number): PieceCursor {
    if (index >>> 0 !== index || index >= this.pieceCount) {
      throw new RangeError(`index must be an integer from 0 to ${this.pieceCount - 1}, and is ${index}`);
    }
    PieceCursor.moveTo(this.#piece, this.#at, index);
    return this.#piece;
  }
  get pieces(): Piece[] {
    const count = this.pieceCount;
    if (count === 1) return [this.piece(0).toObject()];
    const pieces = new Array<Piece>(count); // an array that grows takes room for 17 at once
    for (let index = 0; index < count; ++index) pieces[index] = this.piece(index).toObject();
    return pieces;
  }

  toObject(): CompletionRecord {
    const { vm, disk, offset, length, op, status, pieces, submitted, firstIssued, lastCompleted, completed } = this;
    return { vm, disk, offset, length, op, status, pieces, submitted, firstIssued, lastCompleted, completed };
  }
}

// By hand: a generator takes several times as long for each.
class BatchIterator implements IterableIterator<Completion> {
  readonly #words: Float64Array;
  readonly #end: number;
  readonly #cursor: Completion;
  #at = 0;

  constructor(words: Float64Array, end: number, cursor: Completion) {
    this.#words = words;
    this.#end = end;
    this.#cursor = cursor;
  }

  next(): IteratorResult<Completion, undefined> {
    if (this.#at >= this.#end) return { done: true, value: undefined };
    Completion.moveTo(this.#cursor, this.#at);
    this.#at += this.#words[this.#at + WORDS] as number;
    return { done: false, value: this.#cursor };
  }

  [Symbol.iterator](): this {
    return this;
  }
}

/** Completions in the order in which they happened. */
export class CompletionBatch implements Iterable<Completion> {
  readonly #words: Float64Array;
  readonly #cursor: Completion;
  #end = 0;

  /** @internal */
  static fill: (batch: CompletionBatch, words: number) => void;
  static {
    CompletionBatch.fill = (batch, words) => {
      batch.#end = words;
    };
  }

  /** @internal */
  constructor(words: Float64Array, names: Names) {
    this.#words = words;
    this.#cursor = new Completion(words, names);
  }

  [Symbol.iterator](): IterableIterator<Completion> {
    return new BatchIterator(this.#words, this.#end, this.#cursor);
  }
}
