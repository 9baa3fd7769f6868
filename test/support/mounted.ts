// A file system on a loop device, mounted for one test.
import { execFile } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { attachLoop } from 'stratamap';
import { onTestFinished } from 'vitest';
import { tmpFile } from './files.js';

const run = promisify(execFile);

export interface Mounted {
  /** Where it is mounted. */
  path: string;
  /** The loop device. */
  device: string;
}

/** ext4 of `bytes`; unmounted and detached when the running test ends. */
export async function mountExt4(bytes: number): Promise<Mounted> {
  const file = tmpFile(bytes, 'ext4.img');
  const loop = await attachLoop(file);
  onTestFinished(() => loop.detach());
  await run('mkfs.ext4', ['-q', '-F', loop.path]);
  const point = path.join(path.dirname(file), 'mnt');
  mkdirSync(point);
  await run('mount', ['-t', 'ext4', loop.path, point]);
  onTestFinished(() => unmount(point));
  return { path: point, device: loop.path };
}

/** The kernel lets go of what a killed process had in a ring some time after it has ended. */
async function unmount(point: string): Promise<void> {
  for (let attempts = 500; ; --attempts) {
    try {
      await run('umount', [point]);
      return;
    } catch (error) {
      if (attempts === 0) throw error;
    }
    await sleep(20);
  }
}
