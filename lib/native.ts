// The addon, and what it exports. Nothing else loads it.
import path from 'node:path';
import nodeGypBuild from 'node-gyp-build';
import { makeError } from './errors.js';
import type { NbdCounters } from './nbd.js';
import type { ProbeStats } from './probe.js';
import type { Journal } from './replay.js';

declare const brand: unique symbol;
/** What the addon knows a thing by. */
export interface Handle<Kind extends string> {
  readonly [brand]: Kind;
}
export type HostHandle = Handle<'host'>;
export type DeviceHandle = Handle<'device'>;
export type VolumeHandle = Handle<'volume'>;
export type DiskHandle = Handle<'disk'>;
export type LoopHandle = Handle<'loop'>;
export type WorkloadHandle = Handle<'workload'>;
export type MapHandle = Handle<'map'>;
export type ProbeHandle = Handle<'probe'>;
export type InterposerHandle = Handle<'interposer'>;
export type NbdHandle = Handle<'nbd'>;
export type UnixSocketHandle = Handle<'socket'>;

export interface DeviceFacts {
  path: string;
  driver: string;
  size: number;
  blockSize: number;
  direct: boolean;
  shared: boolean;
  readOnly: boolean;
  discard: boolean;
  journal: string;
}

export interface OpenedDisk {
  handle: DiskHandle;
  size: number;
  blockSize: number;
  devices: string[];
}

export interface NativeWorkloadOptions {
  pattern: string;
  blockSize: number;
  queueDepth: number;
  seconds: number;
  operations: number;
  seed: number;
  verify: boolean;
  offset: number;
  length: number;
  readPercent: number;
  discardPercent: number;
  zeroesPercent: number;
  flushPercent: number;
}

export interface NativeWorkloadResult {
  operations: number;
  bytes: number;
  errors: number;
  mismatches: number;
  reads: number;
  writes: number;
  discards: number;
  zeroes: number;
  flushes: number;
  verifiedBytes: number;
  elapsed: number;
  cpu: number;
  firstError?: { code: string; offset: number };
  firstMismatch?: string;
  latency: { p50: number; p90: number; p99: number; p999: number; max: number };
  histogram: Float64Array;
}

export interface NativeTally {
  operations: number;
  bytes: number;
}

/** Paths of PEM files; an empty `ca` is none. */
export interface NativeTls {
  ca: string;
  cert: string;
  key: string;
  verifyPeer: boolean;
}

export interface NativeNbdOptions {
  /** Empty: on `address` and `port`. */
  socket: string;
  address: string;
  port: number;
  /** Null: all, and those to come. */
  disks: DiskHandle[] | null;
  devices: DeviceHandle[];
  readOnly: boolean;
  shared: boolean;
  map: MapHandle | null;
  tls: NativeTls | null;
}

export interface NativeProbeState extends ProbeStats {
  learning: boolean;
}

export interface Native {
  setErrorFactory(factory: typeof makeError): void;
  /** Closes every host and every stored map of this environment, and waits for it. */
  shutDown(): void;

  attachLoop(
    file: string,
    directIo: boolean,
    readOnly: boolean,
    autoclear: boolean,
    blockSize: number,
  ): Promise<{ handle: LoopHandle; path: string; directIo: boolean }>;
  detachLoop(loop: LoopHandle): Promise<void>;

  openHost(threads: number, requests: number, bufferBytes: number, uring: boolean): Promise<HostHandle>;
  hostNotices(host: HostHandle): string[];
  closeHost(host: HostHandle): Promise<void>;
  volumeTypes(): string[];
  deviceDrivers(): string[];

  openDevice(
    host: HostHandle,
    name: string,
    path: string,
    driver: string,
    shared: boolean,
    readOnly: boolean,
    size: number,
    direct: boolean,
    journal: string,
  ): Promise<{ handle: DeviceHandle; info: DeviceFacts }>;
  closeDevice(device: DeviceHandle): Promise<void>;
  /** Names, top first. */
  deviceInterposers(device: DeviceHandle): string[];
  /** Which of the handles are probes'. */
  reorderDevice(device: DeviceHandle, order: (ProbeHandle | InterposerHandle)[], probes: boolean[]): Promise<void>;
  readJournal(journal: string): Promise<Journal>;
  replayCrash(journal: string, at: number, seed: number, into: string): Promise<void>;

  formatVolume(
    host: HostHandle,
    type: string,
    devices: DeviceHandle[],
    options: string[],
    force: boolean,
  ): Promise<void>;
  openVolume(
    host: HostHandle,
    name: string,
    type: string,
    devices: DeviceHandle[],
    options: string[],
  ): Promise<VolumeHandle>;
  closeVolume(volume: VolumeHandle): Promise<void>;
  listDisks(volume: VolumeHandle): Promise<{ vm: string; name: string; size: number }[]>;
  deleteDisk(volume: VolumeHandle, vm: string, name: string): Promise<void>;
  createDisk(volume: VolumeHandle, vm: string, name: string, size: number): Promise<OpenedDisk>;
  openDisk(volume: VolumeHandle, vm: string, name: string): Promise<OpenedDisk>;
  resizeDisk(disk: DiskHandle, size: number): Promise<number>;
  closeDisk(disk: DiskHandle): Promise<void>;

  diskIo<T>(
    disk: DiskHandle,
    op: number,
    offset: number,
    length: number,
    flags: number,
    views: T,
    token: number,
  ): Promise<T>;
  abortIo(token: number): void;
  /** Words: op and, from bit 8 on, flags; offset; length. Of the errors; undefined where nothing failed. */
  diskBatch(disk: DiskHandle, words: Float64Array, views: (Uint8Array | undefined)[]): Promise<Error[] | undefined>;

  startWorkload(
    disk: DiskHandle,
    options: NativeWorkloadOptions,
  ): { handle?: WorkloadHandle; result: Promise<NativeWorkloadResult> };
  stopWorkload(workload: WorkloadHandle): void;

  openMap(): MapHandle;
  /** Interval in ms. What follows is of such maps. */
  openStoredMap(path: string, interval: number): Promise<MapHandle>;
  flushMap(map: MapHandle): Promise<void>;
  closeMap(map: MapHandle): Promise<void>;
  mapNotices(map: MapHandle): string[];
  /** Words: diskOffset, length, flags, places; device and offset of each place. */
  mapLocate(map: MapHandle, vm: string, disk: string, offset: number, length: number): Float64Array;
  mapExtents(map: MapHandle, vm: string, disk: string, from: number, limit: number): Float64Array;
  /** Words: offset, length, flags, disk, diskOffset. */
  mapOwners(map: MapHandle, device: string, offset: number, length: number): Float64Array;
  /** The names of the keys from `from` on. */
  mapDisks(map: MapHandle, from: number): { vm: string; name: string }[];
  mapDevices(map: MapHandle, from: number): string[];
  mapLedger(map: MapHandle): {
    devices: Record<string, Record<string, NativeTally>>;
    unmapped: Record<string, NativeTally>;
  };

  attachProbe(
    host: HostHandle,
    map: MapHandle,
    association: string,
    correlation: string,
    capacity: number,
    /** Of `hint`: levels of the best-effort class; ns, 0: every request is tagged. */
    levels: readonly number[],
    maxAge: number,
  ): Promise<ProbeHandle>;
  /** Timeout in ns. False: something was still inside. */
  detachProbe(probe: ProbeHandle, timeout: number): Promise<boolean>;
  probeListen(probe: ProbeHandle, words: number): void;
  probeUnlisten(probe: ProbeHandle): void;
  /** How many words were copied: whole records. */
  probeDrain(probe: ProbeHandle, to: Float64Array): number;
  probeWait(probe: ProbeHandle): Promise<void>;
  probeState(probe: ProbeHandle): NativeProbeState;
  /** 0, or a negative errno (-38: on the uppermost device alone) and why. */
  tryKernel(): { status: number; why: string };
  probeNotices(probe: ProbeHandle): string[];
  associations(): Record<string, { carrier: string; correlations: string[]; kernel: boolean }>;

  /** `words`, by type: see lib/interposer.ts. `devices` null: all, and those to come. */
  interpose(
    host: HostHandle,
    type: number,
    words: Float64Array,
    devices: DeviceHandle[] | null,
    position: number,
    probe: ProbeHandle | null,
    vm: string,
    disk: string,
  ): Promise<InterposerHandle>;
  /** Timeout in ns. False: something was still inside. */
  detachInterposer(interposer: InterposerHandle, timeout: number): Promise<boolean>;
  updateLimit(interposer: InterposerHandle, words: Float64Array): Promise<void>;
  interposerCounters(interposer: InterposerHandle): Float64Array;

  serveNbd(host: HostHandle, asked: NativeNbdOptions): Promise<{ handle: NbdHandle; port: number }>;
  /** Why the server knows no TLS, and what to do; empty where it does. */
  tlsMissing(): string;
  /** Timeout in ns, for what is in flight. */
  closeNbd(server: NbdHandle, timeout: number): Promise<void>;
  nbdCounters(server: NbdHandle): Promise<NbdCounters>;

  /** A listening socket, 0600, in the place of one that nobody listens on; a failure has this `layer`. */
  listenUnix(path: string, layer: string): Promise<{ fd: number; handle: UnixSocketHandle }>;
  /** Removes its name, if that is still its own. */
  unlinkUnix(socket: UnixSocketHandle): void;

  /**
   * FIEMAP of an open file. `ranges`: offset and length of each. Words: offset, place, length and FIEMAP's flags of each
   * extent that meets a range, whole. The descriptor stays open until it settles.
   */
  fileExtents(fd: number, ranges: Float64Array): Promise<Float64Array>;
  /** Of offsets, lengths and addresses, bytes; 0 where there is no O_DIRECT. */
  directAlignment(fd: number): number;
  /** Of a descriptor opened with O_DIRECT, which stays open until it settles. Shorter where the file ends before. */
  readDirect(fd: number, alignment: number, offset: number, length: number): Promise<Buffer>;
}

/** The package's root, from lib/ as from dist/. */
const root = path.join(__dirname, '..');

function load(): Native {
  try {
    return nodeGypBuild(root) as Native;
  } catch (cause) {
    const system = `${process.platform}-${process.arch}, Node ${process.versions.node}`;
    throw new Error(
      `stratamap cannot load its native addon (${system}): ${cause instanceof Error ? cause.message : cause}. ` +
        'It runs on Linux. Where no prebuilt binary fits, build one: install a C++20 compiler, make and Python 3 ' +
        '(with liburing-dev for io_uring), then run `npm rebuild stratamap`',
      { cause },
    );
  }
}

export const native = load();
native.setErrorFactory(makeError);
// process.exit ends the process without ending its environment: close in order what is still open.
process.once('exit', () => native.shutDown());
