// The public API against a model, by random programs (fast-check): batches of concurrent I/O, probes that come and go
// with every association and correlation, volumes that are closed and opened again. The model is the content of the
// disks, block by block; the map must never claim anything else. SM_SEED=… repeats a run.
import { closeSync, openSync, readSync } from 'node:fs';
import fc from 'fast-check';
import {
  type AddressMap,
  type Association,
  associations,
  type Correlation,
  type Device,
  type Disk,
  type Host,
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
  | { kind: 'batch'; ios: Io[] }
  | { kind: 'attach'; association: Association; correlation: Correlation }
  | { kind: 'detach' }
  | { kind: 'reopen' };

const kinds = Object.entries(associations()).flatMap(([association, { correlations }]) =>
  correlations.map((correlation) => ({ association: association as Association, correlation })),
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
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.array(io, { minLength: 1, maxLength: 24 }).map((ios) => ({ kind: 'batch' as const, ios })),
  },
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
  readonly #truth = VMS.map(() => Buffer.alloc(DISK_BYTES));
  #writes = 0;
  mappedBytes = 0;

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
    if (step.kind === 'batch') await Promise.all(apart(step.ios).map((each) => this.#io(each)));
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
    if (io.kind === 'read') {
      const data = (await disk.read(offset, length)) as Uint8Array;
      expect(truth.compare(data, 0, length, offset, offset + length)).toBe(0);
    } else if (io.kind === 'write') {
      const data = pattern(length, ++this.#writes);
      await disk.write(offset, data, { fua: io.fua });
      data.copy(truth, offset);
    } else {
      if (io.kind === 'zeroes') await disk.writeZeroes(offset, length, { fua: io.fua });
      else await disk.discard(offset, length);
      truth.fill(0, offset, offset + length);
    }
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
    const property = fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 30 }), async (steps) => {
      const world = new World(type, issue);
      await world.open();
      try {
        for (const each of steps) await world.run(each);
        mapped += world.mappedBytes;
      } finally {
        await world.close();
      }
    });
    const seed = Number(process.env.SM_SEED ?? 1);
    await fc.assert(property, { numRuns: nightly ? 2000 : 25, seed, endOnFailure: false });
    expect(mapped).toBeGreaterThan(0);
  });
});
