// An unmodified qemu-storage-daemon between the two points: disk, volume `nbd`, the daemon with qcow2, our export of a
// loop device (of a file, where there are none), its dispatch table. And the truth: what `qemu-img map` says afterwards,
// and what the device then holds.
import { readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import {
  type AddressMap,
  attachLoop,
  type Correlation,
  type Device,
  type Disk,
  type Extent,
  type Host,
  type NbdServer,
  openHost,
  openMap,
  type Probe,
} from 'stratamap';
import { onTestFinished } from 'vitest';
import { tmpDir, tmpFile } from './files.js';
import { hasLoop } from './machine.js';
import { imageMap, type Piece, qemuImg, storageDaemon } from './qemu.js';
import { MiB } from './stack.js';

export const BLOCK = 4096;
export const CLUSTER = 65536; // and the largest request
export const SIZE = 24 * MiB; // of the disk
const DEPTH = 16;
const SECTOR = 512;

/** The same numbers for the same seed, 0 to 2^32 - 1. */
function randomOf(seed: number): () => number {
  let state = Math.imul(seed, 0x9e3779b1);
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed);
    return (mixed ^ (mixed >>> 14)) >>> 0;
  };
}

export interface SandwichOptions {
  /** Arguments of `qemu-img create`. */
  create?: string[];
  /** More keys of qcow2's blockdev, `key=value` each. */
  keys?: string[];
  /** QEMU's objects that those name. */
  objects?: string[];
  /** What the disk holds at first. */
  content?: Buffer;
  correlation?: Correlation;
}

export interface Verdict {
  /** Of the blocks that passed while the probe learned, and are neither zeroes nor like others: the mapped share. */
  recall: number;
  /** How many those are. */
  blocks: number;
  /** Bytes that were mapped. */
  mapped: number;
  /** Where a mapped place does not hold what was written: some of them. */
  wrong: string[];
  /**
   * Where a mapped place is not the one that qemu-img tells of: some of them. Not of blocks that are like others, for
   * these have the same bytes in other places; nor where the map says `moving`: qcow2 has then read the place to copy
   * it, and goes on with the copy.
   */
  elsewhere: string[];
}

export class Sandwich {
  readonly content: Buffer;
  disk!: Disk;
  map!: AddressMap;
  #host!: Host;
  #device!: Device;
  #server!: NbdServer;
  #file!: string;
  #detach = async () => {};
  #closeAbove = async () => {};
  readonly #random = randomOf(7);
  readonly #folder = tmpDir();
  readonly #options: SandwichOptions;
  readonly #seen = new Set<number>(); // blocks that passed while the probe learned
  readonly #unique = new Set<number>();
  #serial = 0;

  private constructor(options: SandwichOptions) {
    this.#options = options;
    this.content = options.content ?? Buffer.alloc(SIZE);
  }

  static async open(options: SandwichOptions = {}): Promise<Sandwich> {
    const sandwich = new Sandwich(options);
    await sandwich.#openBelow();
    await sandwich.openAbove();
    return sandwich;
  }

  get #objects(): string[] {
    return (this.#options.objects ?? []).flatMap((each) => ['--object', each]);
  }

  async #openBelow(): Promise<void> {
    this.#file = tmpFile(64 * MiB);
    let medium = this.#file;
    if (hasLoop) {
      const loop = await attachLoop(this.#file);
      this.#detach = () => loop.detach();
      medium = loop.path;
    }
    this.#host = await openHost();
    onTestFinished(() => this.#end());
    this.#device = await this.#host.openDevice({ name: 'd0', path: medium });
    this.#server = await this.#host.serveNbd({ socket: `${this.#folder}/below`, exports: [this.#device] });
    const { create = [] } = this.#options;
    await qemuImg('create', '-q', '-f', 'qcow2', ...this.#objects, ...create, this.uri, `${SIZE}`);
  }

  /** Of the device's export, on which the image is. */
  get uri(): string {
    return this.#server.uri(this.#device);
  }

  /** The daemon, and what is above it. */
  async openAbove(): Promise<void> {
    const socket = path.join(this.#folder, 'above');
    rmSync(socket, { force: true });
    const image = ['driver=qcow2', 'node-name=image', 'file=file', ...(this.#options.keys ?? [])];
    const daemon = await storageDaemon(socket, [
      ...this.#objects,
      '--blockdev',
      `driver=nbd,node-name=file,server.type=unix,server.path=${this.#folder}/below,export=d0`,
      ...['--blockdev', image.join()],
      ...['--nbd-server', `addr.type=unix,addr.path=${socket}`],
      ...['--export', 'type=nbd,id=e,node-name=image,name=image,writable=on'],
    ]);
    const uri = `nbd+unix:///image?socket=${encodeURIComponent(socket)}`;
    const remote = await this.#host.openDevice({ name: 'remote', driver: 'nbd', uri });
    const volume = await this.#host.openVolume({ name: 'v0', type: 'nbd', devices: [remote] });
    this.disk = await volume.createDisk({ vm: 'vm-1', name: 'vda', size: SIZE });
    this.#closeAbove = async () => {
      this.#closeAbove = async () => {};
      await volume.close();
      await remote.close();
      await daemon.stop();
    };
  }

  closeAbove(): Promise<void> {
    return this.#closeAbove();
  }

  /** From now on what passes teaches. */
  async watch(): Promise<Probe> {
    this.map = await openMap();
    const { correlation = 'descend' } = this.#options;
    const probe = await this.#host.attachProbe({ map: this.map, association: 'content', correlation });
    while (!probe.learning) await this.disk.flush();
    this.#seen.clear();
    return probe;
  }

  /** Random requests of 4 and 64 KiB at depth 16 that do not overlap; `reads`: how many of a hundred. */
  async load(requests: number, reads: number): Promise<void> {
    const busy = new Set<number>();
    let left = requests;
    const worker = async () => {
      while (left-- > 0) {
        const length = this.#random() % 4 === 0 ? CLUSTER : BLOCK;
        let offset: number;
        do offset = (this.#random() % (SIZE / length)) * length;
        while (busy.has(Math.floor(offset / CLUSTER)));
        const cluster = Math.floor(offset / CLUSTER);
        busy.add(cluster);
        if (this.#random() % 100 < reads) await this.read(offset, length);
        else await this.write(offset, length);
        busy.delete(cluster);
      }
    };
    await Promise.all(Array.from({ length: DEPTH }, worker));
  }

  /** A tenth of the blocks are zeroes, and a tenth are like others. */
  async write(offset: number, length: number): Promise<void> {
    const data = this.content.subarray(offset, offset + length);
    for (let at = 0; at < length; at += BLOCK) {
      const block = data.subarray(at, at + BLOCK);
      const lot = this.#random() % 10;
      this.#unique.delete((offset + at) / BLOCK);
      if (lot === 0) block.fill(0);
      else if (lot === 1) block.fill(1 + (this.#random() % 3));
      else {
        this.#unique.add((offset + at) / BLOCK);
        const fill = randomOf(++this.#serial);
        for (let i = 0; i < BLOCK; i += 4) block.writeUInt32LE(fill(), i);
      }
    }
    await this.disk.write(offset, data);
    this.#pass(offset, length);
  }

  async read(offset: number, length: number): Promise<void> {
    const data = await this.disk.read(offset, length);
    if (!this.content.subarray(offset, offset + length).equals(data)) throw new Error(`wrong data at ${offset}`);
    this.#pass(offset, length);
  }

  #pass(offset: number, length: number): void {
    for (let at = offset; at < offset + length; at += BLOCK) this.#seen.add(at / BLOCK);
  }

  async #end(): Promise<void> {
    await this.closeAbove();
    await this.#host.close();
    await this.#detach();
    this.#detach = async () => {};
  }

  /** What the map says, held against the truth; nothing is open any more afterwards. */
  async verdict(): Promise<Verdict> {
    await this.disk.flush();
    const extents = this.map.locate(this.disk, 0, SIZE).filter(({ state }) => state === 'mapped');
    await this.#end();
    const image = ['driver=qcow2', `file.filename=${this.#file}`, ...(this.#options.keys ?? [])].join();
    const truth = await imageMap(image, this.#options.objects);
    const raw = readFileSync(this.#file);
    const wrong: string[] = [];
    const elsewhere: string[] = [];
    let mapped = 0;
    const whole = new Set<number>();
    for (const extent of extents) {
      mapped += extent.length;
      for (let at = 0; at < extent.length; at += SECTOR) {
        const disk = extent.diskOffset + at;
        const piece = truth.find(({ start, length }) => start <= disk && disk < start + length);
        const said = `${JSON.stringify(extent)} at ${at}: qemu-img says ${JSON.stringify(piece)}`;
        if (!this.#holds(extent, at, raw) && wrong.length < 8) wrong.push(said);
        if (extent.moving || !this.#unique.has(Math.floor(disk / BLOCK))) continue;
        if (!isThere(extent, at, piece) && elsewhere.length < 8) elsewhere.push(said);
      }
      const end = extent.diskOffset + extent.length;
      for (let at = Math.ceil(extent.diskOffset / BLOCK) * BLOCK; at + BLOCK <= end; at += BLOCK) whole.add(at / BLOCK);
    }
    const counted = [...this.#seen].filter((block) => this.#unique.has(block));
    const found = counted.filter((block) => whole.has(block)).length;
    return {
      recall: counted.length > 0 ? found / counted.length : Number.NaN,
      blocks: counted.length,
      mapped,
      wrong,
      elsewhere,
    };
  }

  #holds(extent: Extent, at: number, raw: Buffer): boolean {
    const expected = this.content.subarray(extent.diskOffset + at, extent.diskOffset + at + SECTOR);
    return extent.places.every(
      ({ device, offset }) => device === 'd0' && raw.subarray(offset + at, offset + at + SECTOR).equals(expected),
    );
  }
}

function isThere(extent: Extent, at: number, piece: Piece | undefined): boolean {
  if (extent.places.length !== 1 || piece?.depth !== 0 || piece.offset === undefined) return false;
  return (extent.places[0]?.offset ?? 0) + at === piece.offset + (extent.diskOffset + at - piece.start);
}
