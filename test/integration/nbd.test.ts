// Virtual disks served to real NBD clients.
import { execFile, spawn } from 'node:child_process';
import { existsSync, readdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { promisify } from 'node:util';
import { openMap } from 'stratamap';
import { expect, test } from 'vitest';
import { checkout } from '../support/checkout.js';
import { tmpDir, tmpFile } from '../support/files.js';
import { needsProgram, nightly } from '../support/machine.js';
import { failureOf, MiB, openStack, pattern, testHost } from '../support/stack.js';

const run = promisify(execFile);
const withInfo = needsProgram('NBD clients', 'nbdinfo');
const withQemu = needsProgram('NBD clients of QEMU', 'qemu-io');

async function exportsOf(uri: string): Promise<string[]> {
  const { stdout } = await run('nbdinfo', ['--list', '--json', uri]);
  return JSON.parse(stdout).exports.map((each: { 'export-name': string }) => each['export-name']);
}

withQemu('a client on a unix socket reads and writes what the disk holds', async () => {
  const { host, disk } = await openStack();
  const socket = path.join(tmpDir(), 'nbd.sock');
  const server = await host.serveNbd({ socket });
  expect(server.port).toBeUndefined();
  const uri = server.uri(disk);
  expect(uri).toBe(`nbd+unix:///vm-1/vda?socket=${encodeURIComponent(socket)}`);

  const data = pattern(64 * 1024);
  await disk.write(MiB, data);
  const file = path.join(path.dirname(socket), 'data');
  writeFileSync(file, data);
  await run('qemu-io', ['-f', 'raw', '-c', `write -s ${file} 8M 64k`, '-c', 'write -P 42 2M 1M', '-c', 'flush', uri]);
  expect(Buffer.from(await disk.read(8 * MiB, data.length)).equals(data)).toBe(true);
  expect(new Set(await disk.read(2 * MiB, MiB))).toEqual(new Set([42]));
  const { stdout } = await run('qemu-img', [
    'map',
    '--output=json',
    '--image-opts',
    `driver=nbd,server.type=unix,server.path=${socket},export=vm-1/vda`,
  ]);
  expect(JSON.parse(stdout).at(-1)).toMatchObject({ data: true });

  const counters = await server.counters();
  expect(counters).toMatchObject({ violations: 0, stalled: 0, connections: [] });
  expect(counters.accepted).toBeGreaterThan(1);
  expect(counters.exports['vm-1/vda']).toMatchObject({ connected: 0, errors: 0, bytesWritten: MiB + data.length });
  await server.close();
  expect(existsSync(socket)).toBe(false);
  expect((await failureOf(server.counters())).code).toBe('ERR_STRATAMAP_CLOSED');
});

withInfo('all disks are served, those that are opened later too, and none that is closed', async () => {
  const { host, volume, disk } = await openStack();
  const server = await host.serveNbd({ host: '127.0.0.1', port: 0, readOnly: true });
  expect(server.port).toBeGreaterThan(0);
  const all = `nbd://127.0.0.1:${server.port}`;
  expect(server.uri(disk)).toBe(`${all}/vm-1/vda`);
  expect(await exportsOf(all)).toEqual(['vm-1/vda']);
  const later = await volume.createDisk({ vm: 'vm-2', name: 'vdb', size: MiB });
  expect((await exportsOf(all)).sort()).toEqual(['vm-1/vda', 'vm-2/vdb']);
  const { stdout } = await run('nbdinfo', ['--json', server.uri(later)]);
  expect(JSON.parse(stdout).exports[0]).toMatchObject({ 'export-size': MiB, is_read_only: true, can_multi_conn: true });
  await disk.close();
  expect(await exportsOf(all)).toEqual(['vm-2/vdb']);
  await expect(run('nbdinfo', [`${all}/vm-1/vda`])).rejects.toThrow();
});

withInfo('stratamap:physical tells what a map knows', async () => {
  const { host, disk } = await openStack();
  const map = await openMap();
  const probe = await host.attachProbe({ map, association: 'serial', correlation: 'descend' });
  const server = await host.serveNbd({ socket: path.join(tmpDir(), 's'), exports: [disk], map });
  await disk.write(MiB, pattern(MiB));
  const extents = async () => {
    const { stdout } = await run('nbdinfo', ['--map=stratamap:physical', '--json', server.uri(disk)]);
    return JSON.parse(stdout).map(({ offset, length, type }: Record<string, number>) => [offset, length, type]);
  };
  expect(await extents()).toEqual([
    [0, MiB, 2],
    [MiB, MiB, 0],
    [2 * MiB, disk.size - 2 * MiB, 2],
  ]);
  await probe.detach();
  expect((await extents())[1]).toEqual([MiB, MiB, 1]);
});

withInfo('what cannot be served is refused, and nothing is left of it', async () => {
  const { host, disk } = await openStack();
  const folder = tmpDir();
  for (const options of [
    {},
    { socket: 'a', host: 'b' },
    { socket: 'a', port: 1 },
    { host: 'localhost', port: 65536 },
    { host: 'localhost', port: 1.5 },
    { socket: '' },
    { socket: 'a', exports: [{}] },
    { socket: 'a', readOnly: 1 },
    { socket: 'a', map: {} },
  ]) {
    const error = await failureOf(host.serveNbd(options as never));
    expect(error instanceof TypeError || error instanceof RangeError, JSON.stringify(options)).toBe(true);
  }
  const file = path.join(folder, 'file');
  writeFileSync(file, 'mine');
  expect((await failureOf(host.serveNbd({ socket: file }))).code).toBe('EEXIST');
  expect((await failureOf(host.serveNbd({ host: '0.0.0.0' }))).message).toMatch(/loopback/);
  const socket = path.join(folder, 'socket');
  const server = await host.serveNbd({ socket });
  expect((await failureOf(host.serveNbd({ socket }))).code).toBe('EADDRINUSE');
  expect(await exportsOf(`nbd+unix:///?socket=${socket}`)).toEqual(['vm-1/vda']);
  await disk.close();
  expect((await failureOf(host.serveNbd({ socket: `${socket}2`, exports: [disk] }))).code).toBe('ERR_STRATAMAP_CLOSED');
  expect(existsSync(`${socket}2`)).toBe(false);
  await server.destroy();
});

withInfo('clients that are killed in the middle of requests leave nothing behind', async () => {
  const { host, disk } = await openStack({ bytes: 128 * MiB, diskBytes: 64 * MiB });
  const folder = tmpDir();
  const image = path.join(folder, 'image');
  writeFileSync(image, pattern(64 * MiB));
  const server = await host.serveNbd({ socket: path.join(folder, 's') });
  const uri = server.uri(disk);
  const openFiles = () => readdirSync('/proc/self/fd').length;
  const carried = async () => {
    const counts = (await server.counters()).exports['vm-1/vda'];
    return (counts?.bytesRead ?? 0) + (counts?.bytesWritten ?? 0);
  };
  const before = openFiles();
  for (let i = 0; i < (nightly ? 200 : 8); ++i) {
    const already = await carried();
    const words = i % 2 ? [image, uri] : [uri, 'null:'];
    const child = spawn('nbdcopy', ['--connections=4', ...words], { stdio: 'ignore' });
    const ended = new Promise((resolve) => child.once('exit', resolve));
    while ((await carried()) === already && child.exitCode === null) await setImmediate();
    child.kill('SIGKILL');
    await ended;
  }
  await expect.poll(async () => (await server.counters()).connected).toBe(0);
  expect(openFiles()).toBe(before);
  await run('nbdcopy', ['--flush', image, uri]);
  expect(Buffer.from(await disk.read(0, MiB)).equals(pattern(64 * MiB).subarray(0, MiB))).toBe(true);
  expect(await server.counters()).toMatchObject({ refused: 0, violations: 0, stalled: 0 });
});

test('an open server keeps the process alive, and its end lets it go', async () => {
  const folder = tmpDir();
  const script = path.join(folder, 'serve.cjs');
  const { paths, host } = await openStack();
  await host.close();
  writeFileSync(
    script,
    `const { openHost } = require(${JSON.stringify(path.join(checkout, 'dist/index.js'))});
    (async () => {
      const host = await openHost();
      const device = await host.openDevice({ name: 'd', path: ${JSON.stringify(paths[0])} });
      const volume = await host.openVolume({ name: 'v', type: 'extent', devices: [device] });
      await volume.openDisk({ vm: 'vm-1', name: 'vda' });
      const server = await host.serveNbd({ socket: 'socket' });
      process.on('SIGTERM', () => server.close());
      console.log('ready');
    })();`,
  );
  const child = spawn(process.execPath, [script], { cwd: folder, stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = new Promise((resolve) => child.once('exit', (code, signal) => resolve({ code, signal })));
  await new Promise((resolve) => child.stdout.once('data', resolve));
  await new Promise((resolve) => setTimeout(resolve, 300));
  expect(child.exitCode).toBeNull();
  child.kill('SIGTERM');
  expect(await ended).toEqual({ code: 0, signal: null });
  expect(existsSync(path.join(folder, 'socket'))).toBe(false);
});

withQemu('a device is served past its dispatch table, and no volume has it meanwhile', async () => {
  const host = await testHost();
  const device = await host.openDevice({ name: 'd 0', path: tmpFile(4 * MiB) });
  const counts = await host.interpose({ type: 'count' });
  const socket = path.join(tmpDir(), 'nbd.sock');
  const server = await host.serveNbd({ socket, exports: [device] });
  const uri = server.uri(device);
  expect(uri).toBe(`nbd+unix:///d%200?socket=${encodeURIComponent(socket)}`);
  await run('qemu-io', ['-f', 'raw', '-c', 'write -P 7 1M 64k', uri]);
  const { write } = counts.counters() as unknown as { write: { bytes: number } };
  expect(write.bytes).toBe(64 * 1024);
  expect((await failureOf(host.formatVolume({ type: 'extent', devices: [device] }))).code).toBe('ERR_STRATAMAP_BUSY');
  expect((await failureOf(host.openVolume({ name: 'v', type: 'nbd', devices: [device] }))).device).toBe('d 0');
  await server.close();
  const volume = await host.openVolume({ name: 'v', type: 'nbd', devices: [device] });
  const disk = await volume.createDisk({ vm: 'vm-1', name: 'vda', size: device.size });
  expect(new Set(await disk.read(MiB, 64 * 1024))).toEqual(new Set([7]));
  expect((await failureOf(host.serveNbd({ socket, exports: [device] }))).code).toBe('ERR_STRATAMAP_BUSY');
  const both = await host.serveNbd({ socket, exports: [disk, device], shared: true, readOnly: true });
  await expect(run('qemu-io', ['-f', 'raw', '-c', 'write 0 4k', both.uri(device)])).rejects.toThrow();
  await run('qemu-io', ['-f', 'raw', '-r', '-c', 'read -P 7 1M 64k', both.uri(device)]);
  await disk.close();
  await volume.close();
  await device.close();
  expect((await both.counters()).exports).toEqual({});
});

test('a device by NBD is what its server serves, shared, and lost with it', async () => {
  const { host: far, disk } = await openStack();
  const socket = path.join(tmpDir(), 'nbd.sock');
  const server = await far.serveNbd({ socket });
  const host = await testHost({ threads: 2 });
  const uri = server.uri(disk);
  const device = await host.openDevice({ name: 'r0', driver: 'nbd', uri });
  expect(device).toMatchObject({
    driver: 'nbd',
    path: uri,
    size: disk.size,
    shared: true,
    readOnly: false,
    discard: true,
  });
  const volume = await host.openVolume({ name: 'v', type: 'nbd', devices: [device] });
  const near = await volume.createDisk({ vm: 'vm-9', name: 'vda', size: device.size });
  const data = pattern(MiB);
  await near.write(MiB, data, { fua: true });
  await near.discard(MiB, 4096);
  data.fill(0, 0, 4096);
  expect(Buffer.from(await disk.read(MiB, MiB)).equals(data)).toBe(true);
  await server.destroy();
  expect((await failureOf(near.read(0, 4096))).code).toBe('ENOTCONN');
  for (const options of [
    { uri: 'file:///x' },
    { uri: 'nbd://192.0.2.1/x' },
    { uri: `nbd+unix:///?socket=${socket}` },
  ]) {
    const error = await failureOf(host.openDevice({ name: 'r1', driver: 'nbd', ...options }));
    expect([error.layer, error.device]).toEqual(['device', 'r1']);
  }
  for (const options of [{}, { uri: 1 }, { uri, path: 'x' }, { uri, size: 1 }]) {
    const error = await failureOf(host.openDevice({ name: 'r1', driver: 'nbd', ...options } as never));
    expect(error).toBeInstanceOf(TypeError);
  }
  expect(await failureOf(host.openDevice({ name: 'r1', path: 'x', uri } as never))).toBeInstanceOf(TypeError);
});
