// Virtual disks and their I/O.
import { abortable } from './abort.js';
import * as check from './arguments.js';
import { outOfRange, wrongType } from './errors.js';
import { Handle } from './handle.js';
import { type DiskHandle, native, type OpenedDisk } from './native.js';

/** The operations of native/include/stratamap/request.h. */
export const Op = { read: 1, write: 2, flush: 3, discard: 4, writeZeroes: 5 } as const;
const FUA = 1;

export interface IoOptions {
  /**
   * Ends the operation early. Aborted before the call: it is rejected and nothing is touched. Aborted while it waits for
   * its turn: it is never begun. Aborted while the device works on it: no more of it is begun, and the promise rejects
   * when what was begun has ended; a write may then have been carried out, in part or in whole. In every case nothing of
   * the operation is in flight once its promise has settled.
   */
  signal?: AbortSignal | undefined;
}

export interface WriteOptions extends IoOptions {
  /** The data is on stable storage when the promise resolves. */
  fua?: boolean | undefined;
}

/** One operation of a batch. */
export type DiskOperation =
  | { op: 'read'; offset: number; view: NodeJS.ArrayBufferView }
  | { op: 'write'; offset: number; view: NodeJS.ArrayBufferView; fua?: boolean | undefined }
  | { op: 'writeZeroes'; offset: number; length: number; fua?: boolean | undefined }
  | { op: 'discard'; offset: number; length: number }
  | { op: 'flush' };

const NONE: WriteOptions = {};

export let diskHandle: (disk: Disk) => DiskHandle;

/** The bytes of a view, at a length that cannot change without our noticing. */
function bytesOf(view: NodeJS.ArrayBufferView): Uint8Array {
  return view instanceof Uint8Array ? view : new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}

/**
 * A virtual disk. Offsets and lengths are bytes, safe integers and multiples of `blockSize`; operations of any length are
 * carried out in pieces of at most 1 MiB, which may be carried out in any order. A buffer belongs to the operation until
 * its promise settles: then a detached buffer, or one whose size has changed, is an `ERR_STRATAMAP_BUFFER`.
 */
class Disk extends Handle {
  static {
    diskHandle = (disk) => disk.#handle;
  }
  readonly #handle: DiskHandle;
  #size: number;
  readonly vm: string;
  readonly name: string;
  /** Bytes. */
  readonly blockSize: number;
  /**
   * The names of the devices that the volume has opened for this disk alone, as the map and events call them: the image
   * of a `kernel` volume's disk. None of other volumes.
   */
  readonly devices: readonly string[];

  constructor(vm: string, name: string, opened: OpenedDisk) {
    super();
    this.vm = vm;
    this.name = name;
    this.#handle = opened.handle;
    this.#size = opened.size;
    this.blockSize = opened.blockSize;
    this.devices = opened.devices;
  }

  /** Bytes. */
  get size(): number {
    return this.#size;
  }

  /** Reads `length` bytes, or as many as the view holds, which is filled and returned. */
  read(offset: number, length: number, options?: IoOptions): Promise<Buffer>;
  read<T extends NodeJS.ArrayBufferView>(offset: number, view: T, options?: IoOptions): Promise<T>;
  read(offset: number, target: number | NodeJS.ArrayBufferView, options: IoOptions = NONE) {
    try {
      if (typeof target === 'number') {
        this.#check(offset, target);
        return this.#start(Op.read, offset, target, 0, Buffer.allocUnsafe(target), options);
      }
      const bytes = bytesOf(check.view(target, 'the second argument'));
      this.#check(offset, bytes.byteLength);
      const done = this.#start(Op.read, offset, bytes.byteLength, 0, bytes, options);
      return bytes === target ? done : done.then(() => target);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** Reads into several views, one after the other; they are returned. */
  readv<T extends readonly NodeJS.ArrayBufferView[]>(offset: number, views: T, options: IoOptions = NONE): Promise<T> {
    try {
      const { bytes, length } = this.#vector(offset, views);
      return this.#start(Op.read, offset, length, 0, bytes, options).then(() => views);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** Writes what the view holds. */
  write(offset: number, view: NodeJS.ArrayBufferView, options: WriteOptions = NONE): Promise<void> {
    try {
      const bytes = bytesOf(check.view(view, 'the data'));
      this.#check(offset, bytes.byteLength);
      return this.#start(Op.write, offset, bytes.byteLength, flagsOf(options), bytes, options) as Promise<never>;
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** Writes several views, one after the other. */
  writev(offset: number, views: readonly NodeJS.ArrayBufferView[], options: WriteOptions = NONE): Promise<void> {
    try {
      const { bytes, length } = this.#vector(offset, views);
      return this.#start(Op.write, offset, length, flagsOf(options), bytes, options) as Promise<never>;
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** The range reads as zeroes afterwards. */
  writeZeroes(offset: number, length: number, options: WriteOptions = NONE): Promise<void> {
    return this.#plain(Op.writeZeroes, offset, length, options);
  }

  /** Gives the range's space back; it reads as zeroes afterwards. */
  discard(offset: number, length: number, options: IoOptions = NONE): Promise<void> {
    return this.#plain(Op.discard, offset, length, options);
  }

  /** Everything that was completed before is on stable storage afterwards. */
  flush(options: IoOptions = NONE): Promise<void> {
    try {
      this.use();
      return this.#start(Op.flush, 0, 0, 0, undefined, options);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /**
   * Begins many operations with one call and one promise: the way to more I/Os a second than a promise each allows. They
   * may be carried out in any order, as if each had been begun by itself; buffers belong to the batch until the promise
   * settles. All are checked before any is begun. Resolves when the last has ended, to an array with, at the index of
   * each operation that failed, its error; undefined for the others.
   */
  async submit(batch: readonly DiskOperation[]): Promise<(Error | undefined)[]> {
    if (!Array.isArray(batch)) throw wrongType('the batch must be an array of operations');
    this.use();
    if (batch.length === 0) return [];
    const words = new Float64Array(3 * batch.length);
    const views = new Array<Uint8Array | undefined>(batch.length);
    for (let i = 0; i < batch.length; ++i) {
      const each = check.object(batch[i] as DiskOperation, 'each operation of a batch');
      const op = Object.hasOwn(Op, each.op) ? Op[each.op] : undefined;
      if (op === undefined) throw wrongType(`op must be one of ${Object.keys(Op).join(', ')}, not ${each.op}`);
      words[3 * i] = op;
      if (each.op === 'flush') continue;
      let { length } = each as { length: number };
      if (each.op === 'read' || each.op === 'write') {
        const bytes = bytesOf(check.view(each.view, 'view'));
        views[i] = bytes;
        length = bytes.byteLength;
      }
      this.#check(each.offset, length);
      if (each.op === 'write' || each.op === 'writeZeroes') words[3 * i] = op + 256 * flagsOf(each);
      words[3 * i + 1] = each.offset;
      words[3 * i + 2] = length;
    }
    const errors = await native.diskBatch(this.#handle, words, views);
    return errors ? Array.from(errors) : new Array(batch.length).fill(undefined);
  }

  /** Changes the size; waits for what is in flight. What shrinking cuts off is gone. */
  async resize(size: number): Promise<void> {
    this.use();
    check.integer(size, 'size', this.blockSize);
    this.#aligned(size, 'size');
    this.#size = await native.resizeDisk(this.#handle, size);
  }

  protected override describe() {
    const { vm, name } = this;
    return { layer: 'disk', what: `disk ${vm}/${name}`, details: { vm, disk: name } };
  }

  protected override closeNative(): Promise<void> {
    return native.closeDisk(this.#handle);
  }

  #plain(op: number, offset: number, length: number, options: WriteOptions): Promise<void> {
    try {
      this.#check(offset, length);
      return this.#start(op, offset, length, op === Op.writeZeroes ? flagsOf(options) : 0, undefined, options);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  #aligned(value: number, what: string): void {
    if (value % this.blockSize === 0) return;
    throw outOfRange(`${what} is ${value}, which is not a multiple of the block size of ${this.blockSize} bytes`);
  }

  #check(offset: number, length: number): void {
    this.use();
    check.integer(offset, 'offset');
    check.integer(length, 'length');
    if (length === 0) throw outOfRange('length is 0: use at least one block');
    this.#aligned(offset, 'offset');
    this.#aligned(length, 'length');
    if (offset > this.#size || length > this.#size - offset) {
      const asked = `${length} bytes at offset ${offset}`;
      throw outOfRange(`${asked} lie outside of disk ${this.vm}/${this.name}, which has ${this.#size} bytes`);
    }
  }

  #vector(offset: number, views: readonly NodeJS.ArrayBufferView[]): { bytes: Uint8Array[]; length: number } {
    if (!Array.isArray(views)) throw wrongType('the second argument must be an array of views');
    const bytes: Uint8Array[] = [];
    let length = 0;
    for (const view of views) {
      const { buffer, byteOffset, byteLength } = check.view(view, 'each view');
      bytes.push(new Uint8Array(buffer, byteOffset, byteLength));
      length += byteLength;
    }
    this.#check(offset, length);
    return { bytes, length };
  }

  #start<T>(op: number, offset: number, length: number, flags: number, views: T, options: IoOptions): Promise<T> {
    const signal = options === NONE ? undefined : check.object(options, 'options').signal;
    return signal === undefined
      ? native.diskIo(this.#handle, op, offset, length, flags, views, 0)
      : this.#abortable(op, offset, length, flags, views, signal);
  }

  // Apart from #start, which so makes no closure.
  #abortable<T>(op: number, offset: number, length: number, flags: number, views: T, signal: AbortSignal): Promise<T> {
    check.signal(signal);
    const begin = (token: number) => native.diskIo(this.#handle, op, offset, length, flags, views, token);
    return abortable(signal, begin, native.abortIo);
  }
}

export type { Disk };

function flagsOf(options: { fua?: boolean | undefined }): number {
  const { fua } = check.object(options, 'options');
  return fua !== undefined && check.boolean(fua, 'fua') ? FUA : 0;
}

export function isDisk(value: unknown): value is Disk {
  return value instanceof Disk;
}

export function makeDisk(vm: string, name: string, opened: OpenedDisk): Disk {
  return new Disk(vm, name, opened);
}
