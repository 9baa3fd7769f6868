// Other programs' I/O, without a tag, in a file system of a stack.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { onTestFinished } from 'vitest';
import { MiB, pattern } from '../../support/stack.js';
import { ENVIRONMENT } from './run.js';

/** What makes it: fio, which the kernel ends with the process that began it. */
export const NOISE_PROGRAMS = ['fio', 'setpriv'];

export interface NoiseOptions {
  /** Past the page cache. Default true. */
  direct?: boolean;
  /** Of its file, bytes. Default 16 MiB. */
  bytes?: number;
}

export interface Noise {
  /** Ends it; resolves to how many I/Os it has made. */
  stop(): Promise<number>;
}

/** Bytes that a process has read and written, by system calls; more than fio does to begin. */
function transferred(pid: number): number {
  try {
    const [read = 0, written = 0] = readFileSync(`/proc/${pid}/io`, 'utf8').match(/\d+/g)?.map(Number) ?? [];
    return read + written;
  } catch {
    return 0; // it has ended, as its exit is about to tell
  }
}
const BEGUN = 2 * MiB;

/** Random reads and writes of 4 to 64 KiB, on a file of its own in `directory`; resolves when it has begun. */
export async function startNoise(
  directory: string,
  { direct = true, bytes = 16 * MiB }: NoiseOptions = {},
): Promise<Noise> {
  const file = path.join(directory, 'noise');
  writeFileSync(file, pattern(bytes));
  const child = spawn(
    'setpriv',
    [
      ...['--pdeathsig', 'KILL', 'fio', '--name=noise', '--thread', '--output-format=json', '--eta=never'],
      ...[`--filename=${file}`, `--size=${bytes}`, '--rw=randrw', '--bsrange=4k-64k', '--ioengine=psync'],
      ...[`--direct=${direct ? 1 : 0}`, '--numjobs=2', '--group_reporting', '--time_based', '--runtime=1h'],
      ...['--thinktime=200us', '--norandommap', '--randrepeat=0'],
    ],
    { env: ENVIRONMENT, stdio: ['ignore', 'pipe', 'pipe'] },
  );
  let [printed, said] = ['', ''];
  child.stdout.on('data', (data) => {
    printed += data;
  });
  child.stderr.on('data', (data) => {
    said += data;
  });
  const ended = once(child, 'close');
  const running = () => child.exitCode === null && child.signalCode === null;
  onTestFinished(async () => {
    if (running()) child.kill('SIGKILL');
    await ended;
  });
  while (running() && transferred(child.pid as number) < BEGUN) await sleep(10);
  if (!running()) throw new Error(`fio ended at once: ${said || printed}`);
  return {
    async stop() {
      child.kill('SIGINT');
      await ended;
      const [job] = JSON.parse(printed.slice(printed.indexOf('{'))).jobs;
      return job.read.total_ios + job.write.total_ios;
    },
  };
}
