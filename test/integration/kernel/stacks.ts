// Real stacks of the kernel: a file system on a loop device, whose file lies on a second file system on a second loop
// device, whose file is in memory. All of it goes away with the test that made it.
import { spawnSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  ftruncateSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { attachLoop } from 'stratamap';
import { onTestFinished, type TestAPI } from 'vitest';
import { absentFileSystem, absentProgram, noLoop, type Reason, unless } from '../../support/machine.js';
import { MiB } from '../../support/stack.js';
import { allocateInPieces } from './fragments.js';
import { run } from './run.js';
import { Undo } from './undo.js';

export interface FileSystem {
  type: 'ext4' | 'xfs' | 'btrfs';
  /** Of mkfs. */
  make: string[];
  /** Of mount. */
  options: string[];
}

const ext4 = (block: number): FileSystem => ({
  type: 'ext4',
  // Inode tables are written now: lazy initialisation would be I/O of the kernel's own in the middle of a test.
  make: ['-q', '-F', '-m', '0', '-b', `${block}`, '-E', 'lazy_itable_init=0,lazy_journal_init=0'],
  options: [],
});
const xfs: FileSystem = { type: 'xfs', make: ['-q', '-f', '-m', 'reflink=1'], options: [] };
const btrfs = (...options: string[]): FileSystem => ({ type: 'btrfs', make: ['-q', '-f'], options });

export const FILE_SYSTEMS = {
  'ext4 1k': ext4(1024),
  'ext4 2k': ext4(2048),
  'ext4 4k': ext4(4096),
  xfs,
  'btrfs nodatacow': btrfs('nodatacow'),
  'btrfs checksums': btrfs('datacow', 'datasum'),
  'btrfs compressed': btrfs('compress-force=zstd'),
} satisfies Record<string, FileSystem>;
export type FileSystemName = keyof typeof FILE_SYSTEMS;

const ALWAYS = ['sh', 'python3', 'losetup', 'mount', 'umount', 'mountpoint', 'filefrag'];

/** Why stacks of these file systems cannot be made, or not with these programs. */
export function lacksStacks(fileSystems: FileSystemName[], ...programs: string[]): Reason {
  const types = [...new Set(fileSystems.map((name) => FILE_SYSTEMS[name].type))];
  const made = types.map((type) => `mkfs.${type}`);
  return noLoop ?? absentFileSystem(...types) ?? absentProgram(...ALWAYS, ...made, ...programs);
}

/** `test`, or `test.skip` and that, printed. */
export const needsStacks = (what: string, fileSystems: FileSystemName[], ...programs: string[]): TestAPI =>
  unless(what, lacksStacks(fileSystems, ...programs));

export interface StackOptions {
  upper: FileSystemName;
  /** Default `ext4 4k`. */
  lower?: FileSystemName;
  /** Of the upper file system, bytes. Default 512 MiB. */
  bytes?: number;
  /** Whether the upper loop device goes past the lower file system's page cache. Default true. */
  direct?: boolean;
}

/** A file system on a loop device. */
export interface Mounted {
  /** Where it is mounted. */
  directory: string;
  /** `/dev/loop9` */
  device: string;
  type: FileSystem['type'];
}

export interface KernelStack {
  upper: Mounted;
  lower: Mounted;
  /** Undoes more, before the rest: a command. */
  undo(...command: string[]): void;
}

/** Where files are in memory. */
export const memory = (): string => process.env.SM_MEMORY ?? (existsSync('/dev/shm') ? '/dev/shm' : tmpdir());

export async function openKernelStack({
  upper,
  lower = 'ext4 4k',
  bytes = 512 * MiB,
  direct = true,
}: StackOptions): Promise<KernelStack> {
  const undo = new Undo();
  onTestFinished(() => undo.run());
  const folder = mkdtempSync(path.join(tmpdir(), 'stratamap-kernel-'));
  undo.add('rm', '-rf', '--one-file-system', folder);
  const below = mkdtempSync(path.join(memory(), 'stratamap-kernel-'));
  undo.add('rm', '-rf', below);
  const base = path.join(below, 'lowest.img');
  makeSparse(base, 2.5 * bytes);
  const lowest = await mounted(undo, lower, base, path.join(folder, 'lower'), true);
  const image = path.join(lowest.directory, 'upper.img');
  await allocateInPieces(image, { bytes, longest: MiB / 4 });
  const top = await mounted(undo, upper, image, path.join(folder, 'upper'), direct);
  return { upper: top, lower: lowest, undo: (...command) => undo.add(...command) };
}

/** A loop device on a file, a file system on that, mounted at `directory`. */
async function mounted(
  undo: Undo,
  name: FileSystemName,
  file: string,
  directory: string,
  directIo: boolean,
): Promise<Mounted> {
  const { type, make, options } = FILE_SYSTEMS[name];
  const { path: device } = await attachLoop(file, { directIo });
  const backing = `/sys/block/${path.basename(device)}/loop/backing_file`;
  undo.add('sh', '-c', `losetup -d ${device} && ! [ -e ${backing} ]`);
  await run(`mkfs.${type}`, ...make, device);
  mkdirSync(directory);
  await run('mount', '-t', type, ...(options.length > 0 ? ['-o', options.join()] : []), device, directory);
  undo.add('sh', '-c', `umount '${directory}' || ! mountpoint -q '${directory}'`);
  return { directory, device, type };
}

export function makeSparse(file: string, bytes: number): void {
  const fd = openSync(file, 'wx');
  ftruncateSync(fd, bytes);
  closeSync(fd);
}

const queueOf = (device: string, name: string) => `/sys/block/${path.basename(device)}/queue/${name}`;

/** The schedulers that a device can have. */
export const schedulersOf = (device: string): string[] =>
  readFileSync(queueOf(device, 'scheduler'), 'utf8').trim().replace(/[[\]]/g, '').split(' ');

/** Sets `scheduler` or `max_sectors_kb` of a device until the test ends: a loop device is used again by others. */
export function setQueue(
  stack: KernelStack,
  device: string,
  name: 'scheduler' | 'max_sectors_kb',
  value: string,
): void {
  const file = queueOf(device, name);
  const before = readFileSync(file, 'utf8').trim();
  const old = /\[(\S+)\]/.exec(before)?.[1] ?? before;
  stack.undo('sh', '-c', `echo ${old} > ${file}`);
  writeFileSync(file, value);
}

/** Which of the schedulers the kernel has not, and no module for it. */
export function lacksScheduler(...names: string[]): Reason {
  if (noLoop || !existsSync(queueOf('/dev/loop0', 'scheduler'))) return noLoop ?? 'there is no /dev/loop0';
  const known = () => schedulersOf('/dev/loop0');
  const absent = names.find((name) => {
    if (!known().includes(name)) spawnSync('modprobe', [`${name}-iosched`]);
    return !known().includes(name);
  });
  return absent === undefined ? undefined : `it needs the I/O scheduler ${absent}, which the kernel has not`;
}
