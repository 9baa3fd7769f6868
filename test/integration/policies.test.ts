// Interposers by the public API: what each does, how they stand together, and that none keeps anyone waiting at its end.
import { readFileSync } from 'node:fs';
import {
  attachLoop,
  type FaultRule,
  type Interposer,
  type InterposerOptions,
  type OperationCounters,
  openHost,
  openMap,
  runWorkload,
} from 'stratamap';
import { describe, expect, onTestFinished, test } from 'vitest';
import { tmpFile } from '../support/files.js';
import { needsLoop } from '../support/machine.js';
import { failureOf, MiB, openStack, pattern, testHost } from '../support/stack.js';

const HOUR = 3600e9; // ns

const total = (counters: Record<string, OperationCounters>, of: keyof OperationCounters) =>
  Object.values(counters).reduce((sum, each) => sum + each[of], 0);

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 2));
}

describe('the chain of a device', () => {
  test('interposers stand where they are put, are brought into any order, and leave', async () => {
    const { host, devices } = await openStack();
    const [device] = devices as [(typeof devices)[0]];
    expect(device.interposers).toEqual([]);
    const count = await host.interpose({ type: 'count' });
    const probe = await host.attachProbe({ map: await openMap() });
    const delay = await host.interpose({ type: 'delay', mean: 0, position: 1 });
    const fault = await host.interpose({ type: 'fault', rules: [{ probability: 0 }], position: 99 });
    expect(device.interposers).toEqual(['probe', 'delay', 'count', 'fault']);
    await device.reorder([fault, count, probe, delay]);
    expect(device.interposers).toEqual(['fault', 'count', 'probe', 'delay']);

    for (const wrong of [
      [],
      [fault, count, probe],
      [fault, fault, probe, delay],
      [fault, count, probe, delay, count],
    ]) {
      expect(await failureOf(device.reorder(wrong))).toMatchObject({ code: 'ERR_STRATAMAP_ORDER', device: 'd0' });
    }
    for (const wrong of [undefined, [device], ['probe'], [null]]) {
      expect(await failureOf(device.reorder(wrong as never))).toMatchObject({ name: 'TypeError' });
    }
    const later = await host.openDevice({ name: 'later', driver: 'null', size: MiB });
    expect(later.interposers.toSorted()).toEqual(['count', 'delay', 'fault', 'probe']);

    const more = [await host.interpose({ type: 'count' }), await host.interpose({ type: 'count', devices: [device] })];
    const full = await failureOf(host.interpose({ type: 'count' }));
    expect(full).toMatchObject({ code: 'ENOSPC', layer: 'interposer', device: 'd0' });
    expect(full.message).toContain('6');
    expect(later.interposers.length).toBe(5); // it was not left behind there
    for (const each of [...more, fault, probe, delay]) expect(await each.detach()).toBe(true);
    expect(device.interposers).toEqual(['count']);
    expect(await count.detach()).toBe(true);
    expect(await count.detach()).toBe(true);
    await host.close();
    expect(device.interposers).toEqual([]);
  });

  test('they come, go and change places under load: nothing is lost or fails, and what stays sees everything', async () => {
    const { host, devices, disk } = await openStack({ type: 'stripe' });
    const count = await host.interpose({ type: 'count' });
    let over = false;
    const load = runWorkload(disk, { pattern: 'mixed', operations: 8000, verify: true, readPercent: 40 });
    const done = load.finally(() => {
      over = true;
    });
    let rounds = 0;
    for (; !over; ++rounds) {
      const map = await openMap();
      const probe = await host.attachProbe({ map });
      await using delay = await host.interpose({
        type: 'delay',
        distribution: 'exponential',
        mean: 50_000,
        seed: rounds,
      });
      const limit = await host.interpose({ type: 'limit', probe, disk, iops: 20_000, bytesPerSecond: 1e9 });
      for (const device of devices) await device.reorder([delay, probe, count, limit]);
      await limit.update({ iops: 1e6 });
      for (const device of devices) await device.reorder([probe, limit, delay, count]);
      expect(limit.counters().foreignHeld).toBe(0);
      expect(await probe.detach()).toBe(true);
      expect(await limit.detach()).toBe(true);
      await map.close();
    }
    expect(await done).toMatchObject({ errors: 0, mismatches: 0 });
    expect(rounds).toBeGreaterThan(3);
    const counters = count.counters();
    expect(total(counters, 'succeeded')).toBe(total(counters, 'operations'));
    expect(total(counters, 'operations')).toBeGreaterThan(8000);
    expect(total(counters, 'unseen')).toBe(0);
  });
});

describe('a delay of an hour', () => {
  test('ends with its detach', async () => {
    const { host, disk } = await openStack({ type: 'stripe' });
    const delay = await host.interpose({ type: 'delay', mean: HOUR, ops: ['write'] });
    const data = pattern(MiB);
    const writes = [0, 1, 2].map((i) => disk.write(i * MiB, data));
    await until(() => delay.counters().waiting === 48);
    expect(delay.counters().passed).toBe(0);
    expect(await delay.detach()).toBe(true);
    await Promise.all(writes);
    expect(Buffer.compare((await disk.read(MiB, MiB)) as Uint8Array, data)).toBe(0);
    expect(delay.counters()).toMatchObject({ waiting: 0, held: 48 });
  });

  test('ends with its host, whatever waits: I/O, an administrative call, a workload', async () => {
    const host = await openHost();
    const device = await host.openDevice({ name: 'd0', path: tmpFile(64 * MiB) });
    await host.formatVolume({ type: 'extent', devices: [device] });
    const volume = await host.openVolume({ name: 'v0', type: 'extent', devices: [device] });
    const disk = await volume.createDisk({ vm: 'a', name: 'a', size: 4 * MiB });
    const delay = await host.interpose({ type: 'delay', mean: HOUR });
    const write = disk.write(0, pattern(4096));
    const create = volume.createDisk({ vm: 'b', name: 'b', size: 4 * MiB });
    const opening = host.openVolume({ name: 'v1', type: 'extent', devices: [device] }).catch((error) => error);
    const load = runWorkload(disk, { pattern: 'randwrite', operations: 1000, offset: MiB }).catch((error) => error);
    await until(() => delay.counters().waiting > 1);
    await host.close();
    await write;
    await create;
    await opening;
    await load;
    expect(await failureOf(host.interpose({ type: 'count' }))).toMatchObject({ code: 'ERR_STRATAMAP_CLOSED' });
  });

  test('keeps nobody from ending it who waits below another: not the host, not more of them than there are threads', async () => {
    const { host, disk } = await openStack();
    const delay = await host.interpose({ type: 'delay', mean: HOUR });
    const above = await Promise.all([1, 2, 3, 4].map(() => host.interpose({ type: 'count' })));
    const write = disk.write(0, pattern(4096));
    await until(() => delay.counters().waiting > 0);
    const waiting = above.map((count) => count.detach({ timeout: 1e9 }));
    expect(await delay.detach()).toBe(true);
    await write;
    expect(await Promise.all(waiting)).toEqual([true, true, true, true]);

    const again = await host.interpose({ type: 'delay', mean: HOUR });
    const count = await host.interpose({ type: 'count' });
    const last = disk.write(0, pattern(4096));
    await until(() => again.counters().waiting > 0);
    const counted = count.detach({ timeout: 1e9 });
    await host.close();
    await last;
    expect(await counted).toBe(true);
    expect(await again.detach()).toBe(true);
  });

  test('is for one range alone, and ends when its device is closed', async () => {
    const host = await testHost();
    const device = await host.openDevice({ name: 'd0', path: tmpFile(8 * MiB) });
    const delay = await host.interpose({ type: 'delay', mean: HOUR, offset: 4 * MiB, length: 4 * MiB, ops: ['write'] });
    await host.formatVolume({ type: 'extent', devices: [device] });
    expect(delay.counters()).toMatchObject({ held: 0 });
    expect(delay.counters().passed).toBeGreaterThan(0);
    await device.close();
    expect(delay.closed).toBe(false);
  });
});

describe('fault', () => {
  test('fails what its rules say, with their error, and counts by rule', async () => {
    const { host, disk } = await openStack({ type: 'stripe' });
    await disk.write(0, pattern(4096));
    const fault = await host.interpose({
      type: 'fault',
      rules: [
        { ops: ['write'], every: 2, error: 'ENOSPC' },
        { ops: ['read'], kind: 'short', probability: 1 },
        { ops: ['write'], kind: 'torn', every: 1 },
      ],
    });
    expect(await failureOf(disk.write(0, pattern(8192, 2)))).toMatchObject({ code: 'EIO', offset: 0 });
    expect(await failureOf(disk.write(0, pattern(8192, 2)))).toMatchObject({ code: 'ENOSPC' });
    expect(await failureOf(disk.read(0, 4096))).toMatchObject({ code: 'EIO' });
    await disk.flush();
    expect(fault.counters()).toEqual([
      { matched: 2, operations: 1, bytes: 8192 },
      { matched: 1, operations: 1, bytes: 4096 },
      { matched: 1, operations: 1, bytes: 8192 },
    ]);
    await fault.detach();
    await disk.write(0, pattern(8192, 3));
    expect(Buffer.compare((await disk.read(0, 8192)) as Uint8Array, pattern(8192, 3))).toBe(0);
    expect(fault.counters()[0]?.operations).toBe(1); // also after its end
  });
});

describe('limit', () => {
  test('holds the one disk; others pass; new rates let go what waits', async () => {
    const { host, volume, disk } = await openStack({ type: 'stripe' });
    const other = await volume.createDisk({ vm: 'vm-2', name: 'vda', size: MiB });
    const probe = await host.attachProbe({ map: await openMap() });
    const limit = await host.interpose({ type: 'limit', probe, disk, iops: 1e-3, burst: 0 });
    await disk.write(0, pattern(4096));
    const waiting = disk.write(4096, pattern(4096));
    await until(() => limit.counters().waiting === 1);
    for (let i = 0; i < 50; ++i) await other.write(i * 4096, pattern(4096, i));
    expect(limit.counters()).toEqual({ held: 1, waiting: 1, passed: 1, foreign: 50, foreignHeld: 0 });
    await limit.update({ bytesPerSecond: 1e12 }); // the other rate and the burst stay
    await limit.update({});
    expect(limit.counters().waiting).toBe(1);
    for (const wrong of [{ iops: -1 }, { iops: 1e-4 }, { bytesPerSecond: Number.NaN }, { burst: -1 }]) {
      expect(await failureOf(limit.update(wrong))).toMatchObject({ code: 'ERR_OUT_OF_RANGE' });
    }
    await limit.update({ iops: null });
    await waiting;
    expect(limit.counters().waiting).toBe(0);
    expect(await limit.detach()).toBe(true);
    expect(await failureOf(limit.update({ iops: 5 }))).toMatchObject({
      code: 'ERR_STRATAMAP_CLOSED',
      layer: 'interposer',
    });
  });

  test('is refused where requests are not attributed when they are issued, and with a probe that is not there', async () => {
    const { host, disk } = await openStack();
    const map = await openMap();
    for (const kind of [{ correlation: 'ascend' }, { correlation: 'meet' }, { association: 'content' }] as const) {
      const probe = await host.attachProbe({ map, ...kind });
      const refused = await failureOf(host.interpose({ type: 'limit', probe, disk, iops: 5 }));
      expect(refused).toMatchObject({ code: 'ERR_STRATAMAP_UNSUPPORTED', layer: 'interposer' });
      expect(refused.message).toContain("'descend'");
      await probe.detach();
    }
    const gone = await host.attachProbe({ map });
    await gone.detach();
    const limit = { type: 'limit', probe: gone, disk, iops: 5 } as const;
    expect(await failureOf(host.interpose(limit))).toMatchObject({ code: 'ERR_STRATAMAP_CLOSED' });
    const elsewhere = await (await testHost()).attachProbe({ map });
    expect(await failureOf(host.interpose({ ...limit, probe: elsewhere }))).toMatchObject({ code: 'EINVAL' });
  });
});

test('wrong arguments are refused before anything is touched', async () => {
  const { host, devices, disk } = await openStack();
  const probe = await host.attachProbe({ map: await openMap() });
  const rule = (rule: unknown) => ({ type: 'fault', rules: [rule as FaultRule] });
  const wrong: [unknown, string][] = [
    [undefined, 'ERR_INVALID_ARG_TYPE'],
    [{ type: 'cache' }, 'ERR_INVALID_ARG_VALUE'],
    [{ type: 'count', devices: [] }, 'ERR_INVALID_ARG_TYPE'],
    [{ type: 'count', devices: [disk] }, 'ERR_INVALID_ARG_TYPE'],
    [{ type: 'count', devices: [devices[0], devices[0]] }, 'ERR_INVALID_ARG_VALUE'],
    [{ type: 'count', position: -1 }, 'ERR_OUT_OF_RANGE'],
    [{ type: 'delay' }, 'ERR_INVALID_ARG_TYPE'],
    [{ type: 'delay', mean: -1 }, 'ERR_OUT_OF_RANGE'],
    [{ type: 'delay', mean: Number.NaN }, 'ERR_OUT_OF_RANGE'],
    [{ type: 'delay', mean: 0.5 }, 'ERR_OUT_OF_RANGE'],
    [{ type: 'delay', mean: 1, most: 1 }, 'ERR_INVALID_ARG_VALUE'],
    [{ type: 'delay', distribution: 'uniform', mean: 1 }, 'ERR_INVALID_ARG_VALUE'],
    [{ type: 'delay', distribution: 'uniform', least: 2, most: 1 }, 'ERR_OUT_OF_RANGE'],
    [{ type: 'delay', distribution: 'normal', mean: 1 }, 'ERR_INVALID_ARG_VALUE'],
    [{ type: 'delay', mean: 1, ops: [] }, 'ERR_INVALID_ARG_TYPE'],
    [{ type: 'delay', mean: 1, ops: ['trim'] }, 'ERR_INVALID_ARG_VALUE'],
    [{ type: 'delay', mean: 1, offset: 1, length: Number.MAX_SAFE_INTEGER }, 'ERR_OUT_OF_RANGE'],
    [{ type: 'fault' }, 'ERR_INVALID_ARG_TYPE'],
    [{ type: 'fault', rules: [] }, 'ERR_OUT_OF_RANGE'],
    [{ type: 'fault', rules: Array(65).fill({ every: 1 }) }, 'ERR_OUT_OF_RANGE'],
    [rule(null), 'ERR_INVALID_ARG_TYPE'],
    [rule({}), 'ERR_INVALID_ARG_VALUE'],
    [rule({ probability: 0.5, every: 2 }), 'ERR_INVALID_ARG_VALUE'],
    [rule({ probability: 1.5 }), 'ERR_OUT_OF_RANGE'],
    [rule({ every: 0 }), 'ERR_OUT_OF_RANGE'],
    [rule({ every: 1, error: 'EWHAT' }), 'ERR_INVALID_ARG_VALUE'],
    [rule({ every: 1, error: 'toString' }), 'ERR_INVALID_ARG_VALUE'],
    [rule({ every: 1, kind: 'torn', ops: ['read'] }), 'ERR_INVALID_ARG_VALUE'],
    [rule({ every: 1, kind: 'short', error: 'ENOSPC' }), 'ERR_INVALID_ARG_VALUE'],
    [{ type: 'limit', probe, disk }, 'ERR_INVALID_ARG_VALUE'],
    [{ type: 'limit', probe, disk, iops: 0 }, 'ERR_OUT_OF_RANGE'],
    [{ type: 'limit', probe, disk, iops: 1, burst: -1 }, 'ERR_OUT_OF_RANGE'],
    [{ type: 'limit', probe: disk, disk, iops: 1 }, 'ERR_INVALID_ARG_TYPE'],
    [{ type: 'limit', disk, iops: 1 }, 'ERR_INVALID_ARG_TYPE'],
    [{ type: 'limit', probe, iops: 1 }, 'ERR_INVALID_ARG_TYPE'],
  ];
  for (const [options, code] of wrong) {
    const error = await failureOf(host.interpose(options as InterposerOptions));
    expect(error, JSON.stringify(options)).toMatchObject({ code });
    expect(error instanceof TypeError || error instanceof RangeError).toBe(true);
  }
  const count = await host.interpose({ type: 'count' });
  const mistaken = count as unknown as Interposer<'limit'>;
  expect(await failureOf(mistaken.update({ iops: 1 }))).toMatchObject({ name: 'TypeError' });
  expect(await failureOf(count.detach({ timeout: -1 }))).toMatchObject({ code: 'ERR_OUT_OF_RANGE' });
  expect(devices[0]?.interposers).toEqual(['count', 'probe']);
});

needsLoop('policies on loop devices')(
  'on loop devices, one in twenty fails: the ledger is what was counted',
  async () => {
    const paths: string[] = [];
    for (const file of [tmpFile(32 * MiB), tmpFile(32 * MiB)]) {
      const loop = await attachLoop(file, { autoclear: true });
      onTestFinished(() => loop.detach());
      paths.push(loop.path);
    }
    const { host, devices, disk } = await openStack({ type: 'stripe', paths });
    const map = await openMap();
    const count = await host.interpose({ type: 'count' });
    const probe = await host.attachProbe({ map });
    const fault = await host.interpose({
      type: 'fault',
      seed: 7,
      rules: [{ ops: ['read', 'write'], probability: 0.05 }],
    });
    await until(() => probe.learning);
    const result = await runWorkload(disk, { pattern: 'randrw', operations: 4000, verify: true });
    expect(result).toMatchObject({ mismatches: 0 });
    expect(result.errors).toBe(fault.counters()[0]?.operations);
    expect(result.errors).toBeGreaterThan(100);
    await fault.detach();
    const counters = count.counters();
    const ledgers = Object.values(map.ledger().devices);
    for (const of of ['operations', 'bytes'] as const) {
      const ledger = ledgers.reduce(
        (sum, each) => sum + Object.values(each).reduce((part, tally) => part + tally[of], 0),
        0,
      );
      expect(ledger).toBe(total(counters, of));
    }
    let mapped = 0;
    const media = new Map(devices.map(({ name }, i) => [name, readFileSync(paths[i] as string)]));
    for (const { state, diskOffset, length, places } of map.extents(disk)) {
      if (state !== 'mapped') continue;
      const truth = (await disk.read(diskOffset, length)) as Uint8Array;
      for (const { device, offset } of places) {
        expect(
          media
            .get(device)
            ?.subarray(offset, offset + length)
            .equals(truth),
          `${diskOffset}`,
        ).toBe(true);
      }
      mapped += length;
    }
    expect(mapped).toBeGreaterThan(0);
  },
);
