// QEMU's own programs around a disk, unmodified: what a test asks of them.
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { onTestFinished } from 'vitest';

const run = promisify(execFile);

export async function qemuImg(...args: string[]): Promise<string> {
  for (let attempts = 20; ; --attempts) {
    try {
      return (await run('qemu-img', args)).stdout;
    } catch (error) {
      // It times LUKS's derivation of keys, and gives up where other processes disturb that.
      if (attempts === 0 || !String(error).includes('accurate CPU usage')) throw error;
    }
  }
}

/** A piece of an image: `offset` is where it lies in the file below; `depth` 0 is the image, 1 what backs it. */
export interface Piece {
  start: number;
  length: number;
  depth: number;
  zero: boolean;
  data: boolean;
  offset?: number;
}

/** What `qemu-img map` says. `image`: as its --image-opts take it, with the objects that it needs. */
export async function imageMap(image: string, objects: string[] = []): Promise<Piece[]> {
  const args = objects.flatMap((each) => ['--object', each]);
  return JSON.parse(await qemuImg('map', '--output=json', ...args, '--image-opts', image));
}

/** An unmodified qemu-storage-daemon, until `stop`, or until the test ends. `socket`: what it listens on. */
export async function storageDaemon(socket: string, args: string[]): Promise<{ stop(): Promise<void> }> {
  const child = spawn('qemu-storage-daemon', args, { stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  child.stderr.on('data', (data) => {
    said += data;
  });
  const ended = once(child, 'exit');
  const stop = async () => {
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGTERM');
    await ended;
  };
  onTestFinished(stop);
  while (!existsSync(socket)) {
    if (child.exitCode !== null) throw new Error(`qemu-storage-daemon ended: ${said}`);
    await sleep(20);
  }
  return { stop };
}
