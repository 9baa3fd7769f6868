// Devices of other servers, volumes and disks as the configuration has them: opened, or made where it says so and there are none.
import { open } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Device } from '../device.js';
import type { Disk } from '../disk.js';
import { StratamapError } from '../errors.js';
import type { Host } from '../host.js';
import type { Volume } from '../volume.js';
import type { DeviceConfig, DiskConfig, VolumeConfig } from './config.js';

const FIRST = 4096; // bytes: where a volume that there is, whole or damaged, has its superblock

/**
 * With `create`, formats devices that are empty: that hold no volume, have nothing but zeroes in their first block, and no
 * signature of anything else. A volume that is damaged, or another's, is never formatted.
 */
export async function openVolume(host: Host, name: string, config: VolumeConfig, devices: Device[]): Promise<Volume> {
  const { type, options, create } = config;
  try {
    return await host.openVolume({ name, type, devices, options });
  } catch (error) {
    if (!create || (error as { code?: string }).code !== 'EMEDIUMTYPE') throw error;
    for (const device of devices) {
      if (await isEmpty(device)) continue;
      throw new StratamapError(
        `${(error as Error).message}. It is not formatted although create is true, for its first ${FIRST} bytes are not all zero: wipe it yourself (wipefs, blkdiscard -z) if nothing on it is needed`,
        'ERR_STRATAMAP_SIGNATURE',
        { layer: 'volume', device: device.name },
      );
    }
  }
  await host.formatVolume({ type, devices, options });
  return host.openVolume({ name, type, devices, options });
}

async function isEmpty({ path }: Device): Promise<boolean> {
  const file = await open(path, 'r');
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(FIRST), 0, FIRST, 0);
    return buffer.subarray(0, bytesRead).every((byte) => byte === 0);
  } finally {
    await file.close();
  }
}

const ABSENT = ['ENOENT', 'ECONNREFUSED']; // there is no socket, or nobody listens on it
const AGAIN = 100; // ms

/** What an NBD server serves, as soon as it does. Rejects with the signal's reason when that ends the waiting. */
export async function openFarDevice(
  host: Host,
  name: string,
  { uri, wait = 10, readOnly }: DeviceConfig,
  signal: AbortSignal | undefined,
): Promise<Device> {
  const until = performance.now() + 1000 * wait;
  for (;;) {
    try {
      return await host.openDevice({ name, driver: 'nbd', uri: uri as string, readOnly });
    } catch (error) {
      if (!ABSENT.includes((error as { code?: string }).code ?? '') || performance.now() >= until) throw error;
    }
    await sleep(AGAIN, undefined, { signal });
  }
}

/** `disk` is VM/DISK. */
export async function openDisk(volume: Volume, disk: string, { size, create }: DiskConfig): Promise<Disk> {
  const [vm, name] = disk.split('/') as [string, string];
  const found = (await volume.listDisks()).find((each) => each.vm === vm && each.name === name);
  if (found === undefined && create) return volume.createDisk({ vm, name, size: size as number });
  if (found === undefined) {
    const message = `volume ${volume.name} has no disk ${disk}: correct the name, or let it be made by create: true and its size`;
    throw new StratamapError(message, 'ENOENT', { layer: 'disk', vm, disk: name });
  }
  if (size !== undefined && size !== found.size) {
    const message = `disk ${disk} has ${found.size} bytes, and the configuration gives it ${size}: write the size that it has, or resize it`;
    throw new StratamapError(message, 'EINVAL', { layer: 'disk', vm, disk: name });
  }
  return volume.openDisk({ vm, name });
}
