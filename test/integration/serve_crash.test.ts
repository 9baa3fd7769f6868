// `stratamap serve` ended under load: asked to, it loses nothing that was acknowledged; killed, nothing that was flushed.
import { closeSync, openSync, readSync } from 'node:fs';
import path from 'node:path';
import type { Extent } from 'stratamap';
import { attachLoop } from 'stratamap';
import { expect, onTestFinished, test } from 'vitest';
import { tmpDir, tmpFile } from '../support/files.js';
import { hasLoop, nightly } from '../support/machine.js';
import { NbdClient } from '../support/nbd_client.js';
import { type Running, startServe } from '../support/serve.js';
import { MiB } from '../support/stack.js';

const ROUNDS = nightly ? 20 : 4;
const BLOCK = 4096;
const BLOCKS = 512;
const DEPTH = 16;
const NAME = 'vm-1/vda';

/** What was written to each block, by number; 0: nothing. */
class Truth {
  /** The last that was sent, acknowledged, and known to be flushed. */
  readonly sent = new Uint32Array(BLOCKS);
  readonly acknowledged = new Uint32Array(BLOCKS);
  readonly flushed = new Uint32Array(BLOCKS);
  #next = 1;

  next(block: number): number {
    this.sent[block] = this.#next;
    return this.#next++;
  }
}

/** A block says everywhere which it is and what was written. */
function contentOf(block: number, version: number): Buffer {
  const data = Buffer.alloc(BLOCK);
  if (version === 0) return data;
  for (let at = 0; at < BLOCK; at += 8) {
    data.writeUInt32LE(version, at);
    data.writeUInt32LE(block, at + 4);
  }
  return data;
}

/** Writes and flushes until the server goes; resolves then. A block is written by one at a time. */
async function load(client: NbdClient, truth: Truth): Promise<void> {
  const writer = async (first: number) => {
    for (let i = 0; ; ++i) {
      const block = first + DEPTH * ((i * 7) % (BLOCKS / DEPTH));
      const version = truth.next(block);
      await client.write(block * BLOCK, contentOf(block, version));
      truth.acknowledged[block] = version;
    }
  };
  const flusher = async () => {
    for (;;) {
      const covered = truth.acknowledged.slice();
      await client.flush();
      truth.flushed.set(covered);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  };
  await Promise.allSettled([...Array.from({ length: DEPTH }, (_, i) => writer(i)), flusher()]);
}

/** Reads everything: each block is whole, and at least as new as `least` says; what is there is the truth from now on. */
async function verify(client: NbdClient, truth: Truth, least: Uint32Array): Promise<void> {
  for (let block = 0; block < BLOCKS; ++block) {
    const data = await client.read(block * BLOCK, BLOCK);
    const version = data.readUInt32LE(0);
    expect(data.equals(contentOf(block, version)), `block ${block}, version ${version}`).toBe(true);
    expect(version, `block ${block}`).toBeGreaterThanOrEqual(least[block] as number);
    expect(version, `block ${block}`).toBeLessThanOrEqual(truth.sent[block] as number);
    truth.sent[block] = truth.acknowledged[block] = truth.flushed[block] = version;
  }
}

async function prepare(type: string) {
  const folder = tmpDir();
  let device = tmpFile(64 * MiB);
  if (hasLoop) {
    const loop = await attachLoop(device, { directIo: true });
    onTestFinished(() => loop.detach());
    device = loop.path;
  }
  const config = `
devices: { d0: { path: ${device} } }
volumes: { v0: { type: ${type}, devices: [d0], create: true } }
disks: { ${NAME}: { volume: v0, size: 8MiB, create: true } }
exports: [{ socket: nbd.sock }]
map: { path: map, interval: 10 }
probe: { association: serial }
control: { socket: control.sock }`;
  const socket = path.join(folder, 'nbd.sock');
  return { device, start: () => startServe(folder, config), connect: () => NbdClient.connect(socket, NAME) };
}

const extentsOf = (served: Running) => served.ask<Extent[]>('extents', NAME);
const statesOf = (extents: Extent[]) => new Set(extents.map(({ state }) => state));

/** What the map says to be somewhere is there. */
function compare(device: string, extents: Extent[], truth: Truth): number {
  const fd = openSync(device, 'r');
  let compared = 0;
  for (const { diskOffset, length, places, state } of extents) {
    if (state !== 'mapped') continue;
    for (const { offset } of places) {
      const there = Buffer.alloc(length);
      readSync(fd, there, 0, length, offset);
      for (let at = 0; at < length; at += BLOCK) {
        const block = (diskOffset + at) / BLOCK;
        const wanted = contentOf(block, truth.sent[block] as number);
        expect(there.subarray(at, at + BLOCK).equals(wanted), `block ${block}`).toBe(true);
        compared += BLOCK;
      }
    }
  }
  closeSync(fd);
  return compared;
}

test.each(['extent', 'log'])('%s: SIGTERM under load loses nothing that was acknowledged', async (type) => {
  const { start, connect } = await prepare(type);
  const truth = new Truth();
  for (let round = 0; round < 2; ++round) {
    const served = await start();
    const client = await connect();
    if (round > 0) await verify(client, truth, truth.acknowledged);
    const loading = load(client, truth);
    while (truth.flushed.every((version) => version === 0)) await new Promise((resolve) => setTimeout(resolve, 10));
    served.child.kill('SIGTERM');
    await loading;
    expect(await served.ended).toEqual({ code: 0, signal: null, stderr: '' });
    client.close();
  }
  await start();
  await verify(await connect(), truth, truth.acknowledged);
});

test.each(['extent', 'log'])(
  '%s: SIGKILL under load loses nothing that was flushed, and the map loads',
  async (type) => {
    const { device, start, connect } = await prepare(type);
    const truth = new Truth();
    for (let round = 0; ; ++round) {
      const served = await start(); // and takes the sockets over
      const known = await extentsOf(served);
      if (round > 0) {
        expect(statesOf(known)).toEqual(new Set(['stale']));
        expect(known.length).toBeGreaterThan(0);
      }
      const client = await connect();
      await verify(client, truth, truth.flushed);
      if (round > 0) {
        const revived = await extentsOf(served);
        expect(revived.filter(({ state }) => state === 'mapped').length).toBeGreaterThan(0);
        expect(compare(device, revived, truth)).toBeGreaterThan(0);
      }
      if (round === ROUNDS) break;
      const loading = load(client, truth);
      const goal = truth.flushed.reduce((a, b) => a + b, 0);
      // The map is written every 10 ms: it knows something by now.
      while (truth.flushed.reduce((a, b) => a + b, 0) <= goal || (await extentsOf(served)).length === 0) {
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
      await new Promise((resolve) => setTimeout(resolve, 20 + 40 * round));
      served.child.kill('SIGKILL');
      await loading;
      expect((await served.ended).signal).toBe('SIGKILL');
      client.close();
    }
  },
);
