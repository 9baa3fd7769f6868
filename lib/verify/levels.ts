// What lies beneath a file: its file system's device; where that is a loop device, the file behind it; and so on.
import { open, readFile, realpath, stat } from 'node:fs/promises';
import path from 'node:path';
import { StratamapError } from '../errors.js';

/** A file, and the device that its file system is on. */
export interface Level {
  file: string;
  /** ext4, xfs, btrfs, … */
  fileSystem: string;
  /** The whole device: of a partition, the disk that it is a part of. `/dev/loop9` */
  device: string;
  /** Where on that the file system begins, bytes. */
  start: number;
  /** Where in the file the device above begins, bytes; 0 for the topmost file. */
  base: number;
}

const SECTOR = 512; // bytes: the unit of what sysfs tells of partitions
const DEEPEST = 16;
/** What of a path of sysfs, or in a file there, stands for a slash in a device's name. */
const SLASH = /!/g;

/**
 * The levels beneath a file, the topmost first. They end at a device that is no loop device, or whose file cannot be
 * found. `ENOTBLK` where the file itself is on no block device.
 */
export async function levelsBeneath(file: string): Promise<Level[]> {
  const levels: Level[] = [];
  for (let next: { file: string; base: number } | undefined = { file, base: 0 }; next && levels.length < DEEPEST; ) {
    const level = await levelOf(next.file, next.base, levels.length > 0);
    if (level === undefined) break;
    levels.push(level);
    next = await backingOf(level.device);
  }
  return levels;
}

async function levelOf(file: string, base: number, optional: boolean): Promise<Level | undefined> {
  try {
    const { fileSystem, source, dev } = await mountOf(file);
    const found = await diskOf(fileSystem === 'btrfs' ? (await stat(source, { bigint: true })).rdev : dev);
    if (found) return { file, fileSystem, base, ...found };
    if (optional) return undefined;
    throw new StratamapError(
      `${file} is on ${fileSystem} (${source}), and so on no block device: verify takes a file of a file system that a block device holds, as ext4 or xfs`,
      'ENOTBLK',
      { layer: 'verify' },
    );
  } catch (error) {
    if (error instanceof StratamapError) throw error;
    if (optional) return undefined;
    const { message, code = 'EIO', errno } = error as NodeJS.ErrnoException;
    throw new StratamapError(`what lies beneath ${file} cannot be found: ${message}`, code, { layer: 'verify', errno });
  }
}

interface Mount {
  fileSystem: string;
  /** What was mounted. */
  source: string;
  /** The file's st_dev. */
  dev: bigint;
}

/** By the id that the kernel gives the mount of an open file: no path has to be taken apart. */
async function mountOf(file: string): Promise<Mount> {
  const handle = await open(file, 'r');
  try {
    const info = await readFile(`/proc/self/fdinfo/${handle.fd}`, 'utf8');
    const id = /^mnt_id:\s*(\d+)$/m.exec(info)?.[1];
    const mounts = (await readFile('/proc/self/mountinfo', 'utf8')).split('\n');
    const [fileSystem = 'unknown', source = ''] = mountFields(mounts.find((line) => line.startsWith(`${id} `)) ?? '');
    return { fileSystem, source, dev: (await handle.stat({ bigint: true })).dev };
  } finally {
    await handle.close();
  }
}

/** Type and source of a line of mountinfo: what stands behind the lone dash. */
export function mountFields(line: string): string[] {
  const [, behind = ''] = line.split(' - ');
  return behind
    .split(' ')
    .slice(0, 2)
    .map((field) =>
      field.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8))),
    );
}

const majorOf = (dev: bigint) => ((dev >> 8n) & 0xfffn) | ((dev >> 32n) & ~0xfffn);
const minorOf = (dev: bigint) => (dev & 0xffn) | ((dev >> 12n) & ~0xffn);

/** Of a block device, the whole disk and where on it the device begins; undefined where it is none. */
async function diskOf(dev: bigint): Promise<{ device: string; start: number } | undefined> {
  const folder = await realpath(`/sys/dev/block/${majorOf(dev)}:${minorOf(dev)}`).catch(() => undefined);
  if (folder === undefined) return undefined;
  const partition = await textOf(`${folder}/partition`);
  const name = path.basename(partition === undefined ? folder : path.dirname(folder));
  const start = partition === undefined ? 0 : Number(await textOf(`${folder}/start`)) * SECTOR;
  return { device: `/dev/${name.replace(SLASH, '/')}`, start };
}

/** The file behind a loop device, and where in it the device begins. */
async function backingOf(device: string): Promise<{ file: string; base: number } | undefined> {
  const folder = `/sys/block/${device.slice('/dev/'.length).replaceAll('/', '!')}/loop`;
  const file = await textOf(`${folder}/backing_file`);
  return file === undefined ? undefined : { file, base: Number(await textOf(`${folder}/offset`)) };
}

async function textOf(file: string): Promise<string | undefined> {
  try {
    return (await readFile(file, 'utf8')).replace(/\n$/, '');
  } catch {
    return undefined;
  }
}
