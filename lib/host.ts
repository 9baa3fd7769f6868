// Hosts: I/O threads, and what is opened on them.
import * as check from './arguments.js';
import { type Device, type DeviceOptions, openDevice } from './device.js';
import { Handle } from './handle.js';
import { type Interposer, type InterposerType, interpose, type OptionsOf } from './interposer.js';
import { type HostHandle, native } from './native.js';
import { type NbdOptions, type NbdServer, serveNbd } from './nbd.js';
import { attachProbe, type Probe, type ProbeOptions } from './probe.js';
import { type FormatOptions, formatVolume, openVolume, type Volume, type VolumeOptions } from './volume.js';

export interface HostOptions {
  /** I/O threads. Default 1. */
  threads?: number | undefined;
  /** Requests that are preallocated for each thread, above and below the volumes together. Default 8192. */
  requests?: number | undefined;
  /** Bytes of buffers for each thread. Default 32 MiB. */
  bufferBytes?: number | undefined;
  /** False: never try io_uring. Default true. */
  uring?: boolean | undefined;
}

class Host extends Handle {
  readonly #handle: HostHandle;

  constructor(handle: HostHandle) {
    super();
    this.#handle = handle;
  }

  /** What the user should know: io_uring refused and why, buffers not registered, … One sentence each. */
  get notices(): string[] {
    return this.closed ? [] : native.hostNotices(this.#handle);
  }

  /** Opens a physical device, exclusively unless `shared`. */
  async openDevice(options: DeviceOptions): Promise<Device> {
    this.use();
    return this.adopt(openDevice(this.#handle, options));
  }

  /** Writes an empty volume's metadata to devices; refuses any signature that it knows, unless `force`. */
  async formatVolume(options: FormatOptions): Promise<void> {
    this.use();
    return formatVolume(this.#handle, options);
  }

  /** Opens what formatVolume wrote; never writes to media that are not its own. */
  async openVolume(options: VolumeOptions): Promise<Volume> {
    this.use();
    return this.adopt(openVolume(this.#handle, options));
  }

  /** Learns the map from all disks and devices of this host, those that are opened later among them. */
  async attachProbe(options: ProbeOptions): Promise<Probe> {
    this.use();
    return this.adopt(attachProbe(this.#handle, options));
  }

  /** Puts a function into the dispatch tables of devices, with I/O in flight. A device takes six, probes among them. */
  async interpose<Type extends InterposerType>(options: OptionsOf<Type>): Promise<Interposer<Type>> {
    this.use();
    return this.adopt(interpose(this.#handle, options));
  }

  /** Serves disks of this host to NBD clients: QEMU, the kernel, libnbd, … An open server keeps the process alive. */
  async serveNbd(options: NbdOptions): Promise<NbdServer> {
    this.use();
    return this.adopt(serveNbd(this.#handle, options));
  }

  protected override describe() {
    return { layer: 'host', what: 'the host' };
  }

  protected override closeNative(): Promise<void> {
    return native.closeHost(this.#handle);
  }
}

export type { Host };

/** Opens a host. An open host does not keep the process alive; I/O in flight does. */
export async function openHost(options: HostOptions = {}): Promise<Host> {
  const { threads = 1, requests = 8192, bufferBytes = 32 * 2 ** 20, uring = true } = check.object(options, 'options');
  check.integer(threads, 'threads', 0, 2 ** 32 - 1);
  check.integer(requests, 'requests', 0, 2 ** 32 - 1);
  check.integer(bufferBytes, 'bufferBytes');
  check.boolean(uring, 'uring');
  return new Host(await native.openHost(threads, requests, bufferBytes, uring));
}
