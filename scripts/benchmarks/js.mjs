// What crosses into JavaScript: completion events, promises, and the time to the first I/O.
import { constants } from 'node:fs';
import { open as openFile } from 'node:fs/promises';
import { attachLoop, openHost, openMap, runWorkload } from 'stratamap';
import { emptyFile, folderInMemory, options, ownCpu, Report } from './harness.mjs';

const MiB = 2 ** 20;
const { quick, only, json } = options();
const report = new Report('js', quick ? 2 : 7, only);
const folder = folderInMemory();
const root = process.geteuid() === 0;
const now = () => Number(process.hrtime.bigint());

async function open(driver) {
  const host = await openHost();
  const file = driver === 'null' ? undefined : emptyFile(folder, 'image', 256 * MiB);
  const loop = file && root ? await attachLoop(file, { directIo: true, autoclear: true }) : undefined;
  const device = await host.openDevice(
    driver === 'null' ? { name: 'd0', driver, size: 256 * MiB } : { name: 'd0', path: loop?.path ?? file },
  );
  await host.formatVolume({ type: 'extent', devices: [device], force: true });
  const volume = await host.openVolume({ name: 'v0', type: 'extent', devices: [device] });
  const disk = await volume.createDisk({ vm: 'vm', name: 'disk', size: 64 * MiB });
  await runWorkload(disk, { pattern: 'write', blockSize: MiB, operations: 64 });
  const close = async () => {
    await host.close();
    await loop?.detach();
  };
  return { host, disk, path: loop?.path ?? file, close };
}

// --- events: from a null device, and taken when they all are there, so that no time is spent in waiting for them
async function events(take) {
  const { host, disk, close } = await open('null');
  const probe = await host.attachProbe({ map: await openMap(), association: 'serial', correlation: 'descend' });
  const operations = quick ? 200_000 : 1_000_000;
  const completions = probe.completions({ bufferBytes: 256 * operations });
  await runWorkload(disk, { pattern: 'randread', operations });
  await probe.detach();
  let count = 0;
  const began = now();
  for await (const batch of completions) count += take(batch);
  const spent = now() - began;
  await close();
  if (count !== operations) throw new Error(`${count} events of ${operations} came`);
  return { events: (count / spent) * 1e9 };
}

let sink = 0;
function byCursor(batch) {
  let count = 0;
  let sum = 0; // on its own: what a closure holds is a new number object each time
  for (const each of batch) {
    sum += each.offset + each.length + each.status + each.submitted + each.firstIssued + each.lastCompleted;
    sum += each.completed + each.vm.length + each.disk.length + each.op.length;
    for (let i = 0; i < each.pieceCount; ++i) {
      const { offset, length, device, diskOffset } = each.piece(i);
      sum += offset + length + device.length + (diskOffset ?? 0);
    }
    count += 1;
  }
  sink += sum;
  return count;
}
const kept = [];
function asObjects(batch) {
  if (kept.length >= 1e6) kept.length = 0;
  const before = kept.length;
  for (const each of batch) kept.push(each.toObject());
  return kept.length - before;
}
await report.run({
  name: 'completion events',
  measures: [{ name: 'events', unit: 'a second' }],
  contenders: [
    {
      name: 'by cursor, every field read',
      round: () => events(byCursor),
      goals: { events: { value: 'least', is: 20e6 } },
    },
    { name: 'as objects, kept', round: () => events(asObjects), goals: { events: { value: 'least', is: 2e6 } } },
  ],
});

// --- promises: reads of 4 KiB at random, 32 at a time, of one device by all; in batches, two of them at a time
const DEPTH = 32;
const SPAN = 64 * MiB;

// O_DIRECT asks for addresses that Node does not tell: those that it takes are found by trying.
async function alignedViews(file) {
  const memory = new Uint8Array((DEPTH + 1) * 4096);
  for (let at = 0; at < 4096; at += 8) {
    const views = Array.from({ length: DEPTH }, (_, i) => memory.subarray(at + i * 4096, at + (i + 1) * 4096));
    const fits = await file.read(views[0], 0, 4096, 0).then(
      () => true,
      () => false,
    );
    if (fits) return views;
  }
  throw new Error('no address was aligned');
}

async function reads(read, views, atOnce = 1) {
  const operations = quick ? 20_000 : 150_000;
  const batches = Array.from({ length: DEPTH / atOnce }, (_, i) =>
    views.slice(i * atOnce, (i + 1) * atOnce).map((view) => ({ op: 'read', offset: 0, view })),
  );
  let left = operations;
  let seed = 1;
  const next = () => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return (seed % (SPAN / 4096)) * 4096;
  };
  const cpu = ownCpu();
  const began = now();
  await Promise.all(
    batches.map(async (batch) => {
      for (; left > 0; left -= atOnce) {
        for (const each of batch) each.offset = next();
        await read(batch);
      }
    }),
  );
  return { IOPS: (operations / (now() - began)) * 1e9, 'CPU of the process': (ownCpu() - cpu) / operations };
}
{
  const { disk, path, close } = await open('uring');
  const submit = async (batch) => {
    for (const error of await disk.submit(batch)) if (error) throw error;
  };
  const buffers = Array.from({ length: DEPTH }, () => Buffer.alloc(4096));
  // As ours, past the page cache (by libuv's four threads: with 16 or 32 of them it gets slower here); and through it,
  // where after the first 64 MiB no device is asked any more.
  // Memory, where the file is without root, takes no O_DIRECT.
  const file = root && (await openFile(path, constants.O_RDONLY | constants.O_DIRECT));
  const aligned = file && (await alignedViews(file));
  const direct = {
    name: 'fs.promises FileHandle.read, O_DIRECT',
    round: () => reads(([{ offset, view }]) => file.read(view, 0, 4096, offset), aligned),
  };
  const cached = await openFile(path, constants.O_RDONLY);
  const throughCache = {
    name: 'fs.promises FileHandle.read, cached',
    round: () => reads(([{ offset, view }]) => cached.read(view, 0, 4096, offset), buffers),
  };
  await report.run({
    name: 'reads by promise, depth 32',
    measures: [
      { name: 'IOPS', unit: 'IOPS' },
      { name: 'CPU of the process', unit: 'ns an I/O' },
    ],
    contenders: [
      root ? direct : throughCache,
      {
        name: 'disk.read into a view',
        round: () => reads(([{ offset, view }]) => disk.read(offset, view), buffers),
        goals: { IOPS: { ratio: 'least', is: 2 }, 'CPU of the process': { ratio: 'most', is: 0.333 } },
      },
      { name: 'disk.submit, batches of 16', round: () => reads(submit, buffers, 16) },
      ...(root ? [throughCache] : []),
    ],
  });
  if (file) await file.close();
  await cached.close();
  await close();
}

// --- start
{
  const file = emptyFile(folder, 'start', 64 * MiB);
  const prepare = await openHost();
  const device = await prepare.openDevice({ name: 'd0', path: file });
  await prepare.formatVolume({ type: 'extent', devices: [device] });
  const volume = await prepare.openVolume({ name: 'v0', type: 'extent', devices: [device] });
  await volume.createDisk({ vm: 'vm', name: 'disk', size: 16 * MiB });
  await prepare.close();
  await report.run({
    name: 'start',
    measures: [{ name: 'from openHost to the end of the first I/O', unit: 'ms' }],
    contenders: [
      {
        name: 'stratamap',
        round: async () => {
          const began = now();
          const host = await openHost();
          const opened = await host.openDevice({ name: 'd0', path: file });
          const again = await host.openVolume({ name: 'v0', type: 'extent', devices: [opened] });
          const disk = await again.openDisk({ vm: 'vm', name: 'disk' });
          await disk.read(0, 4096);
          const figure = { 'from openHost to the end of the first I/O': (now() - began) / 1e6 };
          await host.close();
          return figure;
        },
        goals: { 'from openHost to the end of the first I/O': { value: 'most', is: 20 } },
      },
    ],
  });
}
if (Number.isNaN(sink)) throw new Error('a field was not a number');
report.write(json);
