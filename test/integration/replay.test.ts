// Recording devices and crashes, as a script would use them.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { openHost, readJournal, replayCrash } from 'stratamap';
import { expect, test } from 'vitest';
import { tmpDir, tmpFile } from '../support/files.js';
import { failureOf, MiB, openStack, pattern, testHost } from '../support/stack.js';

test('whatever the crash, the volume opens, and shows no version older than one it showed at an earlier crash', async () => {
  const { host, disk, paths, devices } = await openStack({ driver: 'recording', bytes: 2 * MiB, diskBytes: MiB });
  const [image] = paths as [string];
  const journal = `${image}.journal`;
  expect(devices[0]).toMatchObject({ driver: 'recording', journal });
  const opened = (await readJournal(journal)).to;
  const versions = 12;
  for (let version = 1; version <= versions; ++version) {
    await disk.write(0, Buffer.alloc(65536, version));
    await disk.flush();
  }
  await host.close();
  const facts = await readJournal(journal);
  expect(facts).toMatchObject({ size: 2 * MiB, blockSize: devices[0]!.blockSize, tornBytes: 0 });
  expect(facts.flushes).toBeGreaterThanOrEqual(versions);
  expect(facts.changes).toBeGreaterThanOrEqual(versions);
  expect(facts.to).toBeGreaterThan(opened);

  const reopening = await testHost();
  const into = path.join(tmpDir(), 'crashed');
  // Each sector shows a version; a crash between two flushes may show the one before or the one after.
  let oldest = 0;
  const seen = new Set<number>();
  for (let at = opened; at <= facts.to; at += 1) {
    await replayCrash(journal, { at, seed: at, into });
    const device = await reopening.openDevice({ name: 'd0', path: into });
    const volume = await reopening.openVolume({ name: `v${at}`, type: 'extent', devices: [device] });
    if ((await volume.listDisks()).length > 0) {
      const crashed = await volume.openDisk({ vm: 'vm-1', name: 'vda' });
      const shown = [...new Set(await crashed.read(0, 65536))];
      expect(Math.min(...shown), `at ${at}`).toBeGreaterThanOrEqual(oldest);
      expect(Math.max(...shown) - Math.min(...shown), `at ${at}`).toBeLessThanOrEqual(1);
      oldest = Math.max(oldest, Math.max(...shown) - 1);
      for (const version of shown) seen.add(version);
    }
    await volume.close();
    await device.close();
  }
  expect(oldest).toBeGreaterThanOrEqual(versions - 1);
  expect(seen.size).toBe(versions + 1);
});

test('the same journal, instant and seed give the same medium; the whole journal gives the medium itself', async () => {
  const { host, disk, paths } = await openStack({ driver: 'recording', bytes: 2 * MiB, diskBytes: MiB });
  const [image] = paths as [string];
  await disk.write(0, pattern(MiB / 2));
  await host.close();
  const journal = `${image}.journal`;
  const { from, to } = await readJournal(journal);
  const folder = tmpDir();
  const crash = async (at: number, seed?: number) => {
    const into = path.join(folder, 'crashed');
    await replayCrash(journal, { at, seed, into });
    return readFileSync(into);
  };
  expect((await crash(from)).equals(Buffer.alloc(2 * MiB))).toBe(true);
  expect((await crash(to)).equals(readFileSync(image))).toBe(true); // closing makes everything durable
  const different = new Set<string>();
  for (let at = from; at < to; ++at) {
    const one = await crash(at, 7);
    expect(one.equals(await crash(at, 7))).toBe(true);
    different.add(`${one.equals(await crash(at, 8))}`);
  }
  expect(different).toEqual(new Set(['true', 'false']));
});

test('wrong arguments, and files that are no journals', async () => {
  const host = await testHost();
  const image = tmpFile(MiB);
  const value = { name: 'TypeError', code: 'ERR_INVALID_ARG_VALUE' };
  const type = { name: 'TypeError', code: 'ERR_INVALID_ARG_TYPE' };
  for (const driver of ['uring', 'posix', 'null'] as const) {
    const options = { name: 'd', path: image, driver, journal: 'j' };
    expect(await failureOf(host.openDevice(options as never))).toMatchObject(value);
  }
  const recording = { name: 'd', path: image, driver: 'recording' as const };
  expect(await failureOf(host.openDevice({ ...recording, journal: 5 as never }))).toMatchObject(type);
  expect(await failureOf(host.openDevice({ ...recording, journal: image }))).toMatchObject({
    name: 'StratamapError',
    code: 'EEXIST',
    layer: 'device',
    device: 'd',
  });
  expect(existsSync(`${image}.journal`)).toBe(false);
  const into = path.join(tmpDir(), 'crashed');
  const no = { name: 'StratamapError', code: 'ERR_STRATAMAP_JOURNAL', layer: 'device' };
  expect(await failureOf(readJournal(image))).toMatchObject(no);
  expect(await failureOf(replayCrash(image, { at: 1, into }))).toMatchObject(no);
  expect(await failureOf(readJournal('/there/is/none'))).toMatchObject({ code: 'ENOENT' });
  expect(await failureOf(readJournal(5 as never))).toMatchObject(type);
  const range = { name: 'RangeError', code: 'ERR_OUT_OF_RANGE' };
  expect(await failureOf(replayCrash(image, { at: -1, into }))).toMatchObject(range);
  expect(await failureOf(replayCrash(image, { at: 0.5, into }))).toMatchObject(range);
  expect(await failureOf(replayCrash(image, { at: 1, seed: -1, into }))).toMatchObject(range);
  expect(await failureOf(replayCrash(image, { at: 1 } as never))).toMatchObject(type);
  expect(await failureOf(replayCrash(image, undefined as never))).toMatchObject(type);
  expect(existsSync(into)).toBe(false);
});

test('a medium or journal in use is not overwritten', async () => {
  const image = tmpFile(MiB);
  writeFileSync(image, pattern(MiB));
  await using host = await openHost();
  const device = await host.openDevice({ name: 'd', path: image, driver: 'recording', journal: `${image}.j` });
  expect(device.journal).toBe(`${image}.j`);
  expect(await failureOf(replayCrash(`${image}.j`, { at: 1, into: image }))).toMatchObject({
    code: 'ERR_STRATAMAP_BUSY',
  });
  expect(await failureOf(replayCrash(`${image}.j`, { at: 1, into: `${image}.j` }))).toMatchObject({ code: 'EINVAL' });
  expect(readFileSync(image).equals(pattern(MiB))).toBe(true);
  expect(await readJournal(`${image}.j`)).toMatchObject({ size: MiB, changes: 0, flushes: 0 });
});
