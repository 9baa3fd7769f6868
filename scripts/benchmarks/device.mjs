// The whole path on a loop device over memory (without root: on a file there), beside fio's io_uring engine on the same
// device, with registered files and buffers. The virtual disk is one of an `extent` volume, all of it written before.
import { appendFileSync, truncateSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { attachLoop, openHost, openMap, runWorkload } from 'stratamap';
import { emptyFile, folderInMemory, isInstalled, machineCpu, options, ownCpu, Report, runFio } from './harness.mjs';

const MiB = 2 ** 20;
const DISK = 256 * MiB;
const { quick, only, json } = options();
const seconds = quick ? 0.2 : 1;
const report = new Report('device', quick ? 2 : 7, only);

const folder = folderInMemory();
const root = process.geteuid() === 0;
// All of both is there before anything is measured: a hole is read, and written to, in another way.
async function device(name, bytes) {
  const file = emptyFile(folder, name, bytes);
  truncateSync(file, 0);
  const part = Buffer.alloc(MiB, 1);
  for (let at = 0; at < bytes; at += MiB) appendFileSync(file, part);
  if (!root) return { path: file, detach() {} };
  const loop = await attachLoop(file, { directIo: true, autoclear: true });
  writeFileSync(`/sys/block/${path.basename(loop.path)}/queue/scheduler`, 'none'); // what another left there stays
  return loop;
}
const ours = await device('ours', 2 * DISK);
const theirs = await device('theirs', DISK);
if (!root) console.log('without root there are no loop devices: on files');

const host = await openHost();
const opened = await host.openDevice({ name: 'd0', path: ours.path });
await host.formatVolume({ type: 'extent', devices: [opened] });
const volume = await host.openVolume({ name: 'v0', type: 'extent', devices: [opened] });
const disk = await volume.createDisk({ vm: 'vm', name: 'disk', size: DISK });
const fill = { pattern: 'write', blockSize: MiB, operations: DISK / MiB };
await runWorkload(disk, fill);

function fio(pattern, depth) {
  const busy = machineCpu();
  const { operations, ns, cpu } = runFio(pattern, seconds, {
    filename: theirs.path,
    size: DISK,
    direct: 1,
    ioengine: 'io_uring',
    registerfiles: 1,
    fixedbufs: 1,
    iodepth: depth,
    iodepth_batch_submit: Math.ceil(depth / 2),
    iodepth_batch_complete_min: 1,
    iodepth_batch_complete_max: depth,
  });
  return {
    IOPS: (operations / ns) * 1e9,
    'CPU of the process': cpu / operations,
    'CPU of the machine': (machineCpu() - busy) / operations,
  };
}

async function stratamap(pattern, queueDepth, seed) {
  // From rest, as fio's process: at depth 1 the kernel's scheduler goes on as it began for seconds, with all on one CPU,
  // or with wake-ups between two of them, which takes three times as long.
  await delay(200);
  const busy = machineCpu();
  const own = ownCpu();
  const { operations, elapsed } = await runWorkload(disk, { pattern, queueDepth, seconds, seed: seed + 1 });
  return {
    IOPS: (operations / elapsed) * 1e9,
    'CPU of the process': (ownCpu() - own) / operations,
    'CPU of the machine': (machineCpu() - busy) / operations,
  };
}

async function probed(pattern, depth, seed) {
  const map = await openMap();
  const probe = await host.attachProbe({ map, association: 'serial', correlation: 'descend' });
  await runWorkload(disk, { ...fill });
  let events = 0;
  const drained = (async () => {
    for await (const batch of probe.completions()) for (const each of batch) events += each.length > 0 ? 1 : 0;
  })();
  const result = await stratamap(pattern, depth, seed);
  await probe.detach();
  await drained;
  if (events === 0) throw new Error('no completion event came');
  return result;
}

const hasFio = isInstalled('fio');
if (!hasFio) report.skip('fio', 'apt-get install fio');
const measures = [
  { name: 'IOPS', unit: 'IOPS' },
  { name: 'CPU of the process', unit: 'ns an I/O' },
  { name: 'CPU of the machine', unit: 'ns an I/O' },
];
for (const pattern of ['randread', 'randwrite']) {
  for (const depth of [1, 32, 128]) {
    const name = `${pattern}, depth ${depth}`;
    const without = { name: 'stratamap', round: (round) => stratamap(pattern, depth, round) };
    const goals = {
      IOPS: { ratio: 'least', is: 0.98, quantile: 0.25 },
      'CPU of the process': { ratio: 'most', is: 0.7 },
    };
    if (hasFio) {
      const contenders = [
        { name: 'fio', round: () => fio(pattern, depth) },
        { ...without, goals },
      ];
      await report.run({ name: `${name}, against fio`, measures, contenders });
    }
    const probe = {
      name: 'with probe, events taken',
      round: (round) => probed(pattern, depth, round),
      goals: { IOPS: { ratio: 'least', is: 0.97 } },
    };
    await report.run({ name: `${name}, probe`, measures, contenders: [without, probe] });
  }
}
await host.close();
await ours.detach();
await theirs.detach();
report.write(json);
