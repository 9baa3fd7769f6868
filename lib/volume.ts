// Volumes: the opaque layer between virtual disks and devices.
import * as check from './arguments.js';
import { type Device, deviceHandles } from './device.js';
import { type Disk, makeDisk } from './disk.js';
import { wrongType } from './errors.js';
import { Handle } from './handle.js';
import { type DeviceHandle, type HostHandle, native, type VolumeHandle } from './native.js';

/**
 * `extent`, `log`, `stripe`; `nbd`, which keeps no metadata: each disk is one of the devices, meant to be of the driver
 * `nbd`, as it is, and is created anew each time that the volume is opened; `kernel`, which takes no devices: a directory
 * on a mounted file system, whose disks are the image files `VM/NAME.img` in it; or the path of a shared object, ending
 * in `.so`.
 *
 * The options of `kernel`, of which it needs the first: `directory`, which must exist; `allocate`, `sparse` (the
 * default: space is allocated when it is written, and given back when it is discarded) or `full` (with the disk, whose
 * own it stays); `issue`, `clone` (the default) or `fresh`. An image is opened exclusively, and past the page cache where
 * the file system allows that (`host.notices` says where not), as a device that is called `VOLUME/VM/NAME`; of what is
 * longer than 63 bytes the end is replaced by its hash.
 */
export type VolumeType = 'extent' | 'log' | 'stripe' | 'nbd' | 'kernel' | (string & {});
/** Settings of the volume, by name. */
export type VolumeSettings = Readonly<Record<string, string | number | boolean>>;

export interface FormatOptions {
  type: VolumeType;
  /** At least one, unless the type takes none: then there is nothing to be formatted. */
  devices?: readonly Device[] | undefined;
  options?: VolumeSettings | undefined;
  /** Also where a device carries the signature of something else, which is lost then. Default false. */
  force?: boolean | undefined;
}

export interface VolumeOptions {
  name: string;
  type: VolumeType;
  /** In the order in which they were formatted. Not of `kernel`, and of a shared object that takes none. */
  devices?: readonly Device[] | undefined;
  options?: VolumeSettings | undefined;
}

export interface DiskName {
  vm: string;
  name: string;
}

export interface CreateDiskOptions extends DiskName {
  /** Bytes, a multiple of the block size. */
  size: number;
}

export interface DiskEntry extends DiskName {
  size: number;
}

class Volume extends Handle {
  readonly #handle: VolumeHandle;
  readonly name: string;
  readonly type: VolumeType;

  constructor(handle: VolumeHandle, name: string, type: VolumeType) {
    super();
    this.#handle = handle;
    this.name = name;
    this.type = type;
  }

  /** Creates a disk, and opens it. */
  async createDisk(options: CreateDiskOptions): Promise<Disk> {
    const { vm, name } = this.#diskName(options);
    const size = check.integer(options.size, 'size', 1);
    return this.adopt(native.createDisk(this.#handle, vm, name, size).then((opened) => makeDisk(vm, name, opened)));
  }

  /** Opens a disk that there is. It can be open once at a time. */
  async openDisk(options: DiskName): Promise<Disk> {
    const { vm, name } = this.#diskName(options);
    return this.adopt(native.openDisk(this.#handle, vm, name).then((opened) => makeDisk(vm, name, opened)));
  }

  async listDisks(): Promise<DiskEntry[]> {
    this.use();
    return native.listDisks(this.#handle);
  }

  /** Deletes a disk, which must not be open, and gives its space back. */
  async deleteDisk(options: DiskName): Promise<void> {
    const { vm, name } = this.#diskName(options);
    return native.deleteDisk(this.#handle, vm, name);
  }

  #diskName(options: DiskName): DiskName {
    this.use();
    const { vm, name } = check.object(options, 'options');
    return { vm: check.name(vm, 'vm'), name: check.name(name, 'name') };
  }

  protected override get rank(): number {
    return 1;
  }

  protected override describe() {
    return { layer: 'volume', what: `volume ${this.name}` };
  }

  protected override closeNative(): Promise<void> {
    return native.closeVolume(this.#handle);
  }
}

export type { Volume };

/** Key, value, key, value. */
function settings(options: VolumeSettings | undefined): string[] {
  return Object.entries(check.object(options ?? {}, 'options')).flatMap(([key, value]) => {
    if (!['string', 'number', 'boolean'].includes(typeof value)) {
      throw wrongType(`options.${key} must be a string, number or boolean`);
    }
    return [check.string(key, 'a key of options'), check.string(String(value), `options.${key}`)];
  });
}

/** Those of a volume that takes some; which shared objects do, the host knows. */
function devicesOf(type: VolumeType, devices: readonly Device[] | undefined): DeviceHandle[] {
  const none = devices === undefined || (Array.isArray(devices) && devices.length === 0);
  return none && (type === 'kernel' || type.endsWith('.so')) ? [] : deviceHandles(devices as readonly Device[]);
}

function typeOf(type: unknown): string {
  const given = check.string(type, 'type');
  if (given.length === 0) throw wrongType('type is empty', 'ERR_INVALID_ARG_VALUE');
  return given;
}

export function formatVolume(host: HostHandle, options: FormatOptions): Promise<void> {
  const { type, devices, options: given, force = false } = check.object(options, 'options');
  check.boolean(force, 'force');
  return native.formatVolume(host, typeOf(type), devicesOf(type, devices), settings(given), force);
}

export function openVolume(host: HostHandle, options: VolumeOptions): Promise<Volume> {
  const { name, type, devices, options: given } = check.object(options, 'options');
  check.name(name, 'name');
  return native
    .openVolume(host, name, typeOf(type), devicesOf(type, devices), settings(given))
    .then((handle) => new Volume(handle, name, type));
}
