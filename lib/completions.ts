// Completion events, as they come from the native ring: records of doubles, decoded when they are looked at.
import type { Names } from './map.js';

/** The layout of native/map/event_ring.h. */
const Word = {
  words: 0,
  op: 1,
  status: 2,
  disk: 3,
  diskOffset: 4,
  length: 5,
  submitted: 6,
  firstIssued: 7,
  lastCompleted: 8,
  completed: 9,
  pieces: 10,
  head: 11,
} as const;
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
  #at = 0;

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
  }

  #word(index: number): number {
    return this.#words[this.#at + index] as number;
  }

  get vm(): string {
    return this.#names.disk(this.#word(Word.disk)).vm;
  }
  get disk(): string {
    return this.#names.disk(this.#word(Word.disk)).name;
  }
  get offset(): number {
    return this.#word(Word.diskOffset);
  }
  get length(): number {
    return this.#word(Word.length);
  }
  get op(): Operation {
    return OPERATIONS[this.#word(Word.op)] as Operation;
  }
  get status(): number {
    return this.#word(Word.status);
  }
  get submitted(): number {
    return this.#word(Word.submitted);
  }
  get firstIssued(): number {
    return this.#word(Word.firstIssued);
  }
  get lastCompleted(): number {
    return this.#word(Word.lastCompleted);
  }
  get completed(): number {
    return this.#word(Word.completed);
  }

  get pieces(): Piece[] {
    const pieces: Piece[] = [];
    const end = Word.head + PIECE_WORDS * this.#word(Word.pieces);
    for (let at: number = Word.head; at < end; at += PIECE_WORDS) {
      const position = this.#word(at + 3);
      pieces.push({
        device: this.#names.device(this.#word(at)),
        offset: this.#word(at + 1),
        length: this.#word(at + 2),
        diskOffset: position < 0 ? undefined : this.offset + position,
      });
    }
    return pieces;
  }

  toObject(): CompletionRecord {
    const { vm, disk, offset, length, op, status, pieces, submitted, firstIssued, lastCompleted, completed } = this;
    return { vm, disk, offset, length, op, status, pieces, submitted, firstIssued, lastCompleted, completed };
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

  *[Symbol.iterator](): Generator<Completion, void, undefined> {
    for (let at = 0; at < this.#end; at += this.#words[at + Word.words] as number) {
      Completion.moveTo(this.#cursor, at);
      yield this.#cursor;
    }
  }
}
