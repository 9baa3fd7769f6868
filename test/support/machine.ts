// What this machine lets a test do. A test that needs more is skipped, and the reason is printed.
import { spawnSync } from 'node:child_process';
import { accessSync, constants, readFileSync } from 'node:fs';
import { type TestAPI, test } from 'vitest';

/** Why not; undefined where there is none. */
export type Reason = string | undefined;

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

/** Why loop devices cannot be attached. */
export const noLoop: Reason =
  root ??
  (accessible('/dev/loop-control', constants.R_OK | constants.W_OK)
    ? undefined
    : 'it needs loop devices, and /dev/loop-control cannot be opened');

/** Whether this process can attach loop devices. */
export const hasLoop = noLoop === undefined;

/** The first of `programs` that is not on the PATH. */
export function absentProgram(...programs: string[]): Reason {
  const folders = (process.env.PATH ?? '').split(':').concat('/usr/sbin', '/sbin');
  const absent = programs.find((name) => !folders.some((folder) => accessible(`${folder}/${name}`, constants.X_OK)));
  return absent === undefined ? undefined : `it needs ${absent}, which is not installed`;
}

/** The first of the file systems that the kernel has not, and no module for it. */
export function absentFileSystem(...types: string[]): Reason {
  const known = () => readFileSync('/proc/filesystems', 'utf8').split(/\s+/);
  const absent = types.find((type) => {
    if (!known().includes(type)) spawnSync('modprobe', [type]);
    return !known().includes(type);
  });
  return absent === undefined ? undefined : `it needs the file system ${absent}, which the kernel has not`;
}

/** `test`, or `test.skip` and the first of the reasons, printed. Call once per file and subject. */
export function unless(what: string, ...reasons: Reason[]): TestAPI {
  const reason = reasons.find((each) => each !== undefined);
  if (reason === undefined) return test;
  console.warn(`SKIP ${what}: ${reason}`);
  return test.skip as TestAPI;
}

/** Unless this process is root. */
export const needsRoot = (what: string): TestAPI => unless(what, root);

/** Unless it can attach loop devices. */
export const needsLoop = (what: string): TestAPI => unless(what, noLoop);

/** Unless the programs are installed. */
export const needsProgram = (what: string, ...programs: string[]): TestAPI => unless(what, absentProgram(...programs));
