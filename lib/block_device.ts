// Block devices by path. The block layer tells of whole disks, people ask for partitions as well.
import { readFileSync, realpathSync } from 'node:fs';
import path from 'node:path';

const SECTOR = 512; // bytes, in sysfs whatever the device's own

/** Bytes of a block device, '/dev/loop9'. */
export function sizeOfBlockDevice(device: string): number {
  return Number(readFileSync(`/sys/class/block/${path.basename(device)}/size`, 'utf8')) * SECTOR;
}

/** Of a partition by its path, '/dev/loop0p1': its disk, and where it begins there, bytes. Of anything else: undefined. */
export function partitionOf(device: string): { disk: string; start: number; length: number } | undefined {
  if (!device.startsWith('/dev/')) return undefined;
  try {
    const folder = realpathSync(`/sys/class/block/${path.basename(realpathSync(device))}`);
    readFileSync(path.join(folder, 'partition'));
    const bytes = (name: string) => Number(readFileSync(path.join(folder, name), 'utf8')) * SECTOR;
    return { disk: `/dev/${path.basename(path.dirname(folder))}`, start: bytes('start'), length: bytes('size') };
  } catch {
    return undefined;
  }
}
