// The public API against a model, by random programs (fast-check): batches of concurrent I/O, probes that come and go
// with every association and correlation, interposers that come, go and change places while I/O is in flight, requests
// that are made to fail, volumes that are closed and opened again. The model is the content of the disks, block by block,
// and which blocks a failed request left unknown; the map must never claim anything else. SM_SEED=… repeats a run.
import { closeSync, openSync, readSync } from 'node:fs';
import fc from 'fast-check';
import {
  type AddressMap,
  type Association,
  associations,
  type Correlation,
  type Device,
  type Disk,
  type FaultRule,
  type Host,
  type Interposer,
  type Operation,
  openHost,
  openMap,
  type Probe,
  type Volume,
} from 'stratamap';
import { describe, expect, test } from 'vitest';
import { tmpFile } from '../support/files.js';
import { nightly } from '../support/machine.js';
import { MiB, pattern } from '../support/stack.js';

const BLOCK = 512;
const DISK_BYTES = MiB;
const VMS = ['a', 'b'];

type Range = { disk: number; block: number; blocks: number };
type Io =
  | ({ kind: 'write' | 'zeroes'; fua: boolean } & Range)
  | ({ kind: 'discard' | 'read' } & Range)
  | { kind: 'flush'; disk: number };
type Step =
  | { kind: 'batch'; ios: Io[]; shuffle: number[] }
  | { kind: 'faulty'; ios: Io[]; rule: Required<Pick<FaultRule, 'ops' | 'kind' | 'every'>>; position: number }
  | { kind: 'interpose'; type: 'delay' | 'count' | 'fault'; position: number }
  | { kind: 'withdraw'; which: number }
  | { kind: 'attach'; association: Association; correlation: Correlation }
  | { kind: 'detach' }
  | { kind: 'reopen' };

const kinds = Object.entries(associations()).flatMap(([association, { correlations, kernel }]) =>
  kernel ? [] : correlations.map((correlation) => ({ association: association as Association, correlation })),
);

const range = fc
  .record({
    disk: fc.nat(VMS.length - 1),
    block: fc.nat(DISK_BYTES / BLOCK - 1),
    blocks: fc.integer({ min: 1, max: 200 }),
  })
  .map(({ disk, block, blocks }) => ({ disk, block, blocks: Math.min(blocks, DISK_BYTES / BLOCK - block) }));
const io: fc.Arbitrary<Io> = fc.oneof(
  { weight: 6, arbitrary: fc.tuple(range, fc.boolean()).map(([at, fua]) => ({ kind: 'write' as const, fua, ...at })) },
  { weight: 3, arbitrary: range.map((at) => ({ kind: 'read' as const, ...at })) },
  { weight: 1, arbitrary: range.map((at) => ({ kind: 'discard' as const, ...at })) },
  { weight: 1, arbitrary: fc.tuple(range, fc.boolean()).map(([at, fua]) => ({ kind: 'zeroes' as const, fua, ...at })) },
  { weight: 1, arbitrary: fc.nat(VMS.length - 1).map((disk) => ({ kind: 'flush' as const, disk })) },
);
const ios = fc.array(io, { minLength: 1, maxLength: 24 });
const position = fc.nat(4);
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      kind: fc.constant('batch' as const),
      ios,
      shuffle: fc.array(fc.nat(100), { maxLength: 3 }),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('faulty' as const),
      ios,
      position,
      rule: fc.record({
        ops: fc.constantFrom<Operation[]>(['read'], ['write'], ['read', 'write']),
        kind: fc.constantFrom('error' as const, 'short' as const),
        every: fc.integer({ min: 1, max: 4 }),
      }),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('interpose' as const),
      type: fc.constantFrom('delay' as const, 'count' as const, 'fault' as const),
      position,
    }),
  },
  { weight: 1, arbitrary: fc.nat(3).map((which) => ({ kind: 'withdraw' as const, which })) },
  { weight: 2, arbitrary: fc.constantFrom(...kinds).map((kind) => ({ kind: 'attach' as const, ...kind })) },
  { weight: 1, arbitrary: fc.constant({ kind: 'detach' as const }) },
  { weight: 1, arbitrary: fc.constant({ kind: 'reopen' as const }) },
);

/** Requests that overlap leave bytes of which the model knows only that they are one's or the other's. */
function apart(ios: readonly Io[]): Io[] {
  const taken: Range[] = [];
  return ios.filter((each) => {
    if (each.kind === 'flush') return true;
    const meets = (other: Range) =>
      other.disk === each.disk && other.block < each.block + each.blocks && each.block < other.block + other.blocks;
    if (taken.some(meets)) return false;
    taken.push(each);
    return true;
  });
}

class World {
  readonly #type: string;
  readonly #issue: string;
  readonly #paths: string[];
  #host!: Host;
  #devices: Device[] = [];
  #volume!: Volume;
  #disks: Disk[] = [];
  #map: AddressMap | undefined;
  #probe: Probe | undefined;
  readonly #interposers: Interposer[] = [];
  readonly #truth = VMS.map(() => Buffer.alloc(DISK_BYTES));
  /** By block: a request that failed may have changed it. */
  readonly #unknown = VMS.map(() => new Uint8Array(DISK_BYTES / BLOCK));
  #writes = 0;
  mappedBytes = 0;
  failures = 0;

  constructor(type: string, issue: string) {
    this.#type = type;
    this.#issue = issue;
    this.#paths = [tmpFile(8 * MiB), tmpFile(6 * MiB)];
  }

  async open(): Promise<void> {
    this.#host = await openHost({ threads: 1 });
    this.#devices = [];
    for (const [i, path] of this.#paths.entries()) {
      this.#devices.push(await this.#host.openDevice({ name: `d${i}`, path }));
    }
    await this.#host.formatVolume({ type: this.#type, devices: this.#devices, options: { issue: this.#issue } });
    await this.#openVolume(true);
  }

  async #openVolume(create: boolean): Promise<void> {
    this.#volume = await this.#host.openVolume({ name: 'v', type: this.#type, devices: this.#devices });
    this.#disks = [];
    for (const vm of VMS) {
      const names = { vm, name: 'vda' };
      const disk = create ? this.#volume.createDisk({ ...names, size: DISK_BYTES }) : this.#volume.openDisk(names);
      this.#disks.push(await disk);
    }
  }

  async run(step: Step): Promise<void> {
    if (step.kind === 'batch') {
      await Promise.all([...apart(step.ios).map((each) => this.#io(each)), this.#shuffle(step.shuffle)]);
    } else if (step.kind === 'faulty') await this.#faulty(step);
    else if (step.kind === 'interpose') await this.#interpose(step);
    else if (step.kind === 'withdraw') await this.#withdraw(step.which);
    else if (step.kind === 'attach') await this.#attach(step);
    else if (step.kind === 'detach') await this.#detach();
    else {
      await this.#volume.close();
      await this.#openVolume(false);
    }
    await this.check();
  }

  async #io(io: Io): Promise<void> {
    const disk = this.#disks[io.disk] as Disk;
    if (io.kind === 'flush') return disk.flush();
    const truth = this.#truth[io.disk] as Buffer;
    const [offset, length] = [io.block * BLOCK, io.blocks * BLOCK];
    const unknown = (this.#unknown[io.disk] as Uint8Array).subarray(io.block, io.block + io.blocks);
    if (io.kind === 'read') {
      const data = (await disk.read(offset, length)) as Uint8Array;
      // What is not known is learned.
      for (let i = 0; i < io.blocks; ++i)
        if (unknown[i]) truth.set(data.subarray(i * BLOCK, (i + 1) * BLOCK), offset + i * BLOCK);
      unknown.fill(0);
      expect(truth.compare(data, 0, length, offset, offset + length)).toBe(0);
      return;
    }
    unknown.fill(1);
    if (io.kind === 'write') {
      const data = pattern(length, ++this.#writes);
      await disk.write(offset, data, { fua: io.fua });
      data.copy(truth, offset);
    } else {
      if (io.kind === 'zeroes') await disk.writeZeroes(offset, length, { fua: io.fua });
      else await disk.discard(offset, length);
      truth.fill(0, offset, offset + length);
    }
    unknown.fill(0);
  }

  async #interpose({ type, position }: { type: 'delay' | 'count' | 'fault'; position: number }): Promise<void> {
    if (this.#interposers.length >= 4) return;
    const options = {
      delay: { type: 'delay', distribution: 'exponential', mean: 50_000, position },
      count: { type: 'count', position },
      fault: { type: 'fault', rules: [{ probability: 0 }], position },
    } as const;
    this.#interposers.push(await this.#host.interpose(options[type]));
  }

  async #withdraw(which: number): Promise<void> {
    const [interposer] = this.#interposers.splice(which, 1);
    if (interposer) expect(await interposer.detach({ timeout: 10_000 })).toBe(true);
  }

  /** Brings the interposers of every device into orders that the numbers choose. */
  async #shuffle(numbers: readonly number[]): Promise<void> {
    const all = [...this.#interposers, ...(this.#probe ? [this.#probe] : [])];
    for (const number of numbers) {
      const [moved] = all.splice(number % Math.max(1, all.length), 1);
      if (moved) all.unshift(moved);
      for (const device of this.#devices) await device.reorder(all);
    }
  }

  /**
   * Some requests to the devices fail, and with them those that they serve. Where a volume writes metadata of its
   * own under load, reads alone: one of those that fails is its affair until it is opened again.
   */
  async #faulty({ ios, rule, position }: Extract<Step, { kind: 'faulty' }>): Promise<void> {
    const ops = this.#type === 'stripe' ? rule.ops : (['read'] as const);
    const fault = await this.#host.interpose({ type: 'fault', rules: [{ ...rule, ops }], position });
    const results = await Promise.allSettled(apart(ios).map((each) => this.#io(each)));
    expect(await fault.detach({ timeout: 10_000 })).toBe(true);
    const failed = results.filter(({ status }) => status === 'rejected') as PromiseRejectedResult[];
    for (const { reason } of failed) expect(reason).toMatchObject({ code: 'EIO' });
    const struck = fault.counters()[0]?.operations ?? 0;
    expect(failed.length).toBeLessThanOrEqual(struck);
    expect(failed.length > 0).toBe(struck > 0);
    this.failures += failed.length;
  }

  async #attach({ association, correlation }: { association: Association; correlation: Correlation }): Promise<void> {
    if (this.#probe) return;
    this.#map = await openMap();
    this.#probe = await this.#host.attachProbe({ map: this.#map, association, correlation, capacity: 1024 });
  }

  async #detach(): Promise<void> {
    if (!this.#probe) return;
    expect(await this.#probe.detach({ timeout: 10_000 })).toBe(true);
    this.#probe = undefined;
  }

  /** Rule 1, and what an answer must look like. With nothing in flight. */
  async check(): Promise<void> {
    const map = this.#map;
    if (!map) return;
    const media = this.#paths.map((path) => openSync(path, 'r'));
    try {
      for (const [i, vm] of VMS.entries()) {
        let at = 0;
        for (const extent of map.locate(`${vm}/vda`, 0, DISK_BYTES)) {
          expect(extent.diskOffset).toBe(at);
          at += extent.length;
          expect(extent.places.length > 0).toBe(extent.state !== 'unknown');
          if (extent.state !== 'mapped') continue;
          expect(this.#probe).toBeDefined(); // rule 7
          this.mappedBytes += extent.length;
          for (const { device, offset } of extent.places) {
            const there = Buffer.alloc(extent.length);
            readSync(media[Number(device.slice(1))] as number, there, 0, there.length, offset);
            const truth = (this.#truth[i] as Buffer).subarray(extent.diskOffset, extent.diskOffset + extent.length);
            expect(there.equals(truth), `${vm} at ${extent.diskOffset} in ${device} at ${offset}`).toBe(true);
            const [from, to] = [extent.diskOffset / BLOCK, (extent.diskOffset + extent.length) / BLOCK];
            expect(this.#unknown[i]?.subarray(Math.floor(from), Math.ceil(to)).includes(1)).toBe(false);
            const owners = map.owners(device, offset, extent.length).filter((owner) => owner.vm === vm);
            expect(owners.reduce((sum, { length }) => sum + length, 0)).toBeGreaterThanOrEqual(extent.length);
          }
        }
        expect(at).toBe(DISK_BYTES);
      }
    } finally {
      for (const fd of media) closeSync(fd);
    }
  }

  async close(): Promise<void> {
    await this.#host.close();
  }
}

describe.each(['extent', 'log', 'stripe'])('%s', (type) => {
  test.each(['clone', 'fresh'])('by %s: whatever is done, the map claims what is so', async (issue) => {
    let mapped = 0;
    let failures = 0;
    const property = fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 30 }), async (steps) => {
      const world = new World(type, issue);
      await world.open();
      try {
        for (const each of steps) await world.run(each);
        mapped += world.mappedBytes;
        failures += world.failures;
      } finally {
        await world.close();
      }
    });
    const seed = Number(process.env.SM_SEED ?? 1);
    await fc.assert(property, { numRuns: nightly ? 400 : 25, seed, endOnFailure: false });
    expect(mapped).toBeGreaterThan(0);
    expect(failures).toBeGreaterThan(0);
  });
});
