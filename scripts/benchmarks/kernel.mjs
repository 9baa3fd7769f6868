// What observing the kernel's block layer costs: a `kernel` volume on ext4 on a loop device over memory, without a probe
// and with one of association `hint`, which knows the map already. Needs root.
import { execFileSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { attachLoop, openHost, openMap, runWorkload } from 'stratamap';
import { emptyFile, folderInMemory, machineCpu, options, ownCpu, Report } from './harness.mjs';

const MiB = 2 ** 20;
const DISK = 256 * MiB;
const { quick, only, json } = options();
const seconds = quick ? 0.2 : 1;
const report = new Report('kernel', quick ? 2 : 7, only);
const fill = { pattern: 'write', blockSize: MiB, operations: DISK / MiB };
const measures = [
  { name: 'IOPS', unit: 'IOPS' },
  { name: 'CPU of the process', unit: 'ns an I/O' },
  { name: 'CPU of the machine', unit: 'ns an I/O' },
];

async function measured(disk, load) {
  const busy = machineCpu();
  const own = ownCpu();
  const { operations, elapsed } = await runWorkload(disk, { ...load, seconds });
  return {
    IOPS: (operations / elapsed) * 1e9,
    'CPU of the process': (ownCpu() - own) / operations,
    'CPU of the machine': (machineCpu() - busy) / operations,
  };
}

async function observed(host, disk, load, tagging) {
  const map = await openMap();
  const probe = await host.attachProbe({ map, association: 'hint', tagging });
  while (!probe.learning) await sleep(5);
  await runWorkload(disk, fill);
  const [extent] = map.locate(`${disk.vm}/${disk.name}`, 0, DISK);
  if (extent.state !== 'mapped') throw new Error(`nothing is mapped: ${probe.notices.join('; ')}`);
  const figures = await measured(disk, load);
  await probe.detach();
  return figures;
}

async function bench(directory) {
  const host = await openHost();
  try {
    const volume = await host.openVolume({ name: 'v0', type: 'kernel', options: { directory } });
    const disk = await volume.createDisk({ vm: 'vm', name: 'disk', size: DISK });
    await runWorkload(disk, fill);
    for (const [pattern, blockSize, goal] of [
      ['randread', 4096, 0.95],
      ['randwrite', 4096, 0.95],
      ['read', 65536, 0.97],
      ['write', 65536, 0.97],
    ]) {
      const load = { pattern, blockSize, queueDepth: 32 };
      const goals = { IOPS: { ratio: 'least', is: goal } };
      await report.run({
        name: `${pattern}, ${blockSize / 1024} KiB, depth 32`,
        measures,
        contenders: [
          { name: 'without', round: (round) => measured(disk, { ...load, seed: round + 1 }) },
          {
            name: 'observed, what is unknown tagged',
            round: (round) => observed(host, disk, { ...load, seed: round + 1 }, 'adaptive'),
            goals,
          },
          {
            name: 'observed, everything tagged',
            round: (round) => observed(host, disk, { ...load, seed: round + 1 }, 'always'),
          },
        ],
      });
    }
  } finally {
    await host.close();
  }
}

if (process.geteuid() !== 0) {
  report.skip('kernel', 'run as root: it takes a loop device, a mount and trace events');
} else {
  const folder = folderInMemory();
  const loop = await attachLoop(emptyFile(folder, 'medium', 3 * DISK), { directIo: true });
  const mounted = path.join(folder, 'mounted');
  try {
    execFileSync('mkfs.ext4', ['-q', '-F', '-E', 'lazy_itable_init=0,lazy_journal_init=0', loop.path]);
    mkdirSync(mounted);
    execFileSync('mount', [loop.path, mounted]);
    try {
      await bench(mounted);
    } finally {
      execFileSync('umount', [mounted]);
    }
  } finally {
    await loop.detach();
  }
}
report.write(json);
