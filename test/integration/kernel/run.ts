// Programs of the system that the tests of the kernel's stacks run.
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

const PATH = `${process.env.PATH ?? ''}:/usr/sbin:/sbin`;
export const ENVIRONMENT = { ...process.env, LC_ALL: 'C', PATH };

const exec = promisify(execFile);

/** Runs a program to its end, and returns what it printed. Rejects where it fails, with what it said. */
export async function run(program: string, ...args: string[]): Promise<string> {
  try {
    return (await exec(program, args, { env: ENVIRONMENT, maxBuffer: 2 ** 28 })).stdout;
  } catch (error) {
    const { stderr = '', message } = error as Error & { stderr?: string };
    throw new Error(`${[program, ...args].join(' ')}: ${stderr.trim() || message}`);
  }
}
