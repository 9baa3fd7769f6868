// Files in pieces: thousands of extents, as a file has that grew beside others for years.
import { closeSync, fsyncSync, openSync, writeSync } from 'node:fs';
import { MiB, pattern } from '../../support/stack.js';
import { run } from './run.js';

/** Allocates two files in turn, a piece each, and then removes the second. */
const ALLOCATE = `
import os, random, sys
file, size, block, most, seed = sys.argv[1], *map(int, sys.argv[2:6])
lots = random.Random(seed)
one = os.open(file, os.O_RDWR | os.O_CREAT)
other = os.open(file + '.other', os.O_RDWR | os.O_CREAT | os.O_EXCL)
os.ftruncate(one, 0)
at = 0
while at < size:
    length = min(lots.randrange(block, most + block, block), size - at)
    os.posix_fallocate(one, at, length)
    os.posix_fallocate(other, at, length)
    at += length
os.fsync(one)
os.close(other)
os.unlink(file + '.other')
`;

export interface FragmentOptions {
  /** Of the file, bytes. */
  bytes: number;
  /** The shortest piece, bytes. Default 4096. */
  shortest?: number;
  /** The longest piece, bytes. Default 32768. */
  longest?: number;
  seed?: number;
}

/** Allocates a file in pieces; what it held before is lost, and it reads as zeroes. */
export async function allocateInPieces(file: string, options: FragmentOptions): Promise<void> {
  const { bytes, shortest = 4096, longest = 32768, seed = 1 } = options;
  await run('python3', '-c', ALLOCATE, file, ...[bytes, shortest, longest, seed].map(String));
}

/** The same, filled with bytes that differ everywhere, which are returned. */
export async function makeFragmented(file: string, options: FragmentOptions): Promise<Buffer> {
  await allocateInPieces(file, options);
  const content = pattern(options.bytes, options.seed);
  const fd = openSync(file, 'r+');
  for (let at = 0; at < content.length; at += MiB) writeSync(fd, content, at, Math.min(MiB, content.length - at), at);
  fsyncSync(fd);
  closeSync(fd);
  return content;
}

/** Overwrites the free blocks of a file system, which are free again then. */
export const overwriteFree = (directory: string): Promise<string> =>
  run(
    'sh',
    '-c',
    `cd '${directory}' && sync -f .
for block in 1M 4k; do
  dd if=/dev/urandom of=full bs=$block oflag=direct,append conv=notrunc status=none 2>&1
done
sync -f . && rm full && sync -f .`,
  );
