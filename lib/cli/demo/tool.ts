// Programs that the demo runs beside the stack: mkfs.ext4, e2fsck, dd.
import { spawn } from 'node:child_process';

const PACKAGES: Record<string, string> = { 'mkfs.ext4': 'e2fsprogs', e2fsck: 'e2fsprogs', dd: 'coreutils' };

export interface ToolResult {
  code: number;
  output: string;
}

/** Runs a program to its end. Rejects where it cannot be started, saying which package has it, and at `signal`. */
export function runTool(
  name: string,
  args: string[],
  signal: AbortSignal,
  env: Record<string, string> = {},
): Promise<ToolResult> {
  signal.throwIfAborted();
  return new Promise((resolve, reject) => {
    const path = `${process.env.PATH ?? ''}:/usr/sbin:/sbin`;
    const child = spawn(name, args, {
      signal,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, LC_ALL: 'C', ...env, PATH: path },
    });
    let output = '';
    child.stdout.on('data', (data) => {
      output += data;
    });
    child.stderr.on('data', (data) => {
      output += data;
    });
    let failure: Error | undefined;
    child.on('error', (error: NodeJS.ErrnoException) => {
      failure = error.code === 'ENOENT' ? missing(name) : error;
    });
    child.on('close', (code, killedBy) => {
      if (signal.aborted) reject(signal.reason);
      else if (failure) reject(failure);
      else if (code === null) reject(new Error(`${name} was ended by ${killedBy}`));
      else resolve({ code, output: output.trim() });
    });
  });
}

function missing(name: string): Error {
  const line = PACKAGES[name] && `: apt-get install ${PACKAGES[name]}`;
  return new Error(`${name} is not installed. Install it and run the demo again${line ?? ''}`);
}
