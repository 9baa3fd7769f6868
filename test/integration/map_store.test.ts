// A map that outlives its process.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { type AddressMap, type Extent, openMap, type Probe } from 'stratamap';
import { describe, expect, onTestFinished, test } from 'vitest';
import { checkout } from '../support/checkout.js';
import { tmpDir, tmpFile } from '../support/files.js';
import { failureOf, MiB, openStack, pattern } from '../support/stack.js';

async function learning(probe: Probe): Promise<void> {
  while (!probe.learning) await new Promise((resolve) => setTimeout(resolve, 1));
}

/** The places of a disk, whatever their state. */
function placesOf(map: AddressMap, disk = 'vm-1/vda'): Omit<Extent, 'state' | 'moving' | 'shared'>[] {
  return Array.from(map.extents(disk), ({ diskOffset, length, places }) => ({ diskOffset, length, places }));
}

function statesOf(map: AddressMap, disk = 'vm-1/vda'): Set<string> {
  return new Set(Array.from(map.extents(disk), ({ state }) => state));
}

async function openTestMap(options: Parameters<typeof openMap>[0]): Promise<AddressMap> {
  const map = await openMap(options);
  onTestFinished(() => map.close().catch(() => {}));
  return map;
}

describe.each(['extent', 'log', 'stripe'])('%s', (type) => {
  test('it comes back stale, at the same places, and what is read again is mapped again', async () => {
    const file = path.join(tmpDir(), 'a.map');
    const { host, disk } = await openStack({ type });
    const first = await openTestMap({ path: file });
    const probe = await host.attachProbe({ map: first });
    await learning(probe);
    for (const at of [0, 3, 5, 9]) await disk.write(at * MiB + 8192, pattern(MiB / 2, at));
    await first.flush();
    await disk.discard(5 * MiB, MiB);
    await disk.write(12 * MiB, pattern(MiB));
    await probe.detach();
    const places = placesOf(first);
    expect(places.length).toBeGreaterThanOrEqual(4);
    await first.close();

    const second = await openTestMap({ path: file });
    expect(placesOf(second)).toEqual(places);
    expect(statesOf(second)).toEqual(new Set(['stale']));
    expect(second.locate(disk, 5 * MiB, MiB)).toMatchObject([{ state: 'unknown', places: [] }]);
    for (const { diskOffset, length, places: found } of places) {
      for (const { device, offset } of found) {
        expect(second.owners(device, offset, length)).toMatchObject([{ vm: 'vm-1', disk: 'vda', diskOffset }]);
      }
    }
    const again = await host.attachProbe({ map: second });
    await learning(again);
    expect(statesOf(second)).toEqual(new Set(['stale']));
    for (const { diskOffset, length } of places) await disk.read(diskOffset, length);
    expect(placesOf(second)).toEqual(places);
    expect(statesOf(second)).toEqual(new Set(['mapped']));
    expect(second.notices).toEqual([]);
  });
});

test('a process that is killed leaves what it had flushed, at least', async () => {
  const folder = tmpDir();
  const file = path.join(folder, 'a.map');
  const image = tmpFile(64 * MiB);
  const script = path.join(folder, 'child.cjs');
  writeFileSync(
    script,
    `const { openHost, openMap } = require(${JSON.stringify(path.join(checkout, 'dist/index.js'))});
    (async () => {
      const host = await openHost();
      const device = await host.openDevice({ name: 'd0', path: ${JSON.stringify(image)} });
      await host.formatVolume({ type: 'log', devices: [device] });
      const volume = await host.openVolume({ name: 'v0', type: 'log', devices: [device] });
      const disk = await volume.createDisk({ vm: 'vm-1', name: 'vda', size: 16 * 2 ** 20 });
      const map = await openMap({ path: ${JSON.stringify(file)}, interval: 10 });
      const probe = await host.attachProbe({ map });
      while (!probe.learning) await new Promise((resolve) => setTimeout(resolve, 1));
      for (let i = 0; ; ++i) {
        await disk.write((i % 256) * 65536, Buffer.alloc(65536, i));
        if (i !== 300) continue;
        await map.flush();
        process.stdout.write('flushed');
      }
    })();`,
  );
  const child = spawn(process.execPath, [script], { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(child.stdout, 'data');
  expect(await failureOf(openMap({ path: file }))).toMatchObject({ code: 'ERR_STRATAMAP_BUSY', layer: 'map' });
  child.kill('SIGKILL');
  await once(child, 'exit');
  const map = await openTestMap({ path: file });
  expect(placesOf(map).reduce((sum, { length }) => sum + length, 0)).toBe(16 * MiB);
  expect(statesOf(map)).toEqual(new Set(['stale']));
  await map.close();
  expect(readdirSync(folder).sort()).toEqual(['a.map', 'child.cjs']);
});

test('it is written without being asked', async () => {
  const { host, disk } = await openStack();
  const file = path.join(tmpDir(), 'a.map');
  const map = await openTestMap({ path: file, interval: 10 });
  await learning(await host.attachProbe({ map }));
  expect(statSync(file).size).toBe(0);
  await disk.write(0, pattern(4096));
  while (statSync(file).size === 0) await new Promise((resolve) => setTimeout(resolve, 5));
  expect(readFileSync(file).includes('vda')).toBe(true);
});

test('one map at a time has a file, by whatever name', async () => {
  const folder = tmpDir();
  const file = path.join(folder, 'a.map');
  const first = await openTestMap({ path: file });
  symlinkSync('a.map', path.join(folder, 'link'));
  for (const name of ['a.map', 'link', './a.map']) {
    const failure = await failureOf(openMap({ path: path.join(folder, name) }));
    expect(failure).toMatchObject({ code: 'ERR_STRATAMAP_BUSY', layer: 'map', errno: -16 });
    expect(failure.message).toContain(name.replace('./', ''));
  }
  await Promise.all([first.flush(), first.close(), first.close()]);
  expect(first.closed).toBe(true);
  expect(first.notices).toEqual([]);
  expect(await failureOf(first.flush())).toMatchObject({ code: 'ERR_STRATAMAP_CLOSED' });
  {
    await using again = await openMap({ path: file });
    expect(again.closed).toBe(false);
  }
  await (await openTestMap({ path: file })).close();
});

test('what is asked of a map at once is done in that order', async () => {
  const { host, disk } = await openStack();
  const file = path.join(tmpDir(), 'a.map');
  for (let round = 0; round < 100; ++round) {
    const map = await openTestMap({ path: file });
    const probe = await host.attachProbe({ map });
    await learning(probe);
    await disk.write(round * 4096, pattern(4096, round));
    await Promise.all([map.flush(), map.flush(), map.flush(), map.close()]);
    await probe.detach();
  }
});

test('what is no map is refused, and left as it is', async () => {
  const folder = tmpDir();
  const file = path.join(folder, 'a.map');
  await (await openMap({ path: file })).close();
  const good = readFileSync(file);
  const newer = Buffer.from(good);
  newer.writeUInt32LE(99, 8);
  for (const [bytes, found] of [
    [Buffer.from('{}'), 'does not begin'],
    [good.subarray(0, -1), 'damaged'],
    [newer, 'version 99'],
  ] as const) {
    writeFileSync(file, bytes);
    const failure = await failureOf(openMap({ path: file }));
    expect(failure).toMatchObject({ code: 'ERR_STRATAMAP_MAP', layer: 'map' });
    expect(failure.message).toContain(file);
    expect(failure.message).toContain(found);
    expect(readFileSync(file).equals(bytes)).toBe(true);
  }
  mkdirSync(path.join(folder, 'folder'));
  expect(await failureOf(openMap({ path: path.join(folder, 'folder') }))).toMatchObject({ code: 'ERR_STRATAMAP_MAP' });
  expect(await failureOf(openMap({ path: path.join(folder, 'none', 'a') }))).toMatchObject({ code: 'ENOENT' });
});

test('what cannot be written is told, and fails no I/O', async () => {
  const { host, disk } = await openStack();
  const folder = path.join(tmpDir(), 'folder');
  mkdirSync(folder);
  const file = path.join(folder, 'a.map');
  const map = await openTestMap({ path: file, interval: 10 });
  await learning(await host.attachProbe({ map }));
  // Nothing can be made under a name that a folder with something in it has.
  mkdirSync(path.join(`${file}.unfinished`, 'in'), { recursive: true });
  await disk.write(0, pattern(4096));
  const failure = await failureOf(map.flush());
  expect(failure).toMatchObject({ code: 'EISDIR', layer: 'map' });
  expect(map.notices).toEqual([failure.message]);
  expect(failure.message).toContain(file);
  await disk.write(4096, pattern(4096));
  expect(map.locate(disk, 0, 8192).every(({ state }) => state === 'mapped')).toBe(true);
  expect(await failureOf(map.close())).toMatchObject({ code: 'EISDIR' });
  expect(existsSync(file)).toBe(true);
});

test('options are checked before anything is touched', async () => {
  const file = path.join(tmpDir(), 'a.map');
  for (const options of [null, 5, { path: 5 }, { path: '' }, { interval: 10 }, { path: file, interval: '1' }]) {
    expect(await failureOf(openMap(options as never)), JSON.stringify(options)).toMatchObject({ name: 'TypeError' });
  }
  for (const options of [{ path: 'a\0b' }, ...[9, 3_600_001, 10.5].map((interval) => ({ path: file, interval }))]) {
    expect(await failureOf(openMap(options))).toMatchObject({ name: 'RangeError' });
  }
  expect(existsSync(file)).toBe(false);
  const map = await openMap({});
  await map.flush();
  expect(map.notices).toEqual([]);
  await map.close();
  expect(await failureOf(map.flush())).toMatchObject({ code: 'ERR_STRATAMAP_CLOSED' });
});
