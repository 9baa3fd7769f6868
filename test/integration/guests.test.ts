// Two guests at once, unmodified QEMUs, on virtual disks by NBD: what each wrote is where the map says, and the map says
// whose it is.
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { attachLoop, type Disk, openMap } from 'stratamap';
import { expect, onTestFinished, test } from 'vitest';
import { tmpDir, tmpFile } from '../support/files.js';
import { hasLoop } from '../support/machine.js';
import { qemuImg } from '../support/qemu.js';
import { MiB, testHost } from '../support/stack.js';
import { startGuest } from './guest/guest.js';
import { type GuestImage, guestImage } from './guest/image.js';

const run = promisify(execFile);
const image = guestImage();
if (typeof image === 'string') console.warn(`SKIP guests: ${image}`);
const withGuests = typeof image === 'string' ? test.skip : test;

const BLOCK = 4096;
const FILES = 6;
const LINES = 3000;

/** The bytes of a guest's file, as its script makes them. */
function content(vm: string, file: number): Buffer {
  const lines = Array.from({ length: LINES }, (_, i) => `${i + 1} of file ${file} on ${vm}\n`);
  return Buffer.from(lines.join(''));
}

const makeFile = (vm: string, file: string) =>
  `seq 1 ${LINES} | sed "s/$/ of file ${file} on ${vm}/" > /mnt/file${file}`;

/** Two VMs with a disk each, by NBD, on a volume on two loop devices, or files. */
async function twoDisks(type: string) {
  const files = [tmpFile(96 * MiB), tmpFile(96 * MiB)];
  const detach: (() => Promise<void>)[] = [];
  onTestFinished(async () => {
    for (const each of detach) await each();
  });
  const host = await testHost();
  const devices = [];
  for (const [i, file] of files.entries()) {
    let medium = file;
    if (hasLoop) {
      const loop = await attachLoop(file);
      detach.push(() => loop.detach());
      medium = loop.path;
    }
    devices.push(await host.openDevice({ name: `d${i}`, path: medium }));
  }
  await host.formatVolume({ type, devices });
  const volume = await host.openVolume({ name: 'v0', type, devices });
  const disks: Disk[] = [];
  for (const vm of ['vm-1', 'vm-2']) disks.push(await volume.createDisk({ vm, name: 'vda', size: 48 * MiB }));
  const server = await host.serveNbd({ socket: path.join(tmpDir(), 'nbd') });
  return { host, devices, disks, server, files };
}

/** Where the blocks of a file lie on the disk: what debugfs says of the file system that is on a copy of it. */
async function blocksOf(copy: string, file: string): Promise<number[]> {
  const { stdout } = await run('/usr/sbin/debugfs', ['-R', `blocks ${file}`, copy]);
  return stdout.trim().split(/\s+/).map(Number);
}

withGuests('the blocks of a guest’s files are where the map says, and they are that guest’s', async () => {
  const { host, devices, disks, server, files } = await twoDisks('extent');
  const map = await openMap();
  await host.attachProbe({ map, association: 'serial', correlation: 'descend' });
  const guests = disks.map((disk) => {
    const writes = Array.from({ length: FILES }, (_, i) => makeFile(disk.vm, `${i}`));
    const script = `/usr/sbin/mke2fs -q -t ext4 -b 4096 -F $(disk vda)\nmount -t ext4 $(disk vda) /mnt\n${writes.join('\n')}\nsync\numount /mnt\n`;
    return startGuest(image as GuestImage, script, { vda: server.uri(disk) });
  });
  for (const guest of guests) expect(await guest.status, guest.console).toBe(0);

  const places: { disk: Disk; diskOffset: number; device: string; offset: number; bytes: Buffer }[] = [];
  for (const disk of disks) {
    const known = map.locate(disk, 0, disk.size); // before anyone reads it
    const copy = path.join(tmpDir(), 'copy');
    await qemuImg('convert', '-f', 'raw', '-O', 'raw', server.uri(disk), copy);
    for (let i = 0; i < FILES; ++i) {
      const expected = content(disk.vm, i);
      const blocks = await blocksOf(copy, `/file${i}`);
      expect(blocks.length).toBe(Math.ceil(expected.length / BLOCK));
      for (const [j, block] of blocks.entries()) {
        const diskOffset = block * BLOCK;
        const extent = known.find(
          (each) => each.diskOffset <= diskOffset && diskOffset < each.diskOffset + each.length,
        );
        expect(extent).toMatchObject({ state: 'mapped', moving: false, shared: false });
        expect(extent?.places.length).toBe(1);
        const { device = '', offset = 0 } = extent?.places[0] ?? {};
        const at = offset + diskOffset - (extent?.diskOffset ?? 0);
        places.push({ disk, diskOffset, device, offset: at, bytes: expected.subarray(j * BLOCK, (j + 1) * BLOCK) });
      }
    }
  }
  for (const { disk, diskOffset, device, offset } of places) {
    const owners = map.owners(device, offset, BLOCK);
    expect(owners).toEqual([
      { offset, length: BLOCK, state: 'mapped', moving: false, shared: false, vm: disk.vm, disk: 'vda', diskOffset },
    ]);
  }
  await host.close();
  const held = Object.fromEntries(devices.map(({ name }, i) => [name, readFileSync(files[i] as string)]));
  for (const { device, offset, bytes } of places) {
    expect(held[device]?.subarray(offset, offset + bytes.length).equals(bytes)).toBe(true);
  }
  expect(places.length).toBeGreaterThan(200);
});

withGuests('a probe that is attached while guests run disturbs none, and misses nothing from then on', async () => {
  const { host, disks, server } = await twoDisks('stripe');
  const guests = disks.map((disk) => {
    const script = `
/usr/sbin/mke2fs -q -t ext4 -b 4096 -F $(disk vda)
mount -t ext4 $(disk vda) /mnt
( while [ ! -e /stop ]; do ${makeFile(disk.vm, 'busy')}; sync; done ) &
echo ready
read go < /dev/console
for file in 0 1 2 3; do ${makeFile(disk.vm, '$file')}; sync; done
touch /stop
wait
sync
echo 3 > /proc/sys/vm/drop_caches
for file in 0 1 2 3; do seq 1 ${LINES} | sed "s/$/ of file $file on ${disk.vm}/" | cmp - /mnt/file$file; done
umount /mnt
! dmesg | grep -i 'error'
`;
    return startGuest(image as GuestImage, script, { vda: server.uri(disk) });
  });
  await Promise.all(guests.map((guest) => guest.said('ready')));
  const map = await openMap();
  const probe = await host.attachProbe({ map, association: 'serial', correlation: 'descend' });
  while (!probe.learning) await new Promise((resolve) => setTimeout(resolve, 10));
  const sums = async () => {
    const { exports } = await server.counters();
    const written = Object.values(exports).reduce((sum, { bytesWritten }) => sum + bytesWritten, 0);
    const all = { attributed: 0, ambiguous: 0, unattributed: 0, written };
    for (const { attributed, ambiguous, unattributed } of Object.values(map.ledger().devices)) {
      all.attributed += attributed.bytes;
      all.ambiguous += ambiguous.bytes;
      all.unattributed += unattributed.bytes;
    }
    return all;
  };
  const before = await sums();
  for (const guest of guests) guest.tell('go');
  for (const guest of guests) expect(await guest.status, guest.console).toBe(0);
  const after = await sums();
  expect(after.unattributed - before.unattributed).toBe(0);
  expect(after.ambiguous - before.ambiguous).toBe(0);
  const written = after.written - before.written;
  expect(written).toBeGreaterThan(MiB);
  expect(after.attributed - before.attributed).toBeGreaterThanOrEqual(written);
  expect(probe.stats).toMatchObject({ unrecorded: 0, evidenceLost: 0, losses: 0 });
});
