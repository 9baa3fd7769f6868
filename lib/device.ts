// Physical devices.
import * as check from './arguments.js';
import { reorder } from './chain.js';
import { wrongType } from './errors.js';
import { Handle } from './handle.js';
import type { Interposer } from './interposer.js';
import { type DeviceFacts, type DeviceHandle, type HostHandle, native } from './native.js';
import type { Probe } from './probe.js';

/**
 * `uring`: io_uring, past the page cache where possible; `posix`: a pool of threads; `null`: a size and no data;
 * `recording`: as `posix`, with a journal of every change and flush from which `replayCrash` makes the medium after a
 * crash; `nbd`: what an NBD server serves, on a unix socket or this machine's loopback.
 */
export type Driver = 'uring' | 'posix' | 'null' | 'recording' | 'nbd';
const DRIVERS = ['uring', 'posix', 'null', 'recording', 'nbd'] as const satisfies readonly Driver[];

interface CommonDeviceOptions {
  /** How events and the map call it; unique in the host. */
  name: string;
}

export interface RealDeviceOptions extends CommonDeviceOptions {
  /** A block device or a regular file. */
  path: string;
  /** Default `uring`. Where the kernel refuses io_uring, `posix` serves: see `device.driver` and `host.notices`. */
  driver?: 'uring' | 'posix' | undefined;
  /** Others may use the device at the same time: nothing on it is ever `mapped` then. Default false: exclusively. */
  shared?: boolean | undefined;
  readOnly?: boolean | undefined;
  /** Past the page cache (O_DIRECT) where possible. Default true. */
  direct?: boolean | undefined;
}

export interface RecordingDeviceOptions extends Omit<RealDeviceOptions, 'driver'> {
  driver: 'recording';
  /**
   * The file that is made for the journal; there must be none yet. It begins with a copy of what the medium holds but
   * its zeroes. Default, for an image file: `<path>.journal`.
   */
  journal?: string | undefined;
}

export interface NullDeviceOptions extends CommonDeviceOptions {
  driver: 'null';
  /** Bytes. */
  size: number;
}

export interface NbdDeviceOptions extends CommonDeviceOptions {
  driver: 'nbd';
  /**
   * nbd+unix:///EXPORT?socket=PATH or nbd://HOST:PORT/EXPORT, the host on the loopback. Others may write to what a server
   * serves: the device is always `shared`, and nothing on it is ever `mapped`. A connection that is lost stays lost: all
   * I/O fails then, by `ENOTCONN`.
   */
  uri: string;
  readOnly?: boolean | undefined;
}

export type DeviceOptions = RealDeviceOptions | RecordingDeviceOptions | NullDeviceOptions | NbdDeviceOptions;

export let deviceHandle: (device: Device) => DeviceHandle;

class Device extends Handle {
  static {
    deviceHandle = (device) => device.#handle;
  }
  readonly #handle: DeviceHandle;
  readonly name: string;
  /** Of an NBD device: its URI. */
  readonly path: string;
  /** The driver that serves, which may not be the one asked for. */
  readonly driver: Driver;
  /** Bytes. */
  readonly size: number;
  /** Bytes: offsets and lengths on the device are multiples of it. */
  readonly blockSize: number;
  /** Whether I/O goes past the page cache. */
  readonly direct: boolean;
  readonly shared: boolean;
  readonly readOnly: boolean;
  /** Whether discards reach the medium. */
  readonly discard: boolean;
  /** The path of a recording device's journal; `undefined` for others. */
  readonly journal: string | undefined;

  constructor(handle: DeviceHandle, name: string, facts: DeviceFacts) {
    super();
    this.#handle = handle;
    this.name = name;
    this.path = facts.path;
    this.driver = facts.driver as Driver;
    this.size = facts.size;
    this.blockSize = facts.blockSize;
    this.direct = facts.direct;
    this.shared = facts.shared;
    this.readOnly = facts.readOnly;
    this.discard = facts.discard;
    this.journal = facts.journal || undefined;
  }

  /** The types of the interposers in its dispatch table, `probe` among them, top first. */
  get interposers(): string[] {
    return this.closed ? [] : native.deviceInterposers(this.#handle);
  }

  /**
   * Brings its interposers into this order, top first, with I/O in flight: each of them, once. Requests that are under
   * way finish in the order in which they began. It concerns this device alone, and none that is opened later.
   * `ERR_STRATAMAP_ORDER` where they are not those that are in.
   */
  async reorder(order: readonly (Interposer | Probe)[]): Promise<void> {
    this.use();
    return reorder(this.#handle, order);
  }

  protected override get rank(): number {
    return 2;
  }

  protected override describe() {
    return { layer: 'device', what: `device ${this.name}`, details: { device: this.name } };
  }

  protected override closeNative(): Promise<void> {
    return native.closeDevice(this.#handle);
  }
}

export type { Device };

export function isDevice(value: unknown): value is Device {
  return value instanceof Device;
}

export function deviceHandles(devices: readonly Device[]): DeviceHandle[] {
  if (!Array.isArray(devices) || devices.length === 0)
    throw wrongType('devices must be an array of at least one device');
  return devices.map((device, i) => {
    if (!(device instanceof Device)) throw wrongType('devices must be what host.openDevice has opened');
    if (devices.indexOf(device) !== i)
      throw wrongType(`devices must be different: ${device.name} is given twice`, 'ERR_INVALID_ARG_VALUE');
    return deviceHandle(device);
  });
}

export function openDevice(host: HostHandle, options: DeviceOptions): Promise<Device> {
  const given: Partial<
    Omit<RealDeviceOptions, 'driver'> & { size: number; journal: string; uri: string; driver: Driver }
  > = check.object(options, 'options') as never;
  const name = check.name(given.name, 'name');
  const driver = check.oneOf(given.driver ?? 'uring', 'driver', DRIVERS);
  const shared = check.boolean(given.shared ?? false, 'shared');
  const readOnly = check.boolean(given.readOnly ?? false, 'readOnly');
  const direct = check.boolean(given.direct ?? true, 'direct');
  if (given.journal !== undefined && driver !== 'recording')
    throw wrongType(`a ${driver} device keeps no journal`, 'ERR_INVALID_ARG_VALUE');
  const journal = check.string(given.journal ?? '', 'journal');
  if (given.uri !== undefined && driver !== 'nbd')
    throw wrongType(`a ${driver} device has no uri`, 'ERR_INVALID_ARG_VALUE');
  let path = '';
  let size = 0;
  if (driver === 'nbd') {
    if (given.path !== undefined || given.size !== undefined)
      throw wrongType('an nbd device has a uri, and neither path nor size', 'ERR_INVALID_ARG_VALUE');
    path = check.string(given.uri, 'uri');
  } else if (driver === 'null') {
    if (given.path !== undefined) throw wrongType('a null device has a size and no path', 'ERR_INVALID_ARG_VALUE');
    size = check.integer(given.size, 'size', 1);
  } else {
    if (given.size !== undefined)
      throw wrongType(`a ${driver} device has the size of its path`, 'ERR_INVALID_ARG_VALUE');
    path = check.string(given.path, 'path');
  }
  return native
    .openDevice(host, name, path, driver, shared, readOnly, size, direct, journal)
    .then(({ handle, info }) => new Device(handle, name, info));
}
