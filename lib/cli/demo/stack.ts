// What the demo runs on: two devices, one volume, three disks, and the probe that watches them.
import { closeSync, ftruncateSync, openSync } from 'node:fs';
import path from 'node:path';
import {
  type AddressMap,
  attachLoop,
  type Device,
  type Disk,
  type Host,
  openHost,
  openMap,
  type Probe,
} from '../../index.js';
import type { Cleanup } from './cleanup.js';

export type VolumeKind = 'extent' | 'stripe';

export const VMS = ['web', 'db', 'mail'] as const;
export const DISK_NAME = 'vda';
/** Bytes: how the volume is told to place disks, an extent or a stripe. */
export const CHUNK = 64 * 1024;

const MIB = 2 ** 20;
const DETACH_TIMEOUT = 10_000; // ms

export interface StackOptions {
  volume: VolumeKind;
  size: number;
  seed: number;
  files: boolean;
  /** For the image files. */
  folder: string;
}

/** One device: `path` is what the host opens and what dd reads. */
export interface Backing {
  name: string;
  path: string;
  size: number;
}

export interface Stack {
  backings: Backing[];
  /** Why the devices are plain files; empty where they are loop devices. */
  whyFiles: string;
  host: Host;
  devices: Device[];
  disks: Disk[];
  map: AddressMap;
  probe: Probe;
}

/** For each of two devices: so that the disks fit whole, with room to move and for metadata. */
export function deviceSize(diskSize: number): number {
  return Math.ceil((diskSize * VMS.length * 1.25) / 2 / MIB) * MIB + 8 * MIB;
}

export async function openStack(options: StackOptions, cleanup: Cleanup): Promise<Stack> {
  const { backings, whyFiles } = await openBackings(options, cleanup);
  const host = await openHost({ threads: 1 });
  cleanup.add('close the host', () => host.close());
  const devices: Device[] = [];
  for (const { name, path } of backings) devices.push(await host.openDevice({ name, path, driver: 'uring' }));
  const type = options.volume;
  const format = type === 'extent' ? { extentSize: CHUNK, seed: options.seed } : { chunkSize: CHUNK };
  await host.formatVolume({ type, devices, options: format });
  const volume = await host.openVolume({ name: type, type, devices });
  const disks: Disk[] = [];
  for (const vm of VMS) disks.push(await volume.createDisk({ vm, name: DISK_NAME, size: options.size }));
  const map = await openMap();
  cleanup.add('close the map', () => map.close());
  const probe = await host.attachProbe({ map, association: 'serial', correlation: 'descend' });
  cleanup.add('detach the probe', async () => {
    if (!(await probe.detach({ timeout: DETACH_TIMEOUT }))) throw new Error('I/O is still inside it');
  });
  return { backings, whyFiles, host, devices, disks, map, probe };
}

async function openBackings(options: StackOptions, cleanup: Cleanup): Promise<Pick<Stack, 'backings' | 'whyFiles'>> {
  const size = deviceSize(options.size);
  const files = ['a', 'b'].map((letter) => makeFile(path.join(options.folder, `${letter}.img`), size));
  const plain = files.map((file) => ({ name: path.basename(file), path: file, size }));
  if (options.files) return { backings: plain, whyFiles: 'asked for by --files' };
  const backings: Backing[] = [];
  for (const file of files) {
    try {
      // Autoclear: the kernel detaches it even if this process is killed.
      const loop = await attachLoop(file, { directIo: true, autoclear: true });
      cleanup.add(`detach ${loop.path}`, () => loop.detach());
      backings.push({ name: path.basename(loop.path), path: loop.path, size });
    } catch (error) {
      // What is attached already is detached at the end; nobody uses it.
      const why = process.geteuid?.() === 0 ? (error as Error).message : 'loop devices need root';
      return { backings: plain, whyFiles: why };
    }
  }
  return { backings, whyFiles: '' };
}

function makeFile(file: string, size: number): string {
  const fd = openSync(file, 'wx');
  ftruncateSync(fd, size);
  closeSync(fd);
  return file;
}
