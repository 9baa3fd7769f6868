// `stratamap serve` on both sides of another server: it serves a device, and a disk of what that server makes of it.
import { execFile } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import type { Extent, Owner, ProbeState } from 'stratamap';
import { expect, test } from 'vitest';
import { tmpDir, tmpFile } from '../support/files.js';
import { needsProgram } from '../support/machine.js';
import { NbdClient } from '../support/nbd_client.js';
import { qemuImg, storageDaemon } from '../support/qemu.js';
import { startServe } from '../support/serve.js';
import { MiB, openStack, pattern } from '../support/stack.js';

const run = promisify(execFile);
const withQemu = needsProgram('qcow2 between the two ends of serve', 'qemu-storage-daemon', 'qemu-img');

withQemu('a qcow2 image lies on a device that is served, and is itself served as a disk', async () => {
  const folder = tmpDir();
  const file = tmpFile(64 * MiB);
  const [below, image, above] = ['below', 'image', 'above'].map((name) => path.join(folder, name)) as [
    string,
    string,
    string,
  ];
  const starting = startServe(
    folder,
    `
devices:
  d0: { path: ${file} }
  far: { uri: "nbd+unix:///disk?socket=${image}", wait: 60 }
volumes:
  v0: { type: nbd, devices: [far] }
disks:
  vm-1/vda: { volume: v0, size: 16MiB, create: true }
exports:
  - { socket: above }
  - { socket: below, devices: [d0] }
probe: { association: content }
control: { socket: control }
`,
  );
  while (!existsSync(below)) await Promise.race([sleep(20), starting]);
  await qemuImg('create', '-q', '-f', 'qcow2', `nbd+unix:///d0?socket=${below}`, `${16 * MiB}`);
  const daemon = await storageDaemon(image, [
    '--blockdev',
    `driver=nbd,node-name=file,server.type=unix,server.path=${below},export=d0`,
    ...['--blockdev', 'driver=qcow2,node-name=disk,file=file'],
    ...['--nbd-server', `addr.type=unix,addr.path=${image}`],
    ...['--export', 'type=nbd,id=e,node-name=disk,name=disk,writable=on'],
  ]);
  const served = await starting;
  expect(served.ready.disks).toMatchObject([{ vm: 'vm-1', name: 'vda', uris: [expect.stringContaining('above')] }]);
  while (!(await served.ask<ProbeState>('probe', 'state')).learning) await sleep(20);

  const client = await NbdClient.connect(above, 'vm-1/vda');
  const data = pattern(MiB);
  for (let at = 0; at < MiB; at += 65536) await client.write(4 * MiB + at, data.subarray(at, at + 65536));
  await client.flush();
  const extents = await served.ask<Extent[]>('locate', 'vm-1/vda', '4M', '1M');
  const device = readFileSync(file);
  let mapped = 0;
  for (const { state, diskOffset, length, places } of extents) {
    if (state !== 'mapped') continue;
    mapped += length;
    expect(places.map((place) => place.device)).toEqual(['d0']);
    for (const { offset } of places) {
      const at = diskOffset - 4 * MiB;
      expect(device.subarray(offset, offset + length).equals(data.subarray(at, at + length))).toBe(true);
      const owners = await served.ask<Owner[]>('owners', 'd0', `${offset}`, '4K');
      expect(owners).toMatchObject([{ vm: 'vm-1', disk: 'vda', diskOffset }]);
    }
  }
  expect(mapped).toBe(MiB);
  expect(served.ready.devices).toMatchObject([{ name: 'd0', uris: [expect.stringContaining('below')] }]);

  // Clusters that are new, not flushed by anybody: at the end they are, through all of it.
  await client.write(8 * MiB, data);
  served.child.kill('SIGTERM');
  expect(await served.ended).toMatchObject({ code: 0, signal: null, stderr: '' });
  client.close();
  await daemon.stop();
  const { stdout } = await run('qemu-io', ['-r', '-f', 'qcow2', '-c', 'read -v 8M 4k', file]);
  expect(stdout).toContain(data.subarray(0, 16).toString('hex').match(/../g)?.join(' '));
});

test('a device of another server is served again', async () => {
  const folder = tmpDir();
  const { host, disk } = await openStack();
  await using server = await host.serveNbd({ socket: path.join(folder, 'far') });
  await disk.write(0, pattern(MiB));
  const served = await startServe(
    folder,
    `
devices: { far: { uri: "${server.uri(disk)}" } }
volumes: {}
disks: {}
exports: [{ socket: again, devices: [far], readOnly: true }]
`,
  );
  const client = await NbdClient.connect(path.join(folder, 'again'), 'far');
  expect((await client.read(0, MiB)).equals(pattern(MiB))).toBe(true);
  client.close();
  served.child.kill('SIGTERM');
  expect(await served.ended).toMatchObject({ code: 0 });
});

test('a signal ends the waiting for a server that does not come', async () => {
  const folder = tmpDir();
  const control = path.join(folder, 'below');
  const starting = startServe(
    folder,
    `
devices: { d0: { path: ${tmpFile(MiB)} }, far: { uri: "nbd+unix:///disk?socket=${folder}/none", wait: 3600 } }
volumes: { v0: { type: nbd, devices: [far] } }
disks: {}
exports: [{ socket: below, devices: [d0] }]
`,
    (child) => {
      const poll = setInterval(() => {
        if (!existsSync(control)) return;
        clearInterval(poll);
        child.kill('SIGTERM');
      }, 20);
    },
  );
  await expect(starting).rejects.toThrow('{"code":0,"signal":null,"stderr":""}');
});
