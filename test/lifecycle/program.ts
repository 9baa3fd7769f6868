// What the children of the matrix run: a stack at work, and then its end. Plain JavaScript, as a user would write it.
import path from 'node:path';
import { checkout } from '../support/checkout.js';

/** Begins everything; `stack` is what a user holds. */
const PRELUDE = `
  const stratamap = require(${JSON.stringify(path.join(checkout, 'dist/index.js'))});
  const { writeFileSync, truncateSync } = require('node:fs');
  const MiB = 2 ** 20;
  const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

  async function open(name, loops) {
    writeFileSync(name, '');
    truncateSync(name, 32 * MiB);
    const loop = loops ? await stratamap.attachLoop(name, { autoclear: true }) : undefined;
    const host = await stratamap.openHost({ threads: 1 });
    const device = await host.openDevice({ name: 'd0', path: loop ? loop.path : name });
    await host.formatVolume({ type: 'extent', devices: [device] });
    const volume = await host.openVolume({ name: 'v0', type: 'extent', devices: [device] });
    const disk = await volume.createDisk({ vm: 'vm', name: 'a', size: 16 * MiB });
    await disk.write(0, Buffer.alloc(4096, 42));
    return { loop, host, device, volume, disk, stopping: false, work: [] };
  }

  async function close(stack) {
    stack.stopping = true;
    await stack.host.close();
    await Promise.all(stack.work);
    await stack.loop?.detach();
  }

  const begin = {
    async idle(stack) {
      stack.map = await stratamap.openMap({ path: 'map' });
    },
    async io(stack) {
      const go = async (i) => {
        try {
          for (; !stack.stopping; ++i) await stack.disk.write((i % 15) * MiB + MiB, Buffer.alloc(MiB, i));
        } catch (error) {
          if (!stack.stopping) throw error;
        }
      };
      for (let i = 0; i < 24; ++i) stack.work.push(go(i));
    },
    async workload(stack) {
      const run = stratamap.runWorkload(stack.disk, { pattern: 'mixed', seconds: 3600, verify: true, offset: MiB,
        length: 8 * MiB, readPercent: 30, discardPercent: 10 });
      stack.work.push(run.catch((error) => { if (!stack.stopping) throw error; }));
    },
    async probe(stack) {
      await begin.io(stack);
      const map = await stratamap.openMap({ path: 'map', interval: 10 });
      stack.probe = await stack.host.attachProbe({ map, association: 'address', correlation: 'ascend' });
      stack.work.push((async () => { for await (const batch of stack.probe.completions()) for (const _ of batch); })());
    },
    async delay(stack) {
      // The call waits for a thread longer than the vigil takes to look whether it is needed.
      for (let i = 0; i < 4; ++i) require('node:crypto').pbkdf2('a', 'b', 700_000, 64, 'sha512', () => {});
      stack.delay = await stack.host.interpose({ type: 'delay', mean: 3600e9 });
      await begin.io(stack);
      stack.work.push(stack.volume.createDisk({ vm: 'vm', name: 'held', size: MiB }));
    },
    async nbd(stack) {
      await begin.io(stack);
      await stack.host.serveNbd({ socket: 'socket-' + require('node:worker_threads').threadId });
      // One client that says nothing.
      stack.client = require('node:net').connect('socket-' + require('node:worker_threads').threadId);
      stack.client.on('error', () => {});
      await new Promise((resolve) => stack.client.once('data', resolve));
      stack.client.unref();
    },
    async administration(stack) {
      await begin.io(stack);
      const go = async (name) => {
        try {
          while (!stack.stopping) {
            const disk = await stack.volume.createDisk({ vm: 'vm', name, size: MiB });
            await disk.resize(2 * MiB);
            await disk.close();
            await stack.volume.deleteDisk({ vm: 'vm', name });
          }
        } catch (error) {
          if (!stack.stopping) throw error;
        }
      };
      stack.work.push(go('x'), go('y'));
    },
  };
`;

export const STATES = ['idle', 'io', 'workload', 'probe', 'delay', 'nbd', 'administration'] as const;
export type State = (typeof STATES)[number];

export interface Ending {
  name: string;
  /** Runs when \`stack\` is at work. */
  body: string;
  /** Exit code of the process. */
  code: number;
  inWorker?: boolean;
  /** Not with every state. */
  states?: readonly State[];
}

export const ENDINGS: readonly Ending[] = [
  { name: 'closed', body: 'await close(stack);', code: 0 },
  {
    name: 'closed twice, at once and again',
    body: `stack.stopping = true;
      await Promise.all([stack.host.close(), stack.host.close(), stack.volume.close(), stack.disk.close()]);
      await close(stack); await close(stack);`,
    code: 0,
  },
  {
    name: 'used after it is closed',
    body: `await close(stack);
      const calls = [() => stack.disk.read(0, 4096), () => stack.disk.write(0, Buffer.alloc(512)),
        () => stack.disk.flush(), () => stack.volume.listDisks(), () => stack.host.openDevice({ name: 'e', path: 'e' }),
        () => stratamap.runWorkload(stack.disk, { pattern: 'read', operations: 1 })];
      for (const call of calls) {
        const error = await Promise.resolve().then(call).then(() => undefined, (reason) => reason);
        if (error?.code !== 'ERR_STRATAMAP_CLOSED') throw new Error('it gave ' + error);
      }`,
    code: 0,
  },
  { name: 'process.exit', body: 'process.exit(7);', code: 7 },
  { name: 'an exception that nobody catches', body: "setImmediate(() => { throw new Error('boom'); });", code: 1 },
  { name: 'a rejection that nobody handles', body: "void Promise.reject(new Error('boom'));", code: 1 },
  {
    name: 'dropped, then collected',
    body: `stack.stopping = true; const { loop } = stack; stack = undefined;
      for (let i = 0; i < 20; ++i) { globalThis.gc(); await wait(5); }`,
    code: 0,
    states: ['idle', 'io', 'administration'],
  },
  {
    name: 'the delay detached, then closed',
    body: `if (!(await stack.delay.detach())) throw new Error('something was left in it'); await close(stack);`,
    code: 0,
    states: ['delay'],
  },
  { name: 'the end of the program', body: 'globalThis.stack = stack;', code: 0, states: ['idle'] },
  { name: 'a worker that is terminated', body: 'await wait(3600_000);', code: 0, inWorker: true },
  { name: 'process.exit in a worker', body: 'process.exit(7);', code: 0, inWorker: true },
  {
    name: 'an exception in a worker',
    body: "setImmediate(() => { throw new Error('boom'); });",
    code: 0,
    inWorker: true,
  },
];

/** The program of one case. `loops`: on loop devices, else on plain files. */
export function program(state: State, ending: Ending, loops: boolean): string {
  const run = (name: string) => `
    (async () => {
      let stack = await open(${JSON.stringify(name)}, ${loops});
      await begin.${state}(stack);
      await wait(15);
      ready?.();
      ${ending.body}
    })();`;
  if (!ending.inWorker) return `${PRELUDE}\nconst ready = undefined;\n${run('a')}`;
  const worker = `${PRELUDE}\nconst ready = () => require('node:worker_threads').parentPort.postMessage('ready');\n${run('a')}`;
  // The main thread has a stack of its own, which must not notice.
  return `${PRELUDE}
    (async () => {
      const own = await open('main', ${loops});
      await begin.io(own);
      const { Worker } = require('node:worker_threads');
      const worker = new Worker(${JSON.stringify(worker)}, { eval: true });
      worker.on('error', (error) => { if (error.message !== 'boom') throw error; });
      const ended = new Promise((resolve) => worker.once('exit', resolve));
      await new Promise((resolve) => worker.once('message', resolve));
      ${ending.name.includes('terminated') ? 'await worker.terminate();' : ''}
      await ended;
      await own.disk.write(0, Buffer.alloc(4096, 42));
      await close(own);
    })();`;
}
