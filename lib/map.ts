// The address map: which virtual disk's bytes lie where.
import * as check from './arguments.js';
import { partitionOf } from './block_device.js';
import type { Device } from './device.js';
import { closed, wrongType } from './errors.js';
import { type MapHandle, native } from './native.js';

/**
 * `mapped`: reading the place now returns the bytes last acknowledged for the virtual range. `stale`: it may hold other
 * bytes by now. `unknown`: no evidence.
 */
export type State = 'unknown' | 'stale' | 'mapped';
const STATES = ['unknown', 'stale', 'mapped'] as const satisfies readonly State[];
const STATE_MASK = 3;
const MOVING = 4;
const SHARED = 8;

/** An open disk, its names, or `vm/name`. */
export type DiskReference =
  | { readonly vm: string; readonly name: string }
  | { readonly vm: string; readonly disk: string }
  | string;

export interface Place {
  /** The device's name. */
  device: string;
  /** Bytes from its start. */
  offset: number;
}

/** A range of a disk, and every place that holds it. */
export interface Extent {
  diskOffset: number;
  length: number;
  state: State;
  /** Something unattributed has read a place, perhaps to move it. */
  moving: boolean;
  /** A place was seen to carry the bytes of more than one context. */
  shared: boolean;
  places: Place[];
}

/** A range of a device, and a disk that owns it. */
export interface Owner {
  offset: number;
  length: number;
  state: State;
  moving: boolean;
  shared: boolean;
  vm: string;
  disk: string;
  diskOffset: number;
}

export interface Tally {
  operations: number;
  bytes: number;
}

/** What became of every I/O to a device. `control`: flushes. */
export type DeviceLedger = Record<'attributed' | 'ambiguous' | 'unattributed' | 'control', Tally>;

/** Why bytes that were written are not mapped; each byte counts under the first reason that holds. */
export type UnmappedReason =
  | 'failed'
  | 'overlap'
  | 'settling'
  | 'unrecorded'
  | 'race'
  | 'late'
  | 'differs'
  | 'absent'
  | 'shared';

export interface Ledger {
  /** By the device's name. */
  devices: Record<string, DeviceLedger>;
  unmapped: Record<UnmappedReason, Tally>;
}

/** How many extents are told as of one instant. */
const SNAPSHOT = 1024;

export let mapHandle: (map: AddressMap) => MapHandle;
/** The names behind the addon's keys. */
export let mapNames: (map: AddressMap) => Names;

/** Keys are never reused, and their names never change: ask once for each. */
export class Names {
  readonly #handle: MapHandle;
  readonly #disks: { vm: string; name: string }[] = [];
  readonly #devices: string[] = [];

  constructor(handle: MapHandle) {
    this.#handle = handle;
  }

  disk(key: number): { vm: string; name: string } {
    if (key >= this.#disks.length) this.#disks.push(...native.mapDisks(this.#handle, this.#disks.length));
    return this.#disks[key] as { vm: string; name: string };
  }

  device(key: number): string {
    if (key >= this.#devices.length) this.#devices.push(...native.mapDevices(this.#handle, this.#devices.length));
    return this.#devices[key] as string;
  }
}

class AddressMap {
  static {
    mapHandle = (map) => {
      if (!(map instanceof AddressMap)) throw wrongType('map must be what openMap has opened');
      return map.#use();
    };
    mapNames = (map) => map.#names;
  }
  #handle: MapHandle | undefined;
  readonly #names: Names;
  readonly #stored: boolean;
  #closing = Promise.resolve();

  constructor(handle: MapHandle, stored: boolean) {
    this.#handle = handle;
    this.#names = new Names(handle);
    this.#stored = stored;
  }

  /** Where a range of a disk lies. The answer covers the range without gaps, in order. */
  locate(disk: DiskReference, offset: number, length: number): Extent[] {
    const handle = this.#use();
    const { vm, name } = namesOf(disk);
    check.range(offset, length);
    return length === 0 ? [] : this.#extents(native.mapLocate(handle, vm, name, offset, length));
  }

  /**
   * What is known to lie in a range of a device, by offset. What nothing is known of is left out; a range of several
   * owners is told once for each. Of a partition, by its path ('/dev/loop0p1'), offsets are from its own beginning.
   */
  owners(device: Device | string, offset: number, length: number): Owner[] {
    const handle = this.#use();
    const name = typeof device === 'string' ? device : check.name(check.object(device, 'device').name, 'device.name');
    check.range(offset, length);
    const part = partitionOf(name);
    const [whole, start] = part ? [part.disk, part.start] : [name, 0];
    const most = part ? Math.max(0, Math.min(length, part.length - offset)) : length;
    if (most === 0) return [];
    const words = native.mapOwners(handle, whole, start + offset, most);
    const owners: Owner[] = [];
    for (let at = 0; at < words.length; at += 5) {
      const flags = words[at + 2] as number;
      const owner = this.#names.disk(words[at + 3] as number);
      owners.push({
        offset: (words[at] as number) - start,
        length: words[at + 1] as number,
        ...flagged(flags),
        vm: owner.vm,
        disk: owner.name,
        diskOffset: words[at + 4] as number,
      });
    }
    return owners;
  }

  /**
   * The known extents of a disk, in virtual order. The snapshot: each 1024 extents are as of one instant, the instant at
   * which the iterator reaches them; what changes behind it is not told again, what changes before it is told as it is
   * then. With no I/O in flight the whole is as of one instant. Begins at `from`, bytes.
   */
  *extents(disk: DiskReference, from = 0): Generator<Extent, void, undefined> {
    const { vm, name } = namesOf(disk);
    for (check.integer(from, 'from'); ; ) {
      const chunk = this.#extents(native.mapExtents(this.#use(), vm, name, from, SNAPSHOT));
      yield* chunk;
      const last = chunk.at(-1);
      if (last === undefined) return;
      from = last.diskOffset + last.length;
    }
  }

  /** What became of every physical I/O, by device, and what stayed unmapped, by reason. */
  ledger(): Ledger {
    const handle = this.#use();
    const names = native.mapDevices(handle, 0);
    const { devices, unmapped } = native.mapLedger(handle) as Ledger;
    // Without a prototype: a device may be called __proto__, and none is called constructor that is not there.
    const own: Ledger['devices'] = Object.create(null);
    for (const name of names) own[name] = devices[name] as DeviceLedger;
    return { devices: own, unmapped };
  }

  /**
   * Everything that is known now is in the file, durably, when it resolves; in memory alone there is nothing to do. What
   * could not be written is tried again, at every interval and by every flush: a failure loses nothing.
   */
  async flush(): Promise<void> {
    const handle = this.#use();
    if (this.#stored) await native.flushMap(handle);
  }

  /** What the user should know: that the file could not be written, and why. One sentence each. */
  get notices(): string[] {
    return this.#stored && this.#handle !== undefined ? native.mapNotices(this.#handle) : [];
  }

  /** Whether the map was closed. */
  get closed(): boolean {
    return this.#handle === undefined;
  }

  /**
   * Forgets everything; of a stored map after a flush, and the file is free then, also where that fails. A probe that is
   * attached goes on until it is detached, but what it learns is not kept. A second call is the same as the first.
   */
  close(): Promise<void> {
    if (this.#handle !== undefined && this.#stored) this.#closing = native.closeMap(this.#handle);
    this.#handle = undefined;
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #use(): MapHandle {
    if (this.#handle === undefined) throw closed('map', 'the map');
    return this.#handle;
  }

  #extents(words: Float64Array): Extent[] {
    const extents: Extent[] = [];
    for (let at = 0; at < words.length; ) {
      const diskOffset = words[at] as number;
      const length = words[at + 1] as number;
      const flags = words[at + 2] as number;
      const end = at + 4 + 2 * (words[at + 3] as number);
      const places: Place[] = [];
      for (at += 4; at < end; at += 2) {
        places.push({ device: this.#names.device(words[at] as number), offset: words[at + 1] as number });
      }
      extents.push({ diskOffset, length, ...flagged(flags), places });
    }
    return extents;
  }
}

export type { AddressMap };

function flagged(flags: number): { state: State; moving: boolean; shared: boolean } {
  return {
    state: STATES[flags & STATE_MASK] as State,
    moving: (flags & MOVING) !== 0,
    shared: (flags & SHARED) !== 0,
  };
}

export function namesOf(disk: DiskReference): { vm: string; name: string } {
  if (typeof disk === 'string') {
    const [vm, name, more] = disk.split('/');
    if (vm && name && more === undefined) return { vm, name };
    throw wrongType(`${JSON.stringify(disk)} must be 'vm/name'; give an object where a name holds a slash`);
  }
  const given = check.object(disk, 'disk');
  return {
    vm: check.name(given.vm, 'disk.vm'),
    name: check.name('name' in given ? given.name : given.disk, 'disk.name'),
  };
}

export interface MapOptions {
  /**
   * A file that keeps the map; it is made where there is none. Another beside it, `<path>.unfinished`, comes and goes.
   * One map at a time has it, in all processes.
   */
  path?: string | undefined;
  /** How often what was learned is written there, ms: what a crash may lose. 10 to 3600000, default 1000. */
  interval?: number | undefined;
}

/**
 * A map, which a probe fills: empty, or what its file holds. All of that is `stale`: it tells where to look, and what is
 * read or written there again is `mapped` again. A file that is no map, damaged at another place than its end, or of a
 * newer version is refused (`ERR_STRATAMAP_MAP`), and left as it is.
 */
export async function openMap(options: MapOptions = {}): Promise<AddressMap> {
  const { path, interval } = check.object(options, 'options');
  if (path === undefined) {
    if (interval !== undefined) throw wrongType('interval needs a path: give both', 'ERR_INVALID_ARG_VALUE');
    return new AddressMap(native.openMap(), false);
  }
  if (check.string(path, 'path') === '') throw wrongType('path must not be empty', 'ERR_INVALID_ARG_VALUE');
  const ms = check.integer(interval ?? 1000, 'interval', 10, 3_600_000);
  return new AddressMap(await native.openStoredMap(path, ms), true);
}
