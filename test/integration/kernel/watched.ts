// A disk on a stack of the kernel, in pieces, with a probe that learns by `hint`; and what its map is worth.
import { existsSync, mkdirSync } from 'node:fs';
import path from 'node:path';
import {
  type AddressMap,
  associations,
  type Disk,
  type Extent,
  type Host,
  inspectMachine,
  openMap,
  type Probe,
  type Tagging,
  verify,
} from 'stratamap';
import { expect, type TestAPI } from 'vitest';
import { nightly, type Reason, unless } from '../../support/machine.js';
import { MiB, pattern, testHost } from '../../support/stack.js';
import { makeFragmented } from './fragments.js';
import { BLOCK, Load } from './load.js';
import { Medium } from './medium.js';
import { judgedByBytes, judgedByPlaces, oracleOf, UNIT } from './oracle.js';
import {
  type FileSystemName,
  type KernelStack,
  lacksStacks,
  makeSparse,
  openKernelStack,
  type StackOptions,
} from './stacks.js';

/** I/Os of a test: all that is asked for, or fewer where it is to be quick. */
export const operations = (quick: number): number => (nightly ? 50_000 : quick);

const facts = (await inspectMachine()).facts;
const NEEDED = ['kernel', 'CAP_PERFMON', 'CAP_BPF'];
const TYPES = '/sys/kernel/btf/vmlinux';
const lacking = facts.find(({ name, state }) => NEEDED.includes(name) && state !== 'present');
const noHint: Reason = !Object.hasOwn(associations(), 'hint')
  ? 'this version has no association hint'
  : (lacking && `it needs ${lacking.name}: ${lacking.found}`) || (existsSync(TYPES) ? undefined : `it needs ${TYPES}`);

/** Why a probe cannot learn on stacks of these file systems, or not with these programs. */
export const lacksHint = (fileSystems: FileSystemName[], ...programs: string[]): Reason =>
  noHint ?? lacksStacks(fileSystems, ...programs);

/** `test`, or `test.skip` and that, printed. */
export const needsHint = (what: string, fileSystems: FileSystemName[], ...programs: string[]): TestAPI =>
  unless(what, lacksHint(fileSystems, ...programs));

export interface WatchedOptions extends StackOptions {
  /** Of the image. Default 80 MiB, in thousands of pieces. */
  imageBytes?: number;
  /** A file that is all hole in place of one in pieces. */
  sparse?: boolean;
  tagging?: Tagging;
  /** What is done to the image before it is opened. */
  prepare?: (stack: KernelStack, file: string) => Promise<unknown>;
}

export class Watched {
  private constructor(
    readonly stack: KernelStack,
    /** The image. */
    readonly file: string,
    readonly host: Host,
    readonly disk: Disk,
    readonly map: AddressMap,
    readonly probe: Probe,
    readonly load: Load,
    readonly media: ReadonlyMap<string, Medium>,
  ) {}

  /** Everything open, and the probe learning. The end of the test closes it. */
  static async open(options: WatchedOptions): Promise<Watched> {
    const { imageBytes = 80 * MiB, sparse = false, tagging = 'always', prepare, ...of } = options;
    const stack = await openKernelStack(of);
    const { directory } = stack.upper;
    mkdirSync(path.join(directory, 'vm-1'));
    const file = path.join(directory, 'vm-1', 'vda.img');
    if (sparse) makeSparse(file, imageBytes);
    const content = sparse ? Buffer.alloc(imageBytes) : await makeFragmented(file, { bytes: imageBytes });
    await prepare?.(stack, file);
    const host = await testHost();
    const volume = await host.openVolume({ name: 'v0', type: 'kernel', options: { directory } });
    const disk = await volume.openDisk({ vm: 'vm-1', name: 'vda' });
    const map = await openMap();
    const probe = await host.attachProbe({ map, association: 'hint', tagging });
    while (!probe.learning) await new Promise((resolve) => setTimeout(resolve, 5));
    const media = new Map([stack.upper, stack.lower].map(({ device }) => [device, new Medium(device)]));
    return new Watched(stack, file, host, disk, map, probe, new Load(disk, content), media);
  }

  get upper(): string {
    return this.stack.upper.device;
  }

  get lower(): string {
    return this.stack.lower.device;
  }

  /** Bytes of each state, and of each flag, by what the map says of the whole disk; each once. */
  states(): Record<Extent['state'] | 'moving' | 'shared', number> {
    const bytes = { unknown: 0, stale: 0, mapped: 0, moving: 0, shared: 0 };
    for (const { length, state, moving, shared } of this.map.locate(this.disk, 0, this.disk.size)) {
      bytes[state] += length;
      if (moving) bytes.moving += length;
      if (shared) bytes.shared += length;
    }
    return bytes;
  }

  /**
   * Nothing that is mapped is wrong, by the bytes on the devices. With no I/O in flight. Returns how many bytes are
   * mapped on each device, upper and lower.
   */
  rightByBytes(): [number, number] {
    const { mapped, wrong } = judgedByBytes(this.map, this.disk, this.media, this.load.content);
    expect(wrong).toEqual([]);
    return [mapped[this.upper] ?? 0, mapped[this.lower] ?? 0];
  }

  /**
   * The same, and by FIEMAP of both file systems. Returns how many of the bytes that passed are mapped nowhere, on each
   * device.
   */
  async rightByPlaces(): Promise<[number, number]> {
    this.rightByBytes();
    const oracle = await oracleOf(this.stack, this.file, this.disk.size);
    const seen = (unit: number) => this.load.seen(unit * UNIT);
    const { missed, wrong } = judgedByPlaces(this.map, this.disk, oracle, seen);
    expect(wrong).toEqual([]);
    return [missed[this.upper] as number, missed[this.lower] as number];
  }

  /** What `verify` says of it. */
  async verified(): Promise<void> {
    const { devices, wrong } = await verify(this.map, { disk: this.disk, file: this.file });
    expect(wrong).toEqual([]);
    expect(devices.map(({ device }) => device)).toEqual([this.upper, this.lower]);
    for (const { mapped, precision, fiemap, bytes } of devices) {
      expect(precision).toBe(mapped > 0 ? 1 : null);
      expect(fiemap.agreeing + fiemap.differing + fiemap.incomparable + fiemap.moved).toBe(mapped);
      expect(bytes.equal + bytes.different + bytes.incomparable + bytes.moved).toBe(mapped);
    }
  }

  /** Why bytes are not mapped, or are no longer: everything that counts such. */
  excuses(): number {
    const { stats } = this.probe;
    const { missing, excess, crossing, unordered, foreign, astray } = stats.kernel;
    const unmapped = Object.values(this.map.ledger().unmapped).reduce((sum, { operations }) => sum + operations, 0);
    const uneven = missing + excess + crossing + unordered + foreign + astray;
    return unmapped + stats.unrecorded + stats.evidenceLost + stats.losses + uneven;
  }
}

/** Bytes that nothing else has: what another program overwrites with. */
export const strange = (bytes: number): Buffer => pattern(Math.ceil(bytes / BLOCK) * BLOCK, 0x5eed);
