// What `stratamap serve` runs: everything of a configuration opened, and closed again in the order that loses nothing.
import path from 'node:path';
import { partitionOf, sizeOfBlockDevice } from '../block_device.js';
import type { Device } from '../device.js';
import type { Disk } from '../disk.js';
import { StratamapError } from '../errors.js';
import { type Host, openHost } from '../host.js';
import type { Interposer } from '../interposer.js';
import { type AddressMap, openMap } from '../map.js';
import type { NbdServer } from '../nbd.js';
import type { Association, Correlation, Probe, Tagging } from '../probe.js';
import type { Volume } from '../volume.js';
import type { ExportConfig, ServeConfig, VolumeConfig } from './config.js';
import { type ControlServer, openControlServer } from './control_server.js';
import { openDisk, openFarDevice, openVolume } from './open_volume.js';

export interface ServedDisk {
  vm: string;
  name: string;
  /** Bytes. */
  size: number;
  blockSize: number;
  volume: string;
  /** The file that holds it, byte for byte, where the volume is of type `kernel`. */
  file?: string;
  /** Where clients find it. */
  uris: string[];
}

export interface ProbeRequest {
  association?: Association | undefined;
  correlation?: Correlation | undefined;
  capacity?: number | undefined;
  tagging?: Tagging | undefined;
  /** ms */
  maxAge?: number | undefined;
  levels?: number[] | undefined;
}

export interface ServedDevice {
  name: string;
  /** Bytes. */
  size: number;
  /** Where clients find it. */
  uris: string[];
}

interface Served {
  disk: Disk;
  volume: string;
}

interface Serving {
  server: NbdServer;
  /** Undefined: all. */
  disks: ReadonlySet<string> | undefined;
  devices: ReadonlySet<string>;
  /** What disks here lie on, by way of another server, may be what this one serves. */
  below: boolean;
}

export class Service {
  readonly config: ServeConfig;
  readonly map: AddressMap;
  readonly #host: Host;
  readonly #devices = new Map<string, Device>();
  readonly #disks = new Map<string, Served>();
  readonly #servers: Serving[] = [];
  #probe: Probe | undefined;
  #limits: Interposer<'limit'>[] = [];
  #control: ControlServer | undefined;
  #closing: Promise<void> | undefined;
  /** Attaching and detaching, one after the other. */
  #probing: Promise<unknown> = Promise.resolve();

  private constructor(config: ServeConfig, host: Host, map: AddressMap) {
    this.config = config;
    this.#host = host;
    this.map = map;
  }

  /** Opens all of it; where something fails, or `signal` ends the waiting for another server, closes what was opened. */
  static async open(config: ServeConfig, signal?: AbortSignal): Promise<Service> {
    const map = await openMap(config.map);
    const host = await openHost(config.host).catch(async (error: unknown) => {
      await map.close();
      throw error;
    });
    const service = new Service(config, host, map);
    try {
      await service.#open(signal);
    } catch (error) {
      await service.close().catch(() => {}); // the first failure is the one to tell
      throw error;
    }
    return service;
  }

  async #open(signal: AbortSignal | undefined): Promise<void> {
    const { devices, volumes, disks, exports, probe, control } = this.config;
    const far = Object.entries(devices).filter(([, { uri }]) => uri !== undefined);
    for (const [name, { path, ...device }] of Object.entries(devices)) {
      if (path !== undefined) this.#devices.set(name, await this.#host.openDevice({ name, path, ...device }));
    }
    // Before anything is read or written.
    if (probe) await this.attachProbe(probe);
    // What is another NBD server's may lie on devices that this one serves.
    const below = exports.filter(
      (each) => far.length > 0 && isOfDevices(each) && each.devices?.every((name) => this.#devices.has(name)),
    );
    for (const each of below) await this.#serve(each, true);
    for (const [name, device] of far) this.#devices.set(name, await openFarDevice(this.#host, name, device, signal));
    const opened = new Map<string, Volume>();
    for (const [name, volume] of Object.entries(volumes)) {
      const of = (volume.devices ?? []).map((each) => this.#devices.get(each) as Device);
      opened.set(name, await openVolume(this.#host, name, volume, of));
    }
    for (const [name, disk] of Object.entries(disks)) {
      const volume = opened.get(disk.volume) as Volume;
      this.#disks.set(name, { disk: await openDisk(volume, name, disk), volume: disk.volume });
    }
    // The control socket first: who sees an export may ask about it.
    if (control) this.#control = await openControlServer(this, control.socket);
    for (const each of exports) if (!below.includes(each)) await this.#serve(each, false);
  }

  async #serve(config: ExportConfig, below: boolean): Promise<void> {
    const { socket, host, port, disks, devices = [], readOnly, shared, tls } = config;
    const served = [
      ...devices.map((name) => this.#devices.get(name) as Device),
      ...(disks ?? []).map((name) => (this.#disks.get(name) as Served).disk),
    ];
    const all = disks === undefined && !isOfDevices(config);
    const common = { exports: all ? ('all' as const) : served, readOnly, shared, map: this.map, ...(tls && { tls }) };
    const server = await this.#host.serveNbd(
      socket === undefined ? { ...common, host: host as string, port } : { ...common, socket },
    );
    this.#servers.push({ server, disks: all ? undefined : new Set(disks), devices: new Set(devices), below });
  }

  /** What the user should know, one sentence each. */
  get notices(): string[] {
    return [...this.#host.notices, ...this.map.notices];
  }

  get controlSocket(): string | undefined {
    return this.config.control?.socket;
  }

  disks(): ServedDisk[] {
    return Array.from(this.#disks, ([name, { disk, volume }]) => ({
      vm: disk.vm,
      name: disk.name,
      size: disk.size,
      blockSize: disk.blockSize,
      volume,
      ...this.#fileOf(name, volume),
      uris: this.#servers
        .filter(({ disks }) => disks === undefined || disks.has(name))
        .map(({ server }) => server.uri(disk)),
    }));
  }

  /** Those that are served past their dispatch tables. */
  devices(): ServedDevice[] {
    return Array.from(this.#devices, ([name, device]) => ({
      name,
      size: device.size,
      uris: this.#servers.filter(({ devices }) => devices.has(name)).map(({ server }) => server.uri(device)),
    })).filter(({ uris }) => uris.length > 0);
  }

  /** Bytes. */
  sizeOfDisk(disk: string): number {
    const found = this.#disks.get(disk);
    if (found) return found.disk.size;
    throw notServed('disk', disk, this.#disks);
  }

  /** Bytes. */
  sizeOfDevice(device: string): number {
    const found = this.#devices.get(device) ?? this.#diskOn(device);
    if (found) return found.size;
    // One of the kernel's, beneath those, which an observer told of.
    const part = partitionOf(device);
    if ((part?.disk ?? device) in this.map.ledger().devices) return part?.length ?? sizeOfBlockDevice(device);
    throw notServed('device', device, this.#devices);
  }

  /** The file that holds a disk, byte for byte: there is one where its volume is of type `kernel`. */
  imageOf(disk: string): string {
    this.sizeOfDisk(disk);
    const { volume } = this.#disks.get(disk) as Served;
    const { file } = this.#fileOf(disk, volume);
    if (file !== undefined) return file;
    const type = this.config.volumes[volume]?.type;
    throw new StratamapError(
      `disk ${disk} is of volume ${volume}, which is of type ${type}: only where the type is kernel is a disk a file, for which file systems can be asked`,
      'ERR_STRATAMAP_UNSUPPORTED',
      { layer: 'verify' },
    );
  }

  #fileOf(disk: string, volume: string): { file?: string } {
    const { type, options } = this.config.volumes[volume] as VolumeConfig;
    return type === 'kernel' ? { file: path.join(String(options.directory), `${disk}.img`) } : {};
  }

  /** The disk that has a device of its own, of that name. */
  #diskOn(device: string): Disk | undefined {
    for (const { disk } of this.#disks.values()) if (disk.devices.includes(device)) return disk;
    return undefined;
  }

  get probe(): Probe | undefined {
    return this.#probe;
  }

  /** Attaches a probe to all devices and disks, and puts the limits in; what is not given is as configured. */
  attachProbe(request: ProbeRequest): Promise<void> {
    return this.#inTurn(async () => {
      if (this.#probe) {
        throw new StratamapError('a probe is attached already: detach it first', 'ERR_STRATAMAP_BUSY', {
          layer: 'probe',
        });
      }
      const probe = await this.#host.attachProbe({ ...this.config.probe, ...request, map: this.map });
      this.#probe = probe;
      try {
        for (const { limit } of this.config.policies) {
          this.#limits.push(await this.#host.interpose({ type: 'limit', probe, ...limit }));
        }
      } catch (error) {
        await this.#takeOut();
        throw error;
      }
    });
  }

  /** Everything in the map is stale then. False: something was left inside, which passes everything through. */
  detachProbe(): Promise<boolean> {
    return this.#inTurn(async () => {
      if (this.#probe) return this.#takeOut();
      throw new StratamapError('no probe is attached: attach one first', 'ENOENT', { layer: 'probe' });
    });
  }

  async #takeOut(): Promise<boolean> {
    await this.#takeLimitsOut();
    const probe = this.#probe;
    this.#probe = undefined;
    return (await probe?.detach()) ?? true;
  }

  async #takeLimitsOut(): Promise<void> {
    for (const limit of this.#limits.splice(0)) await limit.detach();
  }

  #inTurn<T>(what: () => Promise<T>): Promise<T> {
    const result = this.#probing.then(what);
    this.#probing = result.catch(() => {});
    return result;
  }

  /**
   * Takes no more clients, answers what was asked, makes everything durable, and closes it. Rejects with the first
   * failure, after it has done the rest. A second call is the same as the first.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    const failures: unknown[] = [];
    const each = (all: Promise<unknown>[]) =>
      Promise.all(all.map((one) => one.catch((error: unknown) => failures.push(error))));
    // What they hold back goes on at once: else clients would wait for it in vain.
    await each([this.#inTurn(() => this.#takeLimitsOut())]);
    const serversOf = (below: boolean) =>
      this.#servers.filter((each) => each.below === below).map(({ server }) => server.close());
    await each([...serversOf(false), ...(this.#control ? [this.#control.close()] : [])]);
    await this.#probing;
    const writable = [...this.#disks.values()].map(({ disk }) => disk).filter((disk) => !this.#isReadOnly(disk));
    await each(writable.map((disk) => disk.flush()));
    await each(serversOf(true)); // what was flushed passed through them
    await each([this.#host.close()]);
    await each([this.map.close()]);
    if (failures.length > 0) throw failures[0];
  }

  #isReadOnly({ vm, name }: Disk): boolean {
    const volume = this.#disks.get(`${vm}/${name}`)?.volume ?? '';
    return (this.config.volumes[volume]?.devices ?? []).some((device) => this.config.devices[device]?.readOnly);
  }
}

/** Whether a server is for devices alone. */
function isOfDevices({ disks, devices }: ExportConfig): boolean {
  return disks === undefined && devices !== undefined;
}

function notServed(what: string, name: string, known: Map<string, unknown>): StratamapError {
  const names = [...known.keys()].join(', ') || 'there is none';
  return new StratamapError(`there is no ${what} ${JSON.stringify(name)} here: use one of ${names}`, 'ENOENT', {
    layer: what,
  });
}
