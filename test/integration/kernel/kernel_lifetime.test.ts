// Probes of association hint come, go and end with their process, with I/O in flight: no request is lost, and nothing is
// left behind.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { openMap, runWorkload } from 'stratamap';
import { expect } from 'vitest';
import { MiB, testHost } from '../../support/stack.js';
import { openKernelStack } from './stacks.js';
import { needsHint, Watched } from './watched.js';

needsHint('probes that come and go', ['ext4 4k'])('probes come and go under load, and are right', async () => {
  const watched = await Watched.open({ upper: 'ext4 4k', imageBytes: 32 * MiB });
  await watched.probe.detach();
  let loaded = true;
  const load = runWorkload(watched.disk, { pattern: 'mixed', queueDepth: 32, seconds: 4, verify: true }).finally(() => {
    loaded = false;
  });
  let rounds = 0;
  for (; loaded; ++rounds) {
    const tagging = rounds % 2 ? 'always' : 'adaptive';
    const probe = await watched.host.attachProbe({ map: watched.map, association: 'hint', tagging });
    await new Promise((resolve) => setTimeout(resolve, rounds % 3 ? 20 : 150));
    expect(await probe.detach()).toBe(true);
    expect(watched.states().mapped).toBe(0);
  }
  expect(await load).toMatchObject({ errors: 0, mismatches: 0 });
  expect(rounds).toBeGreaterThan(5);
});

const CHILD = `
const { openHost, openMap, runWorkload } = require('stratamap');
const [directory, end] = process.argv.slice(1);
(async () => {
  const host = await openHost();
  const volume = await host.openVolume({ name: 'v0', type: 'kernel', options: { directory } });
  const disk = await volume.createDisk({ vm: 'vm', name: end, size: 16 * 2 ** 20 });
  const probe = await host.attachProbe({ map: await openMap(), association: 'hint' });
  while (!probe.learning) await new Promise((resolve) => setTimeout(resolve, 5));
  runWorkload(disk, { pattern: 'randrw', queueDepth: 32, seconds: 60 }).catch(() => {});
  await new Promise((resolve) => setTimeout(resolve, 100));
  if (probe.stats.recorded === 0) throw new Error('nothing was recorded');
  if (end === 'exit') process.exit(7);
  if (end === 'throw') setImmediate(() => { throw new Error('nobody catches it'); });
  if (end === 'kill') process.kill(process.pid, 'SIGKILL');
  if (end === 'close') await host.close();
})();
`;

needsHint('processes that end', ['ext4 4k'])(
  'a process that ends with I/O in flight gives all hints back',
  async () => {
    const { upper } = await openKernelStack({ upper: 'ext4 4k' });
    const ends = [];
    for (const end of ['exit', 'throw', 'kill', 'close']) {
      const child = spawn(process.execPath, ['-e', CHILD, upper.directory, end], { stdio: 'ignore' });
      ends.push(await once(child, 'exit'));
    }
    expect(ends).toEqual([
      [7, null],
      [1, null],
      [null, 'SIGKILL'],
      [0, null],
    ]);
    // Each had half of what was left: were they not back, there would be none.
    const host = await testHost();
    const volume = await host.openVolume({ name: 'v0', type: 'kernel', options: { directory: upper.directory } });
    const disk = await volume.openDisk({ vm: 'vm', name: 'kill' });
    const probe = await host.attachProbe({ map: await openMap(), association: 'hint', tagging: 'always' });
    while (!probe.learning) await new Promise((resolve) => setTimeout(resolve, 5));
    await runWorkload(disk, { pattern: 'randread', queueDepth: 100, operations: 10_000 });
    expect(probe.stats).toMatchObject({ recorded: 10_000, unrecorded: 0 });
  },
);
