// NBD servers: the virtual disks and devices of a host, for any client that speaks the protocol.
import * as check from './arguments.js';
import { type Device, deviceHandle, isDevice } from './device.js';
import { type Disk, diskHandle, isDisk } from './disk.js';
import { outOfRange, wrongType } from './errors.js';
import { Handle } from './handle.js';
import { type AddressMap, mapHandle } from './map.js';
import { type HostHandle, type NativeTls, type NbdHandle, native } from './native.js';

/** Paths of PEM files, read when the server opens. */
export interface NbdTls {
  /** Certificates of those who may have signed a client's. Needed unless `verifyPeer` is false. */
  ca?: string | undefined;
  /** The server's certificate, and behind it those between it and its CA's. Clients ask for the server's host name in it. */
  cert: string;
  /** Its key, without a password. */
  key: string;
  /**
   * Whether a client must show a certificate, signed by `ca` and not made for servers alone. Default true. False: the
   * stream is encrypted, and anybody who reaches the server reads and writes the disks.
   */
  verifyPeer?: boolean | undefined;
}

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
  /**
   * Clients must begin TLS (1.2 or 1.3) before all else; without it they are told NBD_REP_ERR_TLS_REQD. It costs two
   * copies and the encryption of every byte, and memory of 208 KiB for each connection. Needs GnuTLS.
   */
  tls?: NbdTls | undefined;
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
        /** An address or name of this machine. Beyond its loopback with `tls` alone: NBD itself does not ask who it is. */
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
  /** Ended because they and the server could not agree on TLS, or they showed no good certificate. */
  tlsFailed: number;
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

type Where = { scheme: 'nbd' | 'nbds' } & ({ socket: string } | { host: string; port: number });

class NbdServer extends Handle {
  readonly #handle: NbdHandle;
  readonly #where: Where;
  // An open server keeps the process alive, as Node's own do.
  readonly #alive = setInterval(() => {}, FOREVER);
  #grace = GRACE;

  constructor(handle: NbdHandle, where: Where) {
    super();
    this.#handle = handle;
    this.#where = where;
  }

  /** The TCP port; undefined for a unix socket. */
  get port(): number | undefined {
    return 'port' in this.#where ? this.#where.port : undefined;
  }

  /**
   * What clients call a disk or device: nbd+unix:///vm-1/vda?socket=/run/x.sock, nbd://localhost:10809/vm-1/vda; with TLS
   * nbds in place of nbd, to which libnbd's clients add `?tls-certificates=FOLDER` or `&tls-certificates=FOLDER`.
   */
  uri(target: Disk | Device): string {
    if (!isDisk(target) && !isDevice(target)) throw wrongType('what is asked for must be an open disk or device');
    const name = (isDisk(target) ? [target.vm, target.name] : [target.name]).map(encodeURIComponent).join('/');
    const where = this.#where;
    if ('socket' in where) return `${where.scheme}+unix:///${name}?socket=${encodeURIComponent(where.socket)}`;
    const { scheme, host, port } = where;
    return `${scheme}://${host.includes(':') ? `[${host}]` : host}:${port}/${name}`;
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

  /**
   * Closes at once, without answering what is in flight. `close` first answers, for at most ten seconds, the requests
   * that the server has received whole; what is still on its way through the socket is not carried out. After `close` it
   * changes nothing.
   */
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
    try {
      await native.closeNbd(this.#handle, this.#grace * 1e6);
    } finally {
      clearInterval(this.#alive);
    }
  }
}

export type { NbdServer };

function tlsFiles(tls: NbdTls): NativeTls {
  const { ca = '', cert, key, verifyPeer = true } = check.object(tls, 'tls');
  check.boolean(verifyPeer, 'tls.verifyPeer');
  for (const [name, path] of Object.entries({ ca, cert, key })) {
    if (check.string(path, `tls.${name}`) === '' && (name !== 'ca' || verifyPeer)) {
      throw wrongType(`tls.${name} must be the path of a PEM file`, 'ERR_INVALID_ARG_VALUE');
    }
  }
  return { ca, cert, key, verifyPeer };
}

export async function serveNbd(host: HostHandle, options: NbdOptions): Promise<NbdServer> {
  const given = check.object(options, 'options');
  const { exports = 'all', readOnly = false, shared = false, map, socket, host: address, port, tls } = given;
  if ((socket === undefined) === (address === undefined)) {
    throw wrongType('options must have either a socket or a host', 'ERR_INVALID_ARG_VALUE');
  }
  check.boolean(readOnly, 'readOnly');
  check.boolean(shared, 'shared');
  if (exports !== 'all' && !(Array.isArray(exports) && exports.every((each) => isDisk(each) || isDevice(each)))) {
    throw wrongType("exports must be 'all' or an array of open disks and devices");
  }
  const asked = {
    disks: exports === 'all' ? null : exports.filter(isDisk).map(diskHandle),
    devices: exports === 'all' ? [] : exports.filter(isDevice).map(deviceHandle),
    readOnly,
    shared,
    map: map === undefined ? null : mapHandle(map),
    tls: tls === undefined ? null : tlsFiles(tls),
  };
  const scheme = tls === undefined ? 'nbd' : 'nbds';
  if (socket !== undefined) {
    if (port !== undefined) throw wrongType('a socket has no port', 'ERR_INVALID_ARG_VALUE');
    if (check.string(socket, 'socket') === '') throw outOfRange('socket must not be empty');
    const { handle } = await native.serveNbd(host, { ...asked, socket, address: '', port: 0 });
    return new NbdServer(handle, { scheme, socket });
  }
  check.string(address, 'host');
  check.integer(port ?? PORT, 'port', 0, 65535);
  const where = { socket: '', address: address as string, port: port ?? PORT };
  const opened = await native.serveNbd(host, { ...asked, ...where });
  return new NbdServer(opened.handle, { scheme, host: address as string, port: opened.port });
}
