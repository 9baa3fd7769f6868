// The probe and the map as JavaScript sees them, against what the devices hold.
import { readFileSync } from 'node:fs';
import { type CompletionRecord, openMap, type Probe, runWorkload } from 'stratamap';
import { describe, expect, test } from 'vitest';
import { failureOf, MiB, openStack, pattern, testHost } from '../support/stack.js';

async function learning(probe: Probe): Promise<void> {
  while (!probe.learning) await new Promise((resolve) => setTimeout(resolve, 1));
}

describe.each(['extent', 'log', 'stripe'])('%s', (type) => {
  describe.each(['serial', 'tag'] as const)('%s', (association) => {
    test('what is written is found where the map says', async () => {
      const { host, devices, disk, paths } = await openStack({ type });
      const map = await openMap();
      const probe = await host.attachProbe({ map, association, correlation: 'descend', capacity: 4096 });
      await learning(probe);
      const data = pattern(2 * MiB);
      await disk.write(MiB, data);
      await disk.flush();

      const located = map.locate(disk, 0, 4 * MiB);
      expect(located.reduce((sum, { length }) => sum + length, 0)).toBe(4 * MiB);
      let at = 0;
      for (const extent of located) {
        expect(extent.diskOffset).toBe(at);
        at += extent.length;
        const written = extent.diskOffset >= MiB && extent.diskOffset < 3 * MiB;
        expect(extent).toMatchObject({ state: written ? 'mapped' : 'unknown', moving: false, shared: false });
        expect(extent.places.length).toBe(written ? 1 : 0);
      }
      const media = new Map(devices.map(({ name }, i) => [name, readFileSync(paths[i]!)]));
      for (const { diskOffset, length, places } of map.extents(disk)) {
        for (const { device, offset } of places) {
          const there = media.get(device)!.subarray(offset, offset + length);
          expect(there.equals(data.subarray(diskOffset - MiB, diskOffset - MiB + length)), `${diskOffset}`).toBe(true);
          expect(map.owners(device, offset, length)).toEqual([
            { offset, length, state: 'mapped', moving: false, shared: false, vm: 'vm-1', disk: 'vda', diskOffset },
          ]);
        }
      }
      expect([...map.extents(disk)].reduce((sum, { length }) => sum + length, 0)).toBe(2 * MiB);
      const { devices: ledgers, unmapped } = map.ledger();
      expect(Object.keys(ledgers).sort()).toEqual(devices.map(({ name }) => name).sort());
      const attributed = Object.values(ledgers).reduce((sum, ledger) => sum + ledger.attributed.bytes, 0);
      expect(attributed).toBeGreaterThanOrEqual(2 * MiB);
      expect(Object.values(ledgers).reduce((sum, ledger) => sum + ledger.control.operations, 0)).toBeGreaterThan(0);
      expect(Object.values(unmapped).every(({ bytes }) => bytes === 0)).toBe(true);

      expect(await probe.detach({ timeout: 10_000 })).toBe(true);
      expect(new Set(Array.from(map.extents(disk), ({ state }) => state))).toEqual(new Set(['stale']));
      await map.close();
    });
  });

  test('disks and devices that are opened later are watched; deleted and shrunk ones are forgotten', async () => {
    const { host, volume, disk } = await openStack({ type });
    const map = await openMap();
    const probe = await host.attachProbe({ map });
    await learning(probe);
    const later = await volume.createDisk({ vm: 'vm/2', name: 'vdb', size: 4 * MiB });
    await later.write(0, pattern(2 * MiB));
    expect(map.locate({ vm: 'vm/2', disk: 'vdb' }, 0, 2 * MiB).every(({ state }) => state === 'mapped')).toBe(true);
    await later.resize(MiB);
    expect(map.locate(later, MiB, MiB)).toEqual([expect.objectContaining({ state: 'unknown', places: [] })]);
    expect(map.locate(later, 0, MiB).every(({ places }) => places.length > 0)).toBe(true);
    await later.close();
    await volume.deleteDisk({ vm: 'vm/2', name: 'vdb' });
    expect([...map.extents({ vm: 'vm/2', name: 'vdb' })]).toEqual([]);
    await disk.write(0, pattern(4096));
    expect(map.locate('vm-1/vda', 0, 4096)).toMatchObject([{ state: 'mapped' }]);
  });
});

test('a ledger knows a device by any name, and no other', async () => {
  const names = ['__proto__', 'constructor', 'd0'];
  const host = await testHost();
  for (const name of names) await host.openDevice({ name, driver: 'null', size: MiB });
  const map = await openMap();
  await host.attachProbe({ map });
  const none = { operations: 0, bytes: 0 };
  const { devices } = map.ledger();
  expect(Object.keys(devices).sort()).toEqual(names);
  for (const name of names) {
    expect(devices[name]).toEqual({ attributed: none, ambiguous: none, unattributed: none, control: none });
  }
  expect(devices.toString).toBeUndefined();
});

test('references to disks and devices', async () => {
  const map = await openMap();
  const unknown = [{ diskOffset: 4096, length: 100, state: 'unknown', moving: false, shared: false, places: [] }];
  expect(map.locate('never/seen', 4096, 100)).toEqual(unknown);
  expect(map.locate({ vm: 'never', disk: 'seen' }, 4096, 100)).toEqual(unknown);
  expect(map.locate({ vm: 'never', name: 'seen' }, 4096, 0)).toEqual([]);
  expect(map.owners('never', 0, 4096)).toEqual([]);
  expect([...map.extents('never/seen')]).toEqual([]);
  for (const wrong of ['vda', 'a/b/c', '/', 5, null, {}, { vm: 'a' }]) {
    expect(() => map.locate(wrong as never, 0, 1), JSON.stringify(wrong)).toThrowError(TypeError);
  }
  expect(() => map.owners(5 as never, 0, 1)).toThrowError(TypeError);
  expect(() => map.locate('a/b', -1, 1)).toThrowError(RangeError);
  expect(() => map.locate('a/b', 0, 2 ** 53)).toThrowError(RangeError);
  expect(() => map.owners('d0', Number.MAX_SAFE_INTEGER, 1)).toThrowError(RangeError);
});

describe('attachProbe', () => {
  test('refuses what there is not, and says what there is', async () => {
    const host = await testHost();
    const map = await openMap();
    // @ts-expect-error: no such association
    const association = await failureOf(host.attachProbe({ map, association: 'telepathy' }));
    expect(association).toMatchObject({ code: 'ERR_STRATAMAP_UNSUPPORTED', layer: 'probe' });
    expect(association.message).toMatch(/serial.*tag/);
    // @ts-expect-error: no such correlation
    const correlation = await failureOf(host.attachProbe({ map, correlation: 'sideways' }));
    expect(correlation).toMatchObject({ code: 'ERR_STRATAMAP_UNSUPPORTED' });
    expect(correlation.message).toContain('descend');
    for (const capacity of [63, 2 ** 22 + 1, 64.5]) {
      expect(await failureOf(host.attachProbe({ map, capacity }))).toMatchObject({ code: 'ERR_OUT_OF_RANGE' });
    }
    expect(await failureOf(host.attachProbe({ map: {} as never }))).toMatchObject({ name: 'TypeError' });
    const probe = await host.attachProbe({ map, capacity: 64 });
    expect(await failureOf(host.attachProbe({ map }))).toMatchObject({ code: 'ERR_STRATAMAP_BUSY' });
    await probe.detach();
    await (await host.attachProbe({ map })).detach();
  });

  test('attached and detached under load: no I/O fails or is lost', async () => {
    const { host, disk } = await openStack();
    let over = false;
    const load = runWorkload(disk, {
      pattern: 'mixed',
      operations: 20_000,
      verify: true,
      readPercent: 40,
      flushPercent: 1,
    });
    const done = load.finally(() => {
      over = true;
    });
    let rounds = 0;
    for (; !over; ++rounds) {
      const map = await openMap();
      const probe = await host.attachProbe({ map, association: rounds % 2 ? 'tag' : 'serial' });
      expect(await probe.detach({ timeout: 30_000 })).toBe(true);
      expect(Array.from(map.extents(disk)).every(({ state }) => state !== 'mapped')).toBe(true);
    }
    expect(await done).toMatchObject({ errors: 0, mismatches: 0 });
    expect(rounds).toBeGreaterThan(3);
  });
});

describe('completions', () => {
  test('each request once, with its pieces and times in order', async () => {
    const { host, disk } = await openStack({ type: 'stripe' });
    const map = await openMap();
    const probe = await host.attachProbe({ map });
    await learning(probe);
    const records: CompletionRecord[] = [];
    const completions = probe.completions();
    const consumer = (async () => {
      for await (const batch of completions) for (const completion of batch) records.push(completion.toObject());
    })();
    for (let i = 0; i < 50; ++i) await disk.write(i * 65536, pattern(65536, i));
    await disk.read(0, 4096);
    await disk.flush();
    await disk.discard(0, 65536);
    await disk.writeZeroes(65536, 4096);
    await probe.detach();
    await consumer;

    expect(records.map(({ op }) => op)).toEqual([
      ...Array(50).fill('write'),
      'read',
      'flush',
      'discard',
      'writeZeroes',
    ]);
    let last = 0;
    for (const [i, record] of records.entries()) {
      expect(record).toMatchObject({ vm: 'vm-1', disk: 'vda', status: 0 });
      if (i < 50) expect(record).toMatchObject({ offset: i * 65536, length: 65536 });
      expect(record.submitted).toBeGreaterThanOrEqual(last);
      expect(record.completed).toBeGreaterThanOrEqual(record.submitted);
      last = record.completed;
      if (record.op === 'flush' || record.pieces.length === 0) continue;
      expect(record.firstIssued).toBeGreaterThanOrEqual(record.submitted);
      expect(record.lastCompleted).toBeGreaterThanOrEqual(record.firstIssued);
      expect(record.completed).toBeGreaterThanOrEqual(record.lastCompleted);
      if (record.op === 'write') expect(record.pieces.reduce((sum, { length }) => sum + length, 0)).toBe(65536);
      for (const { device, length } of record.pieces) {
        expect(['d0', 'd1']).toContain(device);
        expect(length).toBeGreaterThan(0);
      }
    }
    expect(probe.stats.eventsDropped).toBe(0);
    expect(await completions.next()).toEqual({ done: true, value: undefined });
  });

  test('one consumer at a time; one that has ended makes room for the next', async () => {
    const { host, disk } = await openStack();
    const probe = await host.attachProbe({ map: await openMap() });
    const first = probe.completions();
    expect(() => probe.completions()).toThrowError(expect.objectContaining({ code: 'ERR_STRATAMAP_BUSY' }));
    await disk.write(0, pattern(4096));
    for await (const batch of first) {
      expect([...batch].length).toBe(1);
      break;
    }
    const second = probe.completions();
    await disk.write(4096, pattern(4096));
    const { value } = await second.next();
    expect(Array.from(value!, ({ offset }) => offset)).toEqual([4096]);
    await second.return();
  });

  test('a consumer that is ended before it has begun makes room for the next', async () => {
    const { host, disk } = await openStack();
    const probe = await host.attachProbe({ map: await openMap() });
    for (const end of ['return', Symbol.asyncDispose] as const) {
      const early = probe.completions();
      await disk.write(0, pattern(4096));
      await early[end]();
      expect(await early.next()).toEqual({ done: true, value: undefined });
    }
    const late = probe.completions();
    await disk.write(8192, pattern(4096));
    const { value } = await late.next();
    expect(Array.from(value!, ({ offset }) => offset)).toEqual([8192]);
  });

  test('a consumer that waits is done when it is ended, or the probe detached', async () => {
    const { host } = await openStack();
    const probe = await host.attachProbe({ map: await openMap() });
    const done = { done: true, value: undefined };
    const ended = probe.completions();
    const waiting = [ended.next(), ended.next()];
    await ended.return();
    expect(await Promise.all(waiting)).toEqual([done, done]);
    const last = probe.completions().next();
    await probe.detach();
    expect(await last).toEqual(done);
  });

  test('what is not taken in time is dropped and counted', async () => {
    const { host, disk } = await openStack();
    const probe = await host.attachProbe({ map: await openMap() });
    const completions = probe.completions({ bufferBytes: 65536 });
    await runWorkload(disk, { pattern: 'write', operations: 2000 });
    const dropped = probe.stats.eventsDropped;
    expect(dropped).toBeGreaterThan(0);
    await probe.detach();
    let taken = 0;
    for await (const batch of completions) for (const _ of batch) ++taken;
    expect(taken + dropped).toBe(2000);
    expect(probe.stats).toMatchObject({ recorded: 2000, unrecorded: 0, eventsDropped: dropped });
    expect(() => probe.completions({ bufferBytes: 1 })).toThrowError(
      expect.objectContaining({ code: 'ERR_STRATAMAP_CLOSED' }),
    );
  });

  test('all of a fast load comes through to a consumer that keeps up', async () => {
    const { host, disk } = await openStack();
    const probe = await host.attachProbe({ map: await openMap() });
    const completions = probe.completions();
    let taken = 0;
    const consumer = (async () => {
      for await (const batch of completions) for (const _ of batch) ++taken;
    })();
    await runWorkload(disk, { pattern: 'randrw', operations: 20_000 });
    await probe.detach();
    await consumer;
    expect(taken + probe.stats.eventsDropped).toBe(20_000);
  });
});
