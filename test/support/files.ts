// Temporary files that go away with the test that made them.
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { onTestFinished } from 'vitest';

/** A new folder, removed when the running test ends. A concurrent test gives its own context's `onTestFinished`. */
export function tmpDir(finished: typeof onTestFinished = onTestFinished): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'stratamap-'));
  finished(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** A new sparse file of `bytes`, removed when the running test ends. */
export function tmpFile(bytes: number, name = 'image'): string {
  const file = path.join(tmpDir(), name);
  const fd = openSync(file, 'wx');
  ftruncateSync(fd, bytes);
  closeSync(fd);
  return file;
}
