// Real ext4 images with real files in them: those of the package itself, other ones for each VM.
import { copyFileSync, mkdirSync, readdirSync, statSync, utimesSync } from 'node:fs';
import path from 'node:path';
import type { Random } from './random.js';
import { runTool } from './tool.js';

const PACKAGE = path.resolve(__dirname, '../../..');
const LEFT_OUT = /^(\.git|node_modules|out|build(-.*)?|.*\.tgz)$/;
const EPOCH = 1_700_000_000; // s: the times in the images, but those of status changes, which nobody can choose
const MIB = 2 ** 20;

export interface Ext4Image {
  file: string;
  uuid: string;
  files: number;
  fileBytes: number;
}

interface SourceFile {
  name: string; // relative to the package
  bytes: number;
}

/** Nothing, where `read` finds that something may not be read, or is gone already. */
function ifReadable<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (['EACCES', 'ENOENT'].includes((error as NodeJS.ErrnoException).code ?? '')) return undefined;
    throw error;
  }
}

/** The package's own files, in a fixed order. */
export function packageFiles(root = PACKAGE): SourceFile[] {
  const files: SourceFile[] = [];
  const walk = (folder: string) => {
    for (const entry of ifReadable(() => readdirSync(path.join(root, folder), { withFileTypes: true })) ?? []) {
      const name = path.join(folder, entry.name);
      if (LEFT_OUT.test(entry.name)) continue;
      if (entry.isDirectory()) walk(name);
      const bytes = entry.isFile() && ifReadable(() => statSync(path.join(root, name)).size);
      if (typeof bytes === 'number') files.push({ name, bytes });
    }
  };
  walk('');
  return files.sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** Two thirds of the files, other ones for each `vm` (0, 1, 2), as far as they fit `budget` bytes. */
export function filesFor(files: SourceFile[], vm: number, budget: number): SourceFile[] {
  let left = budget;
  return files.filter((file, index) => {
    const room = Math.ceil(file.bytes / 4096) * 4096 + 8192; // with inode and directory
    if (index % 3 === vm || room > left) return false;
    left -= room;
    return true;
  });
}

/** Copies files to `folder`. Returns those that were there to be copied. */
function stage(files: SourceFile[], folder: string): SourceFile[] {
  mkdirSync(folder, { recursive: true });
  const staged = files.filter(({ name }) => {
    const to = path.join(folder, name);
    mkdirSync(path.dirname(to), { recursive: true });
    return ifReadable(() => copyFileSync(path.join(PACKAGE, name), to) ?? true);
  });
  const settle = (of: string) => {
    for (const entry of readdirSync(of, { withFileTypes: true })) {
      const name = path.join(of, entry.name);
      if (entry.isDirectory()) settle(name);
      else utimesSync(name, EPOCH, EPOCH);
    }
    utimesSync(of, EPOCH, EPOCH);
  };
  settle(folder);
  return staged;
}

/** Makes `folder`/NAME.ext4, of `bytes`, from files staged in `folder`/NAME. */
export async function makeExt4(
  folder: string,
  name: string,
  vm: number,
  bytes: number,
  random: Random,
  signal: AbortSignal,
): Promise<Ext4Image> {
  const file = path.join(folder, `${name}.ext4`);
  const staging = path.join(folder, name);
  const uuid = random.uuid();
  // Small images get small blocks, so that the journal leaves room for files.
  const blockSize = bytes >= 64 * MIB ? 4096 : 1024;
  const files = stage(filesFor(packageFiles(), vm, bytes / 2), staging);
  const args = [
    '-q',
    '-F',
    '-b',
    `${blockSize}`,
    '-m',
    '0',
    '-L',
    name,
    '-U',
    uuid,
    '-E',
    `hash_seed=${random.uuid()}`,
  ];
  const { code, output } = await runTool('mkfs.ext4', [...args, '-d', staging, file, `${bytes / 1024}k`], signal, {
    E2FSPROGS_FAKE_TIME: `${EPOCH}`,
    SOURCE_DATE_EPOCH: `${EPOCH}`,
  });
  if (code !== 0) throw new Error(`mkfs.ext4 ended with ${code}: ${output}`);
  return { file, uuid, files: files.length, fileBytes: files.reduce((sum, { bytes }) => sum + bytes, 0) };
}

/** What `e2fsck -fn` finds wrong with an image; empty where it is clean. */
export async function checkExt4(file: string, signal: AbortSignal): Promise<string> {
  const { code, output } = await runTool('e2fsck', ['-fn', file], signal);
  return code === 0 ? '' : `e2fsck -fn ended with ${code}: ${output}`;
}
