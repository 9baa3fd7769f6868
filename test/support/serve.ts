// `stratamap serve`, and the commands that ask it, as a user runs them.
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { onTestFinished } from 'vitest';
import { checkout } from './checkout.js';

const program = path.join(checkout, 'dist/cli/main.js');

export interface Output {
  code: number;
  stdout: string;
  stderr: string;
}

/** Runs a command to its end. */
export function stratamap(args: string[], cwd?: string): Promise<Output> {
  return new Promise((resolve) => {
    execFile(process.execPath, [program, ...args], { cwd, maxBuffer: 2 ** 26 }, (error, stdout, stderr) => {
      resolve({ code: typeof error?.code === 'number' ? error.code : error ? -1 : 0, stdout, stderr });
    });
  });
}

export interface Running {
  child: ChildProcess;
  ready: {
    pid: number;
    control: string | null;
    disks: { vm: string; name: string; uris: string[] }[];
    devices: { name: string; uris: string[] }[];
  };
  /** What it ended with. */
  ended: Promise<{ code: number | null; signal: string | null; stderr: string }>;
  /** The answer of a command, by --json. */
  ask<T>(...args: string[]): Promise<T>;
}

/** Starts it in `folder`, and resolves when it is ready. `started` gets it before. */
export async function startServe(
  folder: string,
  config: string,
  started: (child: ChildProcess) => void = () => {},
): Promise<Running> {
  const file = path.join(folder, 'host.yaml');
  writeFileSync(file, config);
  const child = spawn(process.execPath, [program, 'serve', '--json', file], { stdio: ['ignore', 'pipe', 'pipe'] });
  started(child);
  let stderr = '';
  child.stderr.on('data', (data) => (stderr += data));
  const ended = new Promise<{ code: number | null; signal: string | null; stderr: string }>((resolve) => {
    child.once('close', (code, signal) => resolve({ code, signal, stderr }));
  });
  onTestFinished(async () => {
    child.kill('SIGKILL');
    await ended;
  });
  const first = await Promise.race([once(createInterface(child.stdout), 'line'), ended]);
  if (!Array.isArray(first)) throw new Error(`serve did not become ready: ${JSON.stringify(first)}`);
  const ready = JSON.parse(first[0] as string) as Running['ready'];
  return {
    child,
    ready,
    ended,
    async ask(...args) {
      const { code, stdout, stderr: why } = await stratamap([...args, '--json', '--socket', ready.control as string]);
      if (code !== 0) throw new Error(why);
      return JSON.parse(stdout);
    },
  };
}
