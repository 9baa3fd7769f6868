// `stratamap serve` on loop devices, its clients and the commands that ask it: what they say against the bytes.
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import {
  attachLoop,
  connectControl,
  type Extent,
  type Ledger,
  type Owner,
  openHost,
  type Place,
  type ProbeState,
} from 'stratamap';
import { expect, onTestFinished, test } from 'vitest';
import { tmpDir, tmpFile } from '../support/files.js';
import { hasLoop, needsProgram } from '../support/machine.js';
import { NbdClient } from '../support/nbd_client.js';
import { startServe, stratamap } from '../support/serve.js';
import { MiB, pattern } from '../support/stack.js';

const run = promisify(execFile);
const withClients = needsProgram('stratamap serve with NBD clients', 'qemu-io', 'nbdinfo');

/** A device of `bytes`: a loop device where they can be had, else a plain file. */
async function makeDevice(bytes: number, name: string): Promise<string> {
  const file = tmpFile(bytes, name);
  if (!hasLoop) return file;
  const loop = await attachLoop(file, { directIo: true });
  onTestFinished(() => loop.detach());
  return loop.path;
}

/** Past the page cache. */
async function bytesOf(device: string, offset: number, length: number): Promise<Buffer> {
  const { stdout } = await run(
    'dd',
    [
      `if=${device}`,
      'iflag=direct,skip_bytes,count_bytes',
      'bs=4096',
      `skip=${offset}`,
      `count=${length}`,
      'status=none',
    ],
    { encoding: 'buffer', maxBuffer: 2 * length },
  );
  return stdout;
}

interface Setting {
  folder: string;
  devices: string[];
  socket: string;
  control: string;
  config: string;
}

async function setting({ more = '', probe = 'probe: { association: address }' } = {}): Promise<Setting> {
  const folder = tmpDir();
  const devices = [await makeDevice(64 * MiB, 'a.img'), await makeDevice(64 * MiB, 'b.img')];
  const config = `
devices:
  d0: { path: ${devices[0]} }
  d1: { path: ${devices[1]} }
volumes:
  v0: { type: stripe, devices: [d0, d1], create: true }
disks:
  vm-1/vda: { volume: v0, size: 24MiB, create: true }
  vm-2/vda: { volume: v0, size: 8MiB, create: true }
exports:
  - { socket: nbd.sock }
  - { socket: one.sock, disks: [vm-2/vda], readOnly: true }
map: { path: map, interval: 50 }
control: { socket: control.sock }
${probe}
${more}`;
  return { folder, devices, socket: path.join(folder, 'nbd.sock'), control: path.join(folder, 'control.sock'), config };
}

withClients('what clients write is where locate says, and is theirs whom owners names', async () => {
  const { folder, devices, socket, config } = await setting();
  const served = await startServe(folder, config);
  const { stdout: list } = await run('nbdinfo', ['--list', '--json', `nbd+unix:///?socket=${socket}`]);
  const names = JSON.parse(list).exports.map((each: Record<string, unknown>) => each['export-name']);
  expect(names.sort()).toEqual(['vm-1/vda', 'vm-2/vda']);
  const { stdout: one } = await run('nbdinfo', [
    '--list',
    '--json',
    `nbd+unix:///?socket=${path.join(folder, 'one.sock')}`,
  ]);
  expect(JSON.parse(one).exports).toMatchObject([{ 'export-name': 'vm-2/vda', is_read_only: true }]);

  const data = pattern(3 * MiB);
  const file = path.join(folder, 'data');
  writeFileSync(file, data);
  const disks = await served.ask<{ vm: string; name: string; size: number; uris: string[] }[]>('disks');
  expect(disks).toEqual(served.ready.disks);
  expect(disks).toMatchObject([
    { vm: 'vm-1', name: 'vda', size: 24 * MiB, volume: 'v0', uris: [expect.stringContaining('nbd.sock')] },
    { vm: 'vm-2', name: 'vda', size: 8 * MiB, uris: [expect.anything(), expect.stringContaining('one.sock')] },
  ]);
  const [uri, other] = disks.map(({ uris }) => uris[0] as string);
  await run('qemu-io', ['-f', 'raw', '-c', `write -s ${file} 5M 3M`, '-c', 'flush', uri as string]);
  await run('qemu-io', ['-f', 'raw', '-c', 'write -P 7 1M 64k', other as string]);

  const extents = await served.ask<Extent[]>('locate', 'vm-1/vda', '4M', '8M');
  expect(extents.map(({ length }) => length).reduce((a, b) => a + b)).toBe(8 * MiB);
  const mapped = extents.filter(({ state }) => state === 'mapped');
  expect(mapped.map(({ length }) => length).reduce((a, b) => a + b)).toBe(3 * MiB);
  await using control = await connectControl(served.ready.control as string);
  for (const { diskOffset, length, places } of mapped) {
    for (const { device, offset } of places) {
      const at = diskOffset - 5 * MiB;
      const there = await bytesOf(devices[Number(device.slice(1))] as string, offset, length);
      expect(there.equals(data.subarray(at, at + length))).toBe(true);
      const owner = { vm: 'vm-1', disk: 'vda', diskOffset, offset, length, state: 'mapped' };
      expect(await control.owners(device, offset, length)).toMatchObject([owner]);
    }
  }
  const { device, offset } = (mapped[0] as Extent).places[0] as Place;
  const owners = await served.ask<Owner[]>('owners', device, `${offset}`, '64K');
  expect(owners).toEqual(await control.owners(device, offset, 65536));
  // An answer covers 16 MiB: this one is put together, and is what the whole disk has.
  expect(await control.locate('vm-1/vda', 0, 20 * MiB)).toEqual([
    expect.objectContaining({ diskOffset: 0, length: 5 * MiB, state: 'unknown' }),
    ...mapped,
    expect.objectContaining({ diskOffset: 8 * MiB, length: 12 * MiB, state: 'unknown' }),
  ]);
  expect(await served.ask('extents', 'vm-1/vda')).toEqual(mapped);
  expect(await served.ask('locate', 'vm-2/vda', '1M')).toMatchObject([{ length: 4096, state: 'mapped' }]);

  const ledger = await served.ask<Ledger & { probe: ProbeState }>('ledger');
  expect(Object.keys(ledger.devices)).toEqual(['d0', 'd1']);
  const attributed = Object.values(ledger.devices).reduce((sum, each) => sum + each.attributed.bytes, 0);
  expect(attributed).toBeGreaterThanOrEqual(3 * MiB + 65536);
  expect(ledger.probe).toMatchObject({
    attached: true,
    association: 'address',
    correlation: 'descend',
    learning: true,
  });

  expect(await served.ask('probe', 'detach')).toEqual({ attached: false });
  const stale = await served.ask<Extent[]>('extents', 'vm-1/vda');
  expect(new Set(stale.map(({ state }) => state))).toEqual(new Set(['stale']));
  expect(await served.ask('probe', 'attach', '--association', 'serial')).toMatchObject({ association: 'serial' });
  await run('qemu-io', ['-f', 'raw', '-c', 'read 5M 3M', uri as string]);
  expect(await served.ask('extents', 'vm-1/vda')).toEqual(mapped);

  served.child.kill('SIGTERM');
  expect(await served.ended).toEqual({ code: 0, signal: null, stderr: '' });
  for (const name of ['nbd.sock', 'one.sock', 'control.sock']) expect(existsSync(path.join(folder, name))).toBe(false);
});

test('the commands print tables, and say what is wrong', async () => {
  const { folder, control, config, socket } = await setting();
  await startServe(folder, config);
  const client = await NbdClient.connect(socket, 'vm-1/vda');
  await client.write(MiB, pattern(8192));
  client.close();
  const ask = (...args: string[]) => stratamap([...args, '--socket', control]);
  for (const [args, ...parts] of [
    [['locate', 'vm-1/vda', '1M', '16K'], 'mapped', 'unknown', '1,048,576', '8,192', 'd0'],
    [['extents', 'vm-1/vda'], 'mapped', '1,048,576'],
    [['extents', 'vm-2/vda'], 'nothing is known of it'],
    [['ledger'], 'attributed', 'd1', 'left unmapped: nothing', 'a probe is attached: address, descend; it learns'],
    [['disks'], 'vm-2/vda', '24 MiB', 'nbd+unix:///vm-1/vda?socket='],
    [['probe', 'state'], 'recorded '],
    [['owners', 'd0', '63M'], 'nothing is known of it'],
  ] as [string[], ...string[]][]) {
    const { code, stdout, stderr } = await ask(...args);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    for (const part of parts) expect(stdout).toContain(part);
  }
  for (const [args, message] of [
    [['locate', 'vm-1/vdb', '0'], 'there is no disk "vm-1/vdb" here: use one of vm-1/vda, vm-2/vda'],
    [['owners', 'd2', '0'], 'there is no device "d2" here'],
    [['locate', 'vm-1/vda', '24M'], '4096 bytes at offset 25165824 lie outside of disk vm-1/vda, which has 25165824'],
    [['locate', 'vm-1/vda', 'x'], "'x' is not a size"],
    [['verify', 'vm-1/vda'], 'disk vm-1/vda is of volume v0, which is of type stripe: only where the type is kernel'],
    [['verify', 'vm-1/vdb'], 'there is no disk "vm-1/vdb" here'],
    [['verify'], 'no disk here can be verified'],
    [['probe', 'attach'], 'a probe is attached already: detach it first'],
    [['probe', 'attach', '--association', 'x'], 'Allowed choices'],
  ] as [string[], string][]) {
    const { code, stdout, stderr } = await ask(...args);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toContain(message);
  }
  const nobody = await stratamap(['disks', '--socket', path.join(folder, 'none')]);
  expect(nobody.code).toBe(1);
  expect(nobody.stderr).toContain(`nobody listens on ${path.join(folder, 'none')}: start stratamap serve`);
  for (const command of ['serve', 'doctor', 'locate', 'owners', 'extents', 'ledger', 'disks', 'probe', 'verify']) {
    const { code, stdout } = await stratamap([command, '--help']);
    expect(code).toBe(0);
    expect(stdout).toContain(`stratamap ${command}`);
  }
});

test('the control socket is for its user alone, and bad input ends no more than its own connection', async () => {
  const { folder, control, config } = await setting();
  const served = await startServe(folder, config);
  expect(statSync(control).mode & 0o777).toBe(0o600);
  const open = async () => {
    const socket = net.connect(control);
    socket.on('error', () => {});
    onTestFinished(() => void socket.destroy());
    await once(socket, 'connect');
    return socket;
  };
  const readers = new Map<net.Socket, AsyncIterator<string>>();
  const answer = async (socket: net.Socket) => {
    if (!readers.has(socket)) readers.set(socket, createInterface(socket)[Symbol.asyncIterator]());
    return JSON.parse((await readers.get(socket)?.next())?.value);
  };
  const socket = await open();
  for (const [line, code] of [
    ['{', -32700],
    ['[]', -32600],
    ['[{"jsonrpc":"2.0","method":"disks","id":1}]', -32600],
    ['5', -32600],
    ['{"jsonrpc":"1.0","method":"disks","id":1}', -32600],
    ['{"jsonrpc":"2.0","method":"__proto__","id":1}', -32601],
    ['{"jsonrpc":"2.0","method":"toString","id":1}', -32601],
    ['{"jsonrpc":"2.0","method":"disks","params":{"a":1},"id":1}', -32602],
    ['{"jsonrpc":"2.0","method":"locate","params":{"disk":"vm-1/vda","offset":-1,"length":1},"id":1}', -32602],
    ['{"jsonrpc":"2.0","method":"locate","params":{"disk":"vm-1/vda","offset":1e300,"length":1},"id":1}', -32602],
    [
      '{"jsonrpc":"2.0","method":"locate","params":{"disk":"vm-1/vda","offset":0,"length":9007199254740991},"id":1}',
      -32602,
    ],
    ['{"jsonrpc":"2.0","method":"owners","params":{"device":"__proto__","offset":0,"length":1},"id":1}', 1],
    ['{"jsonrpc":"2.0","method":"probe.attach","params":{"association":"x"},"id":1}', 1],
    ['{"jsonrpc":"2.0","method":"verify","params":{"disk":"vm-1/vda","offset":0,"length":1},"id":1}', 1],
    ['{"jsonrpc":"2.0","method":"verify","params":{"disk":"vm-1/vda","from":0},"id":1}', -32602],
  ] as const) {
    socket.write(`${line}\n`);
    expect(await answer(socket), line).toMatchObject({ jsonrpc: '2.0', error: { code } });
  }
  socket.write('{"jsonrpc":"2.0","method":"probe.state"');
  socket.write(',"id":7}\n{"jsonrpc":"2.0","method":"probe.state"}\n{"jsonrpc":"2.0","method":"disks","id":8}\n');
  expect(await answer(socket)).toMatchObject({ id: 7, result: { attached: true } });
  expect(await answer(socket)).toMatchObject({ id: 8, result: [{}, {}] });

  const long = await open();
  long.write('x'.repeat(2 ** 16 + 1));
  expect(await answer(long)).toMatchObject({ error: { code: -32600 } });
  if (!long.closed) await once(long, 'close');
  (await open()).end('{"jsonrpc"');
  (await open()).destroy();

  // With the first one 41, of which 32 are let in.
  let closed = 0;
  for (const each of await Promise.all(Array.from({ length: 40 }, open))) each.resume().once('close', () => ++closed);
  while (closed < 9) await new Promise((resolve) => setTimeout(resolve, 5));
  socket.write('{"jsonrpc":"2.0","method":"disks","id":9}\n');
  expect(await answer(socket)).toMatchObject({ id: 9 });
  expect(closed).toBe(9);
  // A client that only waits does not hold the end up.
  served.child.kill('SIGINT');
  expect(await served.ended).toEqual({ code: 0, signal: null, stderr: '' });
});

test('nothing is formatted that may hold something', async () => {
  const serve = async (bytes: Buffer, create = true) => {
    const folder = tmpDir();
    const file = path.join(folder, 'a.img');
    const image = Buffer.alloc(16 * MiB);
    bytes.copy(image);
    writeFileSync(file, image);
    const config = path.join(folder, 'host.yaml');
    writeFileSync(
      config,
      `{ devices: { d0: { path: a.img } }, volumes: { v0: { type: extent, devices: [d0], create: ${create} } }, disks: {} }`,
    );
    const { code, stdout, stderr } = await stratamap(['serve', config]);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(readFileSync(file).equals(image), stderr).toBe(true);
    return stderr;
  };
  const ext4 = Buffer.alloc(2048);
  ext4.writeUInt16LE(0xef53, 1024 + 56);
  expect(await serve(ext4)).toContain('It is not formatted although create is true');
  // Behind the first block: what formatVolume knows.
  const btrfs = Buffer.alloc(65536 + 80);
  btrfs.write('_BHRfS_M', 65536 + 64);
  expect(await serve(btrfs)).toMatch(/btrfs/);
  expect(await serve(Buffer.alloc(0), false)).toContain('format it first');

  const volume = tmpFile(16 * MiB);
  const host = await openHost();
  await host.formatVolume({ type: 'extent', devices: [await host.openDevice({ name: 'd0', path: volume })] });
  await host.close();
  const damaged = readFileSync(volume);
  damaged[3] = 0; // of its magic
  expect(await serve(damaged)).toContain('It is not formatted although create is true');
});

test('disks that are not as configured are told, and what was opened is closed', async () => {
  const { folder, config, devices } = await setting();
  const first = await startServe(folder, config);
  const taken = await stratamap(['serve', path.join(folder, 'host.yaml')]);
  expect(taken.code).toBe(1);
  expect(taken.stderr).toMatch(/in use|open already/);
  // Another's configuration, with the same sockets, and nothing else in common.
  const other = path.join(tmpDir(), 'host.yaml');
  const image = tmpFile(32 * MiB);
  const rest = `devices: { d0: { path: ${image} } }\nvolumes: { v0: { type: extent, devices: [d0], create: true } }\n`;
  writeFileSync(other, `${rest}disks: {}\ncontrol: { socket: ${path.join(folder, 'control.sock')} }`);
  const busy = await stratamap(['serve', other]);
  expect(busy).toMatchObject({ code: 1, stdout: '' });
  expect(busy.stderr).toContain('another process listens there');
  expect(await first.ask('disks')).toHaveLength(2);
  first.child.kill('SIGTERM');
  expect((await first.ended).code).toBe(0);

  for (const [from, to, message] of [
    ['size: 24MiB', 'size: 32MiB', 'disk vm-1/vda has 25165824 bytes, and the configuration gives it 33554432'],
    [
      'vm-2/vda: { volume: v0, size: 8MiB, create: true }',
      'vm-3/vda: { volume: v0 }\n  vm-2/vda: { volume: v0 }',
      'volume v0 has no disk vm-3/vda',
    ],
    ['type: stripe', 'type: log', "holds a volume of type 'stripe', not 'log'"],
    [`${devices[1]}`, '/nowhere', '/nowhere'],
    ['map: { path: map', 'map: { path: host.yaml', 'does not begin as a map does'],
    ['control.sock', 'host.yaml', 'it exists and is no socket'],
  ] as const) {
    expect(config).toContain(from);
    writeFileSync(path.join(folder, 'host.yaml'), config.replace(from, to));
    const { code, stdout, stderr } = await stratamap(['serve', path.join(folder, 'host.yaml')]);
    expect({ code, stdout }, stderr).toEqual({ code: 1, stdout: '' });
    expect(stderr).toContain(message);
  }
  const again = await startServe(folder, config); // nothing is in the way
  expect(again.ready.disks).toHaveLength(2);
});

test('what a limit holds back is answered at the end', async () => {
  const policies = 'policies: [{ limit: { disk: vm-1/vda, iops: 0.01, burst: 100 } }]';
  const { folder, socket, config } = await setting({ more: policies });
  const served = await startServe(folder, config);
  const client = await NbdClient.connect(socket, 'vm-1/vda');
  for (let i = 0; i < 2; ++i) await client.write(i * 4096, pattern(4096)); // what the burst allows, and one
  let answered = false;
  const held = client.write(8192, pattern(4096)).then(() => (answered = true));
  const recorded = () => served.ask<ProbeState>('probe', 'state').then(({ stats }) => stats?.recorded ?? 0);
  while ((await recorded()) < 3) await new Promise((resolve) => setTimeout(resolve, 10));
  expect(answered).toBe(false);
  served.child.kill('SIGTERM');
  await held;
  expect(await served.ended).toEqual({ code: 0, signal: null, stderr: '' });
});

test('a second signal does not wait for a client that takes no answers', async () => {
  const { folder, socket, config } = await setting();
  const served = await startServe(folder, config);
  const client = await NbdClient.connect(socket, 'vm-1/vda');
  client.pause();
  const answers = Array.from({ length: 16 }, (_, i) => client.read(i * MiB, MiB).catch(() => 'gone'));
  const state = () => served.ask<ProbeState>('probe', 'state').then(({ stats }) => stats?.recorded ?? 0);
  while ((await state()) === 0) await new Promise((resolve) => setTimeout(resolve, 10));
  served.child.kill('SIGTERM');
  while (existsSync(socket)) await new Promise((resolve) => setTimeout(resolve, 10));
  expect(served.child.exitCode).toBeNull();
  served.child.kill('SIGTERM');
  expect(await served.ended).toMatchObject({ code: null, signal: 'SIGTERM' });
  client.close();
  expect(await Promise.all(answers)).toContain('gone');
});

test('a map that cannot be written stops nothing, and is told', async () => {
  const { folder, socket, config } = await setting();
  // Nothing can be made under a name that a folder with something in it has.
  mkdirSync(path.join(folder, 'map.unfinished', 'in'), { recursive: true });
  const served = await startServe(folder, config);
  const client = await NbdClient.connect(socket, 'vm-1/vda');
  const data = pattern(8192);
  await client.write(0, data);
  expect((await client.read(0, 8192)).equals(data)).toBe(true);
  expect(await served.ask('extents', 'vm-1/vda')).toMatchObject([{ state: 'mapped', length: 8192 }]);
  served.child.kill('SIGTERM');
  const { code, stderr } = await served.ended;
  expect(code).toBe(1);
  expect(stderr).toContain(`the map ${path.join(folder, 'map')} cannot be written anew`);
  rmSync(path.join(folder, 'map.unfinished'), { recursive: true });
  const again = await startServe(folder, config);
  expect((await (await NbdClient.connect(socket, 'vm-1/vda')).read(0, 8192)).equals(data)).toBe(true);
  again.child.kill('SIGTERM');
  expect((await again.ended).code).toBe(0);
});

test('a configuration is checked without anything being touched', async () => {
  const { folder, config } = await setting();
  const file = path.join(folder, 'host.yaml');
  writeFileSync(file, config);
  expect(await stratamap(['serve', '--check', file])).toEqual({ code: 0, stdout: `${file} is valid\n`, stderr: '' });
  expect(existsSync(path.join(folder, 'map'))).toBe(false);
  writeFileSync(file, config.replace('type: stripe', 'typ: stripe'));
  const { code, stderr } = await stratamap(['serve', '--check', file]);
  expect(code).toBe(1);
  expect(stderr.split('\n').filter(Boolean)).toHaveLength(2);
  expect(stderr).toContain(`${file}:6:9: volumes.v0.typ is not known here`);
});
