// The volume `kernel` on ext4 over a loop device: by the API, by NBD clients, by `stratamap serve`, under a probe.
import { execFile } from 'node:child_process';
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { type AddressMap, type Disk, type Extent, type Host, type Owner, openMap, runWorkload } from 'stratamap';
import { expect, test } from 'vitest';
import { tmpDir } from '../support/files.js';
import { needsLoop, needsProgram } from '../support/machine.js';
import { mountExt4 } from '../support/mounted.js';
import { startServe } from '../support/serve.js';
import { failureOf, MiB, pattern, testHost } from '../support/stack.js';

const run = promisify(execFile);
const onExt4 = needsLoop('the volume kernel');
const withClients = onExt4 === test ? needsProgram('the volume kernel by NBD', 'nbdinfo', 'nbdcopy') : onExt4;

const open = (host: Host, directory: string) => host.openVolume({ name: 'v0', type: 'kernel', options: { directory } });

async function probed(host: Host): Promise<AddressMap> {
  const map = await openMap();
  const probe = await host.attachProbe({ map, association: 'serial' });
  while (!probe.learning) await new Promise((resolve) => setTimeout(resolve, 1));
  return map;
}

/** Every byte of the range lies in the disk's image, at its own offset. */
function expectExact(map: AddressMap, disk: Disk, offset: number, length: number): void {
  let at = offset;
  for (const extent of map.locate(disk, offset, length)) {
    expect(extent).toMatchObject({ diskOffset: at, state: 'mapped', moving: false, shared: false });
    expect(extent.places).toEqual([{ device: `v0/${disk.vm}/${disk.name}`, offset: at }]);
    at += extent.length;
  }
  expect(at).toBe(offset + length);
}

onExt4(
  'a probe maps the disks to their images exactly, whenever it is attached and whatever is opened later',
  async () => {
    const { path: directory } = await mountExt4(128 * MiB);
    const host = await testHost();
    await host.formatVolume({ type: 'kernel' });
    const volume = await open(host, directory);
    const before = await volume.createDisk({ vm: 'vm-1', name: 'vda', size: 16 * MiB });
    expect(before).toMatchObject({ devices: ['v0/vm-1/vda'], size: 16 * MiB });
    const count = await host.interpose({ type: 'count' });
    const map = await probed(host);
    const after = await volume.createDisk({ vm: 'vm-2', name: 'vda', size: 8 * MiB });
    for (const disk of [before, after]) {
      const data = pattern(3 * MiB, disk.size);
      const { write } = count.counters();
      await disk.write(MiB, data);
      await disk.flush();
      expect(count.counters().write.bytes - write.bytes).toBe(3 * MiB);
      expectExact(map, disk, MiB, 3 * MiB);
      const image = readFileSync(path.join(directory, disk.vm, `${disk.name}.img`));
      expect(image.length).toBe(disk.size);
      expect(image.subarray(MiB, 4 * MiB).equals(data)).toBe(true);
      const [device] = disk.devices as [string];
      expect(map.owners(device, MiB, 3 * MiB)).toMatchObject([{ vm: disk.vm, disk: 'vda', diskOffset: MiB }]);
    }
    expect(Object.keys(map.ledger().devices).sort()).toEqual(['v0/vm-1/vda', 'v0/vm-2/vda']);

    // Another image from here on, that nobody saw in between.
    await before.resize(2 * MiB);
    expect(statSync(path.join(directory, 'vm-1/vda.img')).size).toBe(2 * MiB);
    expect(map.locate(before, MiB, MiB)).toMatchObject([{ state: 'stale' }]);
    await before.resize(4 * MiB);
    const { write } = count.counters();
    await before.write(3 * MiB, pattern(MiB));
    expect(count.counters().write.bytes - write.bytes).toBe(MiB);
    expectExact(map, before, 3 * MiB, MiB);
    expect((await before.read(2 * MiB, MiB)).every((byte) => byte === 0)).toBe(true);
    await before.read(MiB, MiB);
    expectExact(map, before, MiB, MiB);

    await after.close();
    expect(Array.from(map.extents(after), ({ state }) => state)).not.toContain('mapped');
    await volume.deleteDisk({ vm: 'vm-2', name: 'vda' });
    expect(existsSync(path.join(directory, 'vm-2'))).toBe(false);
    expect([...map.extents('vm-2/vda')]).toEqual([]);
    expect(await volume.listDisks()).toEqual([{ vm: 'vm-1', name: 'vda', size: 4 * MiB }]);
    expect(host.notices.filter((notice) => /device|volume/.test(notice))).toEqual([]);
  },
);

onExt4('guests find what they wrote while probes come and go and their disk is resized', async () => {
  const { path: directory } = await mountExt4(128 * MiB);
  const host = await testHost();
  const volume = await open(host, directory);
  const disk = await volume.createDisk({ vm: 'vm-1', name: 'vda', size: 8 * MiB });
  let over = false;
  const done = runWorkload(disk, {
    pattern: 'mixed',
    length: 8 * MiB,
    operations: 10_000,
    verify: true,
    readPercent: 40,
    discardPercent: 5,
    flushPercent: 1,
  }).finally(() => {
    over = true;
  });
  let rounds = 0;
  for (; !over; ++rounds) {
    const map = await openMap();
    const probe = await host.attachProbe({ map });
    const delay = await host.interpose({ type: 'delay', mean: 1e5 /* ns */, seed: rounds });
    await disk.resize((rounds % 2 ? 8 : 16) * MiB);
    await delay.detach();
    expect(await probe.detach({ timeout: 30_000 })).toBe(true);
  }
  expect(await done).toMatchObject({ errors: 0, mismatches: 0 });
  expect(rounds).toBeGreaterThan(3);
});

onExt4('what it refuses, it says how to ask for', async () => {
  const { path: directory } = await mountExt4(32 * MiB);
  const host = await testHost();
  const none = await failureOf(host.openVolume({ name: 'v0', type: 'kernel' }));
  expect(none).toMatchObject({ code: 'EINVAL', layer: 'volume', message: expect.stringContaining("'directory'") });
  const absent = await failureOf(open(host, path.join(directory, 'none')));
  expect(absent).toMatchObject({ code: 'ENOENT', layer: 'volume', message: expect.stringContaining('give one') });
  for (const type of ['extent', 'nbd']) {
    expect(await failureOf(host.openVolume({ name: 'v0', type }))).toMatchObject({ name: 'TypeError' });
  }
  const device = await host.openDevice({ name: 'd0', driver: 'null', size: MiB });
  const given = host.openVolume({ name: 'v0', type: 'kernel', devices: [device], options: { directory } });
  expect(await failureOf(given)).toMatchObject({
    code: 'EINVAL',
    message: expect.stringContaining('takes no devices'),
  });
  const volume = await open(host, directory);
  for (const name of ['..', 'a/b', '.a']) {
    const refused = await failureOf(volume.createDisk({ vm: 'vm-1', name, size: MiB }));
    expect(refused).toMatchObject({ code: 'EINVAL', layer: 'volume', vm: 'vm-1', disk: name });
  }
  expect(await volume.listDisks()).toEqual([]);
  const full = await host.openVolume({ name: 'v1', type: 'kernel', options: { directory, allocate: 'full' } });
  const large = await failureOf(full.createDisk({ vm: 'vm-1', name: 'vda', size: 64 * MiB }));
  expect(large).toMatchObject({ code: 'ENOSPC', layer: 'volume', disk: 'vda' });
  expect(existsSync(path.join(directory, 'vm-1'))).toBe(false);
});

withClients('NBD clients copy to it and back', async () => {
  const { path: directory } = await mountExt4(128 * MiB);
  const host = await testHost();
  const volume = await open(host, directory);
  const disk = await volume.createDisk({ vm: 'vm-1', name: 'vda', size: 16 * MiB });
  const map = await probed(host);
  const folder = tmpDir();
  const server = await host.serveNbd({ socket: path.join(folder, 'nbd.sock'), exports: 'all', map });
  const uri = server.uri(disk);
  const { exports } = JSON.parse((await run('nbdinfo', ['--json', uri])).stdout);
  expect(exports).toMatchObject([{ 'export-size': 16 * MiB, is_read_only: false, can_trim: true, can_fua: true }]);
  const data = pattern(16 * MiB, 7);
  const file = path.join(folder, 'data');
  writeFileSync(file, data);
  await run('nbdcopy', ['--connections=4', '--flush', file, uri]);
  expectExact(map, disk, 0, 16 * MiB);
  expect(readFileSync(path.join(directory, 'vm-1/vda.img')).equals(data)).toBe(true);
  await run('nbdcopy', ['--connections=4', uri, `${file}.back`]);
  expect(readFileSync(`${file}.back`).equals(data)).toBe(true);
  await server.close();
});

withClients('served as a configuration says: there is what clients wrote, and locate and owners know it', async () => {
  const { path: directory } = await mountExt4(128 * MiB);
  const folder = tmpDir();
  const config = `
volumes:
  v0: { type: kernel, options: { directory: "${directory}" } }
disks:
  vm-1/vda: { volume: v0, size: 16MiB, create: true }
  vm-2/vda: { volume: v0, size: 8MiB, create: true }
exports: [{ socket: nbd.sock }]
probe: {}
control: { socket: control.sock }`;
  const data = pattern(8 * MiB, 9);
  const file = path.join(folder, 'data');
  writeFileSync(file, data);
  const first = await startServe(folder, config);
  const uriOf = (vm: string) => first.ready.disks.find((disk) => disk.vm === vm)?.uris[0] as string;
  await run('nbdcopy', ['--flush', file, uriOf('vm-2')]);
  const extents = await first.ask<Extent[]>('locate', 'vm-2/vda', '1M', '2M');
  expect(extents).toMatchObject([
    { diskOffset: MiB, length: 2 * MiB, state: 'mapped', places: [{ device: 'v0/vm-2/vda', offset: MiB }] },
  ]);
  const owners = await first.ask<Owner[]>('owners', 'v0/vm-2/vda', '0', '8M');
  expect(owners).toMatchObject([{ offset: 0, length: 8 * MiB, vm: 'vm-2', disk: 'vda', diskOffset: 0 }]);
  first.child.kill('SIGKILL');
  await first.ended;

  const second = await startServe(folder, config);
  await run('nbdcopy', [uriOf('vm-2'), `${file}.back`]);
  expect(readFileSync(`${file}.back`).equals(data)).toBe(true);
  expect(await second.ask('disks')).toMatchObject([{ size: 16 * MiB }, { size: 8 * MiB }]);
  second.child.kill('SIGTERM');
  expect(await second.ended).toMatchObject({ code: 0 });
  expect(readFileSync(path.join(directory, 'vm-2/vda.img')).equals(data)).toBe(true);
});
