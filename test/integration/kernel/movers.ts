// What moves a file's data, or takes it away, while it is used: programs that know nothing of us.
import path from 'node:path';
import { run } from './run.js';

/** Programs of each, and what it does to a file. */
export interface Mover {
  programs: string[];
  move(file: string): Promise<void>;
}

/** Into as few extents as there is room for. */
export const defragment: Record<'ext4' | 'xfs', Mover> = {
  ext4: { programs: ['e4defrag'], move: async (file) => void (await run('e4defrag', file)) },
  // -d says which extents it has looked at, and so fails nothing; without it a file that changes is left silently.
  xfs: { programs: ['xfs_fsr'], move: async (file) => void (await run('xfs_fsr', '-v', file)) },
};

/** Takes away a range, which reads as zeroes then; the file keeps its size. */
export const punch = (file: string, offset: number, length: number): Promise<string> =>
  run('fallocate', '--punch-hole', '--offset', `${offset}`, '--length', `${length}`, file);

export const truncate = (file: string, bytes: number): Promise<string> => run('truncate', '-s', `${bytes}`, file);

/** A file that shares its extents with another until one of the two is written to. */
export const reflink = (file: string, copy: string): Promise<string> => run('cp', '--reflink=always', file, copy);

/** Of the whole file system that is mounted at `directory`. */
export const snapshot = (directory: string, name: string): Promise<string> =>
  run('btrfs', 'subvolume', 'snapshot', directory, path.join(directory, name));
