// What this machine lets a test do. A test that needs more is skipped, and the reason is printed.
import { accessSync, constants } from 'node:fs';
import { type TestAPI, test } from 'vitest';

type Reason = string | undefined;

export const nightly = process.env.SM_NIGHTLY === '1';

function accessible(file: string, mode: number): boolean {
  try {
    accessSync(file, mode);
    return true;
  } catch {
    return false;
  }
}

const root: Reason = process.geteuid?.() === 0 ? undefined : 'it needs root';

const loop: Reason =
  root ??
  (accessible('/dev/loop-control', constants.R_OK | constants.W_OK)
    ? undefined
    : 'it needs loop devices, and /dev/loop-control cannot be opened');

/** Whether this process can attach loop devices. */
export const hasLoop = loop === undefined;

function unless(reason: Reason, what: string): TestAPI {
  if (reason === undefined) return test;
  console.warn(`SKIP ${what}: ${reason}`);
  return test.skip as TestAPI;
}

/** `test`, or `test.skip` and a printed reason where this process is not root. Call once per file, with its subject. */
export const needsRoot = (what: string): TestAPI => unless(root, what);

/** As needsRoot, for what attaches loop devices. */
export const needsLoop = (what: string): TestAPI => unless(loop, what);

/** As needsRoot, for what runs a program: the first of `programs` that is not on the PATH is the reason. */
export function needsProgram(what: string, ...programs: string[]): TestAPI {
  const folders = (process.env.PATH ?? '').split(':').concat('/usr/sbin', '/sbin');
  const absent = programs.find((name) => !folders.some((folder) => accessible(`${folder}/${name}`, constants.X_OK)));
  return unless(absent === undefined ? undefined : `it needs ${absent}, which is not installed`, what);
}
