// Every state in which a stack can be, with every way in which it can end: in a process of its own, which must neither
// hang nor crash, and leave no loop device, no lock, and a volume and a map that open.
import { spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { openHost, openMap } from 'stratamap';
import { test } from 'vitest';
import { tmpDir } from '../support/files.js';
import { hasLoop, nightly } from '../support/machine.js';
import { ENDINGS, type Ending, program, STATES, type State } from './program.js';

const ROUNDS = nightly ? 100 : 1;
const LONGEST = 60_000; // ms

const cases = STATES.flatMap((state) =>
  ENDINGS.filter((ending) => (ending.states ?? STATES).includes(state)).map((ending) => ({ state, ending })),
);

function run(state: State, ending: Ending, folder: string) {
  const script = path.join(folder, 'child.cjs');
  writeFileSync(script, program(state, ending, hasLoop));
  const child = spawn(process.execPath, ['--expose-gc', script], {
    cwd: folder,
    env: { ...process.env, FORCE_COLOR: undefined, NO_COLOR: undefined },
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: LONGEST,
    killSignal: 'SIGKILL',
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => (output += data));
  return new Promise<{ code: number | null; signal: string | null; output: string }>((resolve) => {
    child.once('close', (code, signal) => resolve({ code, signal, output }));
  });
}

function loopsOn(folder: string): string[] {
  return readdirSync('/sys/block').filter((name) => {
    try {
      return readFileSync(`/sys/block/${name}/loop/backing_file`, 'utf8').startsWith(folder);
    } catch {
      return false; // no loop device, or one that is being detached
    }
  });
}

/** The kernel detaches a loop device behind the back of the process that ends. */
async function loopsLeftOn(folder: string): Promise<string[]> {
  for (let i = 0; i < 500 && loopsOn(folder).length > 0; ++i) await new Promise((resolve) => setTimeout(resolve, 10));
  return loopsOn(folder);
}

// Side by side: most of a case is waiting, for its process to start, to settle and to be gone.
test.concurrent.for(cases)(
  '$state: $ending.name',
  { timeout: LONGEST * ROUNDS },
  async ({ state, ending }, { expect, onTestFinished }) => {
    for (let round = 0; round < ROUNDS; ++round) {
      const folder = tmpDir(onTestFinished);
      const { code, signal, output } = await run(state, ending, folder);
      expect({ code, signal }, output).toEqual({ code: ending.code, signal: null });
      if (ending.code === 0) expect(output).toBe('');
      expect(await loopsLeftOn(folder)).toEqual([]);

      const host = await openHost();
      for (const name of readdirSync(folder).filter((each) => each === 'a' || each === 'main')) {
        const device = await host.openDevice({ name, path: path.join(folder, name) });
        const volume = await host.openVolume({ name, type: 'extent', devices: [device] });
        const disk = await volume.openDisk({ vm: 'vm', name: 'a' });
        await disk.read(0, 4096);
        await volume.close();
      }
      await host.close();
      if (existsSync(path.join(folder, 'map'))) await (await openMap({ path: path.join(folder, 'map') })).close();
      rmSync(folder, { recursive: true }); // a hundred rounds would fill the disk
    }
  },
);
