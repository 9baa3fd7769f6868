// The checkout that the tests run in, and copies of it to do harm to.
import { cpSync } from 'node:fs';
import path from 'node:path';

export const checkout = path.resolve(import.meta.dirname, '../..');

const MADE = new Set(['.git', 'node_modules', 'build', 'dist', 'prebuilds', 'out']);

/** Copies the checkout's sources, without what is made from them, into `folder`. */
export function copySources(folder: string): void {
  cpSync(checkout, folder, {
    recursive: true,
    filter: (source) => path.dirname(source) !== checkout || !MADE.has(path.basename(source)),
  });
}
