// NBD servers: the virtual disks and devices of a host, for any client that speaks the protocol.
import * as check from './arguments.js';
import { type Device, deviceHandle, isDevice } from './device.js';
import { type Disk, diskHandle, isDisk } from './disk.js';
import { outOfRange, wrongType } from './errors.js';
import { Handle } from './handle.js';
import { type AddressMap, mapHandle } from './map.js';
import { type HostHandle, type NbdHandle, native } from './native.js';

interface CommonNbdOptions {
  /**
   * What to serve: disks, each as `VM/DISK`, and devices, each by its name and through whatever is in its dispatch table.
   * `all`: the disks that are open, and those that will be, and no device. Default `all`.
   */
  exports?: readonly (Disk | Device)[] | 'all' | undefined;
  /** Default false. */
  readOnly?: boolean | undefined;
  /**
   * Devices also beside volumes: their clients then may destroy the volume's data. Default false: a device is refused
   * that a volume uses, and a volume that uses one of the devices, both by `ERR_STRATAMAP_BUSY`.
   */
  shared?: boolean | undefined;
  /**
   * Tells clients by the metadata context `stratamap:physical` whether this map knows where an extent lies: 0 mapped, 1
   * stale, 2 unknown.
   */
  map?: AddressMap | undefined;
}

export type NbdOptions = CommonNbdOptions &
  (
    | {
        /** Path of a unix socket, which only this user can connect to. One that nobody listens on is taken over. */
        socket: string;
        host?: undefined;
        port?: undefined;
      }
    | {
        socket?: undefined;
        /** An address or name of this machine. Only its loopback is served: NBD neither encrypts nor asks who it is. */
        host: string;
        /** 0: one that is free. Default 10809. */
        port?: number | undefined;
      }
  );

/** What clients asked for, and bytes that went each way. `errors`: how many of all those were answered with one. */
export interface NbdCounts {
  reads: number;
  writes: number;
  flushes: number;
  trims: number;
  writeZeroes: number;
  caches: number;
  blockStatuses: number;
  errors: number;
  bytesRead: number;
  bytesWritten: number;
}

export interface NbdCounters {
  accepted: number;
  /** There were too many. */
  refused: number;
  /** Ended because they broke the protocol. */
  violations: number;
  /** Ended because their next byte did not come in time. */
  stalled: number;
  /** Now. */
  connected: number;
  /** Of those that are connected now. `export` is empty in the handshake. */
  connections: (NbdCounts & { peer: string; export: string })[];
  /** By name; of all their connections so far. */
  exports: Record<string, NbdCounts & { connected: number }>;
}

const PORT = 10809;
const GRACE = 10_000; // ms
const FOREVER = 2 ** 31 - 1; // ms, of a timer

class NbdServer extends Handle {
  readonly #handle: NbdHandle;
  readonly #where: { socket: string } | { host: string; port: number };
  // An open server keeps the process alive, as Node's own do.
  readonly #alive = setInterval(() => {}, FOREVER);
  #grace = GRACE;

  constructor(handle: NbdHandle, where: { socket: string } | { host: string; port: number }) {
    super();
    this.#handle = handle;
    this.#where = where;
  }

  /** The TCP port; undefined for a unix socket. */
  get port(): number | undefined {
    return 'port' in this.#where ? this.#where.port : undefined;
  }

  /** What clients call a disk or device: nbd+unix:///vm-1/vda?socket=/run/x.sock, nbd://localhost:10809/vm-1/vda. */
  uri(target: Disk | Device): string {
    if (!isDisk(target) && !isDevice(target)) throw wrongType('what is asked for must be an open disk or device');
    const name = (isDisk(target) ? [target.vm, target.name] : [target.name]).map(encodeURIComponent).join('/');
    if ('socket' in this.#where) return `nbd+unix:///${name}?socket=${encodeURIComponent(this.#where.socket)}`;
    const { host, port } = this.#where;
    return `nbd://${host.includes(':') ? `[${host}]` : host}:${port}/${name}`;
  }

  async counters(): Promise<NbdCounters> {
    this.use();
    return native.nbdCounters(this.#handle);
  }

  /** An open server does not keep the process alive. */
  unref(): this {
    this.#alive.unref();
    return this;
  }
  /** An open server keeps the process alive: the default. */
  ref(): this {
    this.#alive.ref();
    return this;
  }

  /** Closes at once, without answering what is in flight. `close` answers it first, for at most ten seconds. */
  destroy(): Promise<void> {
    this.#grace = 0;
    return this.close();
  }

  /** It uses disks. */
  protected override get rank(): number {
    return -1;
  }

  protected override describe() {
    return { layer: 'nbd', what: 'the NBD server' };
  }

  protected override async closeNative(): Promise<void> {
    await native.closeNbd(this.#handle, this.#grace * 1e6);
    clearInterval(this.#alive);
  }
}

export type { NbdServer };

export async function serveNbd(host: HostHandle, options: NbdOptions): Promise<NbdServer> {
  const given = check.object(options, 'options');
  const { exports = 'all', readOnly = false, shared = false, map, socket, host: address, port } = given;
  if ((socket === undefined) === (address === undefined)) {
    throw wrongType('options must have either a socket or a host', 'ERR_INVALID_ARG_VALUE');
  }
  check.boolean(readOnly, 'readOnly');
  check.boolean(shared, 'shared');
  if (exports !== 'all' && !(Array.isArray(exports) && exports.every((each) => isDisk(each) || isDevice(each)))) {
    throw wrongType("exports must be 'all' or an array of open disks and devices");
  }
  const disks = exports === 'all' ? null : exports.filter(isDisk).map(diskHandle);
  const devices = exports === 'all' ? [] : exports.filter(isDevice).map(deviceHandle);
  const known = map === undefined ? null : mapHandle(map);
  if (socket !== undefined) {
    if (port !== undefined) throw wrongType('a socket has no port', 'ERR_INVALID_ARG_VALUE');
    if (check.string(socket, 'socket') === '') throw outOfRange('socket must not be empty');
    const { handle } = await native.serveNbd(host, socket, '', 0, disks, devices, readOnly, shared, known);
    return new NbdServer(handle, { socket });
  }
  check.string(address, 'host');
  check.integer(port ?? PORT, 'port', 0, 65535);
  const opened = await native.serveNbd(
    host,
    '',
    address as string,
    port ?? PORT,
    disks,
    devices,
    readOnly,
    shared,
    known,
  );
  return new NbdServer(opened.handle, { host: address as string, port: opened.port });
}
