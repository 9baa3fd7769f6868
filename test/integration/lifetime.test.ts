// How things end: in order, in the middle of I/O, without being closed; in this process, in workers, and with the
// process. Each case that may take a process with it has one of its own.
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { openMap } from 'stratamap';
import { describe, expect, test } from 'vitest';
import { checkout } from '../support/checkout.js';
import { tmpDir } from '../support/files.js';
import { failureOf, MiB, openStack, pattern, testHost } from '../support/stack.js';

// What every child begins with: `open(file)` gives a stack, `load(disk)` keeps writing to it.
const PRELUDE = `
  const stratamap = require(${JSON.stringify(path.join(checkout, 'dist/index.js'))});
  const { writeFileSync, truncateSync } = require('node:fs');
  const path = require('node:path');
  async function open(file, options) {
    writeFileSync(file, '');
    truncateSync(file, 64 * 2 ** 20);
    const host = await stratamap.openHost(options);
    const device = await host.openDevice({ name: 'd0', path: file });
    await host.formatVolume({ type: 'extent', devices: [device] });
    const volume = await host.openVolume({ name: 'v0', type: 'extent', devices: [device] });
    const disk = await volume.createDisk({ vm: 'vm', name: 'a', size: 32 * 2 ** 20 });
    return { host, device, volume, disk };
  }
  function load(disk) {
    const go = (i) => disk.write((i % 32) * 2 ** 20, Buffer.alloc(2 ** 20, i)).then(() => go(i + 1), () => {});
    for (let i = 0; i < 100; ++i) go(i);
  }
  const watch = async (host) => {
    const probe = await host.attachProbe({ map: await stratamap.openMap() });
    void (async () => { for await (const batch of probe.completions()) for (const _ of batch); })();
    return probe;
  };
  const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
`;

interface Ended {
  status: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

/** Runs \`body\` in a process of its own, in a folder of its own; it must not hang. */
function child(body: string, args: string[] = [], folder = tmpDir()): Ended {
  const script = path.join(folder, 'child.cjs');
  writeFileSync(script, `${PRELUDE}\n${body}`);
  const { status, signal, stdout, stderr } = spawnSync(process.execPath, [...args, script], {
    cwd: folder,
    env: { ...process.env, FORCE_COLOR: undefined, NO_COLOR: undefined }, // console.log heeds them, also on a pipe
    encoding: 'utf8',
    timeout: 60_000,
    killSignal: 'SIGKILL',
  });
  return { status, signal, stdout, stderr };
}

const clean = (stdout = ''): Ended => ({ status: 0, signal: null, stdout, stderr: '' });

describe('the end of the process', () => {
  test('idle handles of every kind do not keep it alive', () => {
    const body = `open('a').then(async (stack) => {
      globalThis.stack = stack;
      await stack.disk.write(0, Buffer.alloc(4096));
      globalThis.probe = await watch(stack.host);
      await stack.disk.write(0, Buffer.alloc(4096));
      console.log('idle');
    });`;
    expect(child(body)).toEqual(clean('idle\n'));
  });

  test('I/O in flight keeps it alive until it has ended', () => {
    const body = `open('a').then(({ disk }) => {
      let settled = 0;
      for (let i = 0; i < 200; ++i) disk.write((i % 32) * 2 ** 20, Buffer.alloc(2 ** 20)).then(() => ++settled);
      process.on('exit', () => console.log(settled));
    });`;
    expect(child(body)).toEqual(clean('200\n'));
  });

  test('a workload keeps it alive until it has ended', () => {
    const body = `open('a').then(({ disk }) => {
      stratamap.runWorkload(disk, { pattern: 'randwrite', operations: 500 }).then((result) => console.log(result.operations));
    });`;
    expect(child(body)).toEqual(clean('500\n'));
  });

  test('process.exit with I/O, a workload, a probe and a consumer at work closes the volume cleanly', async () => {
    const folder = tmpDir();
    const body = `open('a').then(async ({ host, disk, volume }) => {
      await disk.write(31 * 2 ** 20, Buffer.alloc(4096, 42));
      await watch(host);
      load(disk);
      const other = await volume.createDisk({ vm: 'vm', name: 'b', size: 2 ** 20 });
      void stratamap.runWorkload(other, { pattern: 'randrw', seconds: 3600, verify: true });
      setTimeout(() => process.exit(7), 30);
    });`;
    expect(child(body, [], folder)).toEqual({ ...clean(), status: 7 });
    const host = await testHost();
    const device = await host.openDevice({ name: 'd0', path: path.join(folder, 'a') });
    const volume = await host.openVolume({ name: 'v0', type: 'extent', devices: [device] });
    expect(await volume.listDisks()).toHaveLength(2);
    const disk = await volume.openDisk({ vm: 'vm', name: 'a' });
    expect((await disk.read(31 * MiB, 4096)).length).toBe(4096);
    await host.close();
  });

  test('an exception that nobody catches', () => {
    const { status, signal, stderr } = child(`open('a').then(({ disk }) => {
      load(disk);
      setTimeout(() => { throw new Error('nobody catches me'); }, 10);
    });`);
    expect({ status, signal }).toEqual({ status: 1, signal: null });
    expect(stderr).toContain('nobody catches me');
  });

  test('a call that may block is under way', () => {
    const body = `open('a').then(({ host, volume }) => {
      for (let i = 0; i < 20; ++i) volume.createDisk({ vm: 'vm', name: 'x' + i, size: 4096 }).catch(() => {});
      host.close();
      setImmediate(() => process.exit(0));
    });`;
    expect(child(body)).toEqual(clean());
  });
});

describe('workers', () => {
  const worker = (inside: string, outside: string) => `
    const { isMainThread, parentPort, Worker } = require('node:worker_threads');
    if (!isMainThread) { (async () => { ${inside} })(); } else { (async () => {
      const start = () => new Promise((resolve) => {
        const worker = new Worker(__filename);
        worker.once('message', () => resolve(worker));
      });
      ${outside}
      console.log('done');
    })(); }`;

  test('two, each with a host; they end by themselves', () => {
    const inside = `
      const { host, disk } = await open('w' + require('node:worker_threads').threadId);
      await disk.write(0, Buffer.alloc(4096, 5));
      parentPort.postMessage((await disk.read(0, 4096))[0]);
      globalThis.host = host;`;
    const outside = `
      const { disk } = await open('main');
      await Promise.all([start(), start()].map(async (starting) => {
        const worker = await starting;
        await new Promise((resolve) => worker.once('exit', resolve));
      }));
      await disk.write(0, Buffer.alloc(4096));`;
    expect(child(worker(inside, outside))).toEqual(clean('done\n'));
  });

  test('terminated with everything at work, one after the other', () => {
    const inside = `
      const { host, volume, disk } = await open('w');
      await watch(host);
      load(disk);
      const other = await volume.createDisk({ vm: 'vm', name: 'b', size: 2 ** 20 });
      stratamap.runWorkload(other, { pattern: 'randrw', seconds: 3600, verify: true }).catch(() => {});
      for (let i = 0; i < 5; ++i) volume.createDisk({ vm: 'vm', name: 'x' + i, size: 4096 }).catch(() => {});
      parentPort.postMessage('at work');`;
    const outside = `
      for (let i = 0; i < 6; ++i) {
        const worker = await start();
        await wait(i * 3);
        await worker.terminate();
      }`;
    expect(child(worker(inside, outside))).toEqual(clean('done\n'));
  });

  test('terminated while they open', () => {
    const inside = `parentPort.postMessage('opening'); await open('w' + require('node:worker_threads').threadId);`;
    const outside = `
      for (let i = 0; i < 10; ++i) {
        const worker = await start();
        await wait(i);
        await worker.terminate();
      }`;
    expect(child(worker(inside, outside))).toEqual(clean('done\n'));
  });

  test('process.exit in a worker ends the worker alone', () => {
    const inside = `
      const { disk } = await open('w');
      load(disk);
      parentPort.postMessage('at work');
      setTimeout(() => process.exit(3), 10);`;
    const outside = `
      const { disk } = await open('main');
      const worker = await start();
      console.log(await new Promise((resolve) => worker.once('exit', resolve)));
      await disk.write(0, Buffer.alloc(4096));`;
    expect(child(worker(inside, outside))).toEqual(clean('3\ndone\n'));
  });
});

describe('garbage', () => {
  test('a host that nothing can reach any more is closed, and its device is free', () => {
    const body = `
      async function one(i) {
        const { host, disk } = await open('a'); // fails while the last one's device is locked
        const probe = await host.attachProbe({ map: await stratamap.openMap() });
        await host.interpose({ type: 'delay', mean: 3600e9, ops: ['discard'] });
        const limit = await host.interpose({ type: 'limit', probe, disk, iops: 1e6 });
        if (i % 3 === 0) await limit.detach();
        if (i % 2) {
          const completions = probe.completions();
          await disk.write(0, Buffer.alloc(4096));
          await completions.next();
        }
        return disk.write(0, Buffer.alloc(2 ** 20));
      }
      (async () => {
        for (let i = 0; i < 6; ++i) {
          await one(i);
          for (let j = 0; j < 10; ++j) { globalThis.gc(); await wait(10); }
        }
        console.log('done');
      })();`;
    expect(child(body, ['--expose-gc'])).toEqual(clean('done\n'));
  });

  test('a probe that nothing can reach any more leaves its map to another', () => {
    const body = `
      (async () => {
        const map = await stratamap.openMap();
        for (let i = 0; i < 4; ++i) {
          await (async () => {
            const { host, disk } = await open('a' + i);
            const probe = await host.attachProbe({ map });
            while (!probe.learning) await wait(1);
            await disk.write(0, Buffer.alloc(4096, 1));
            console.log(map.locate('vm/a', 0, 4096)[0].state);
          })();
          for (let j = 0; j < 10; ++j) { globalThis.gc(); await wait(10); }
          console.log(map.locate('vm/a', 0, 4096)[0].state);
        }
      })();`;
    expect(child(body, ['--expose-gc'])).toEqual(clean('mapped\nstale\n'.repeat(4)));
  });

  test('a consumer of completions that nothing can reach any more makes room for another', () => {
    const body = `
      (async () => {
        const { host, disk } = await open('a');
        const probe = await host.attachProbe({ map: await stratamap.openMap() });
        for (let i = 0; i < 4; ++i) {
          await (async () => {
            const completions = probe.completions();
            await disk.write(0, Buffer.alloc(4096));
            if (i % 2) await completions.next();
          })();
          for (let j = 0; j < 10; ++j) { globalThis.gc(); await wait(10); }
        }
        await probe.detach();
        await host.close();
        console.log('done');
      })();`;
    expect(child(body, ['--expose-gc'])).toEqual(clean('done\n'));
  });

  test('handles that are dropped while their I/O is in flight', () => {
    const body = `
      (async () => {
        const running = [];
        for (let i = 0; i < 4; ++i) {
          const { disk } = await open('a' + i);
          for (let j = 0; j < 64; ++j) running.push(disk.write((j % 32) * 2 ** 20, Buffer.alloc(2 ** 20)));
          globalThis.gc();
        }
        await wait(0);
        globalThis.gc();
        await Promise.all(running);
        console.log('done');
      })();`;
    expect(child(body, ['--expose-gc'])).toEqual(clean('done\n'));
  });
});

describe('closing', () => {
  test('what was asked before ends first; what is asked after is refused', async () => {
    const { host, disk } = await openStack({ bytes: 128 * MiB, diskBytes: 96 * MiB });
    const before = Array.from({ length: 96 }, (_, i) => disk.write(i * MiB, pattern(MiB, i)));
    const closing = disk.close();
    expect(disk.closed).toBe(true);
    expect(await failureOf(disk.read(0, 4096))).toMatchObject({ code: 'ERR_STRATAMAP_CLOSED' });
    await Promise.all(before);
    await closing;
    expect(disk.close()).toBe(closing);
    await host.close();
  });

  test('what is being opened is closed too', async () => {
    const { host, volume } = await openStack();
    const opening = volume.createDisk({ vm: 'vm-2', name: 'vda', size: MiB });
    const probing = host.attachProbe({ map: await openMap() });
    await host.close();
    expect((await opening).closed).toBe(true);
    expect((await probing).closed).toBe(true);
  });

  test('a host closes everything, in order, with I/O in flight', async () => {
    const { host, devices, volume, disk, paths } = await openStack();
    const probe = await host.attachProbe({ map: await openMap() });
    const writes = Array.from({ length: 16 }, (_, i) => disk.write(i * MiB, pattern(MiB, i)));
    await host.close();
    await Promise.all(writes);
    expect([host, ...devices, volume, disk, probe].every((handle) => handle.closed)).toBe(true);
    const again = await testHost();
    const device = await again.openDevice({ name: 'd0', path: paths[0]! });
    const reopened = await again.openVolume({ name: 'v0', type: 'extent', devices: [device] });
    const back = await reopened.openDisk({ vm: 'vm-1', name: 'vda' });
    for (let i = 0; i < 16; ++i) expect((await back.read(i * MiB, MiB)).equals(pattern(MiB, i)), `${i}`).toBe(true);
  });

  test('every handle is disposed of', async () => {
    const { host, devices, volume, disk } = await openStack();
    const probe = await host.attachProbe({ map: await openMap() });
    for (const handle of [disk, volume, devices[0]!, probe, host]) await handle[Symbol.asyncDispose]();
    expect([host, devices[0]!, volume, disk, probe].every((handle) => handle.closed)).toBe(true);
  });

  test('two hosts do not know of each other', async () => {
    const [first, second] = [await openStack(), await openStack({ host: { threads: 2 } })];
    await first.disk.write(0, pattern(4096, 1));
    await second.disk.write(0, pattern(4096, 2));
    await first.host.close();
    expect((await second.disk.read(0, 4096)).equals(pattern(4096, 2))).toBe(true);
    await second.host.close();
    expect(readFileSync(first.paths[0]!).equals(readFileSync(second.paths[0]!))).toBe(false);
  });
});
