// The demo, from the first loop device to the last e2fsck. Prints nothing: see report.ts.
import { existsSync, mkdtempSync, rmSync, statfsSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Progress, Timing } from '../progress.js';
import { formatBytes } from '../size.js';
import { Cleanup } from './cleanup.js';
import { checkExt4, type Ext4Image, makeExt4 } from './ext4.js';
import { readBack, rewrite, writeNew } from './image_io.js';
import { KeptImage } from './kept.js';
import { copyDevice, type DeviceCopy, type ProofResult, prove } from './proof.js';
import { Random } from './random.js';
import { scatterOf } from './scatter.js';
import { isMapped, type Snapshot, snapshot } from './snapshot.js';
import { CHUNK, DISK_NAME, deviceSize, openStack, type Stack, VMS, type VolumeKind } from './stack.js';
import { requestCount, runRandomWorkload, type WorkloadResult } from './workload.js';

export interface DemoOptions {
  volume: VolumeKind;
  /** Bytes of each disk. */
  size: number;
  seed: number;
  /** Plain files even where loop devices could be had. */
  files: boolean;
  /** Where the temporary folder is made. */
  folder: string;
  /** Leave the temporary folder. */
  keep: boolean;
}

export interface DiskResult {
  vm: string;
  name: string;
  size: number;
  image: Omit<Ext4Image, 'file'>;
  workload: WorkloadResult;
  /** Bytes that are not zeroes, written and not since discarded; and those of them that are mapped. */
  written: number;
  mapped: number;
  extents: number;
  fsck: 'clean' | 'not clean';
}

export interface DeviceResult {
  name: string;
  path: string;
  size: number;
  driver: string;
  /** Whether dd read it with O_DIRECT. */
  direct: boolean;
}

export interface DemoResult {
  options: DemoOptions;
  whyFiles: string;
  notices: string[];
  devices: DeviceResult[];
  disks: DiskResult[];
  snapshot: Snapshot;
  proof: ProofResult['proof'];
  /** Extents for whose places owners() is wrong. */
  misnamed: number;
  scatter: { neighbours: number; apart: number; share: number };
  timings: Timing[];
  /** What is wrong. Empty: the demo has proven what it shows. */
  failures: string[];
  /** The folder that --keep has left. */
  kept: string | undefined;
}

const LEAST_SCATTER = 0.9;
const LEARNING_DEADLINE = 10_000; // ms

export async function runDemo(options: DemoOptions, progress: Progress, signal: AbortSignal): Promise<DemoResult> {
  if (!existsSync(options.folder))
    throw new Error(`there is no folder ${options.folder}: make it, or give another --folder`);
  checkSpace(options);
  const cleanup = new Cleanup();
  const folder = mkdtempSync(path.join(options.folder, 'stratamap-demo-'));
  if (!options.keep) cleanup.add(`remove ${folder}`, () => rmSync(folder, { recursive: true, force: true }));
  let result: DemoResult;
  try {
    result = await run(options, folder, progress, signal, cleanup);
  } catch (error) {
    const more = await cleanup.run();
    if (more.length > 0 && error instanceof Error) error.message += `\nAfter that: ${more.join('\n')}`;
    throw error;
  }
  result.failures.push(...(await cleanup.run()));
  if (options.keep) result.kept = folder;
  return result;
}

/** Everything is sparse; this is what it takes where nothing stays sparse. */
function checkSpace({ folder, size }: DemoOptions): void {
  const needed = 4 * deviceSize(size) + 9 * size;
  const { bavail, bsize } = statfsSync(folder);
  if (bavail * bsize >= needed) return;
  throw new Error(
    `the demo may need ${formatBytes(needed)} in ${folder}, where ${formatBytes(bavail * bsize)} are free: ` +
      'give another folder with --folder, or smaller disks with --size',
  );
}

async function run(
  options: DemoOptions,
  folder: string,
  progress: Progress,
  signal: AbortSignal,
  cleanup: Cleanup,
): Promise<DemoResult> {
  const { seed, size } = options;
  const stack = await progress.phase('devices, volume, disks, probe', 1, async () => {
    const opened = await openStack({ ...options, folder }, cleanup);
    await untilLearning(opened, signal);
    return opened;
  });
  const { disks, map } = stack;
  const kept = disks.map((disk) => new KeptImage(path.join(folder, `${disk.vm}.kept`), size));
  for (const image of kept) cleanup.add('close a kept image', () => image.close());

  const images = await progress.phase('ext4 images, written to the disks', 2 * disks.length, async (step) => {
    const made: Ext4Image[] = [];
    for (const [index, { vm }] of disks.entries()) {
      made.push(await makeExt4(folder, vm, index, size, new Random(seed, index), signal));
      step();
    }
    await all(disks, async (disk, index) => {
      await writeNew(disk, made[index]!.file, kept[index]!, signal);
      step();
    });
    return made;
  });

  const requests = disks.length * requestCount(size);
  const workloads = await progress.phase('random writes, discards, reads', requests, (step) =>
    all(disks, (disk, index) => runRandomWorkload(disk, index, kept[index]!, seed, signal, step)),
  );
  await progress.phase('flush', 1, () => all(disks, (disk) => disk.flush()));

  const taken = snapshot(map, disks);
  const copies = new Map<string, DeviceCopy>();
  const direct = await progress.phase('devices read by dd', stack.backings.length, async (step) => {
    const how: boolean[] = [];
    for (const backing of stack.backings) {
      const copied = await copyDevice(backing, folder, signal);
      cleanup.add(`close the copy of ${backing.name}`, () => copied.copy.close());
      copies.set(backing.name, copied.copy);
      how.push(copied.direct);
      step();
    }
    return how;
  });
  const proven = await progress.phase('proof', disks.length, (step) =>
    prove(taken, disks, kept, copies, map, signal, step),
  );

  const failures: string[] = [];
  for (const [index, { firstDifference }] of workloads.entries()) {
    if (firstDifference < 0) continue;
    failures.push(`${VMS[index]}/${DISK_NAME}: a read gave other bytes than were written, first at ${firstDifference}`);
  }
  failures.push(...proven.failures);

  const checked = await progress.phase('ext4 rewritten, read back, e2fsck', disks.length, (step) =>
    all(disks, async (disk, index) => {
      const found = await restore(disk, images[index]!.file, path.join(folder, `${disk.vm}.back`), signal);
      if (found) failures.push(`${disk.vm}/${disk.name}, rewritten and read back: ${found}`);
      step();
      return found === '';
    }),
  );

  const scatter = scatterOfAll(taken);
  if (scatter.share < LEAST_SCATTER) {
    failures.push(
      `the volume does not scatter: only ${scatter.apart} of ${scatter.neighbours} neighbouring chunks are apart`,
    );
  }
  return {
    options,
    whyFiles: stack.whyFiles,
    notices: stack.host.notices,
    devices: stack.backings.map((backing, index) => ({
      ...backing,
      driver: stack.devices[index]!.driver,
      direct: direct[index]!,
    })),
    disks: disks.map(({ vm, name }, index) => {
      const { file: _, ...image } = images[index]!;
      return {
        vm,
        name,
        size,
        image,
        workload: workloads[index]!,
        written: proven.written[index]!,
        mapped: proven.mapped[index]!,
        extents: taken.extents[index]!.filter(isMapped).length,
        fsck: checked[index] ? 'clean' : 'not clean',
      };
    }),
    snapshot: taken,
    proof: proven.proof,
    misnamed: proven.misnamed,
    scatter,
    timings: progress.timings,
    failures,
    kept: undefined,
  };
}

/** Runs `work` for every item at once. Rejects with the first failure, when all have ended. */
async function all<T, R>(items: readonly T[], work: (item: T, index: number) => Promise<R>): Promise<R[]> {
  const results = await Promise.allSettled(items.map(work));
  return results.map((result) => {
    if (result.status === 'rejected') throw result.reason;
    return result.value;
  });
}

/** What is written before teaches nothing. */
async function untilLearning({ probe }: Stack, signal: AbortSignal): Promise<void> {
  for (const deadline = performance.now() + LEARNING_DEADLINE; !probe.learning; await sleep(1)) {
    signal.throwIfAborted();
    if (performance.now() > deadline) throw new Error('the probe does not begin to learn: some I/O does not end');
  }
}

/** What is wrong with a disk after its image has been written over it; empty: nothing. */
async function restore(disk: Stack['disks'][number], image: string, back: string, signal: AbortSignal) {
  await rewrite(disk, image, signal);
  await disk.flush();
  const differing = await readBack(disk, image, back, signal);
  if (differing > 0) return `${differing} bytes are not those of the image`;
  return checkExt4(back, signal);
}

function scatterOfAll({ extents }: Snapshot): DemoResult['scatter'] {
  const sum = { neighbours: 0, apart: 0 };
  for (const list of extents) {
    const { neighbours, apart } = scatterOf(list.filter(isMapped), CHUNK);
    sum.neighbours += neighbours;
    sum.apart += apart;
  }
  return { ...sum, share: sum.neighbours === 0 ? 0 : sum.apart / sum.neighbours };
}
