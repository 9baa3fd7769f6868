import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { expect, test } from 'vitest';
import { Cleanup } from '../../../../lib/cli/demo/cleanup.js';
import { filesFor, packageFiles } from '../../../../lib/cli/demo/ext4.js';
import { runTool } from '../../../../lib/cli/demo/tool.js';
import { tmpDir } from '../../../support/files.js';

const signal = new AbortController().signal;

test('the files of a package, without what is made from them, in a fixed order', () => {
  const root = tmpDir();
  for (const name of [
    'b.txt',
    'lib/a.ts',
    '.git/HEAD',
    'node_modules/x/y.js',
    'build/z.o',
    'out/demo.svg',
    'p-1.tgz',
  ]) {
    mkdirSync(path.join(root, path.dirname(name)), { recursive: true });
    writeFileSync(path.join(root, name), name);
  }
  expect(packageFiles(root)).toEqual([
    { name: 'b.txt', bytes: 5 },
    { name: 'lib/a.ts', bytes: 8 },
  ]);
});

test('each VM gets other files, as far as they fit', () => {
  const files = Array.from({ length: 9 }, (_, i) => ({ name: `${i}`, bytes: 4000 }));
  const names = (vm: number, budget: number) =>
    filesFor(files, vm, budget)
      .map(({ name }) => name)
      .join('');
  expect([0, 1, 2].map((vm) => names(vm, 1e6))).toEqual(['124578', '023568', '013467']);
  expect(names(0, 2 * 12288)).toBe('12');
});

test('a program that is missing is named with its package', async () => {
  await expect(runTool('no-such-program', [], signal)).rejects.toThrow('no-such-program is not installed');
});

test('a program that is interrupted rejects with the reason', async () => {
  const interrupt = new AbortController();
  const running = runTool('sleep', ['60'], interrupt.signal);
  interrupt.abort(new Error('enough'));
  await expect(running).rejects.toThrow('enough');
});

test('what a program says and how it ended', async () => {
  expect(await runTool('sh', ['-c', 'echo out; exit 3'], signal)).toEqual({ code: 3, output: 'out' });
});

test('clean-up runs backwards, goes on past failures and tells them', async () => {
  const order: number[] = [];
  const cleanup = new Cleanup();
  cleanup.add('do the first', () => order.push(1));
  cleanup.add('do the second', async () => {
    order.push(2);
    throw new Error('busy');
  });
  cleanup.add('do the third', () => order.push(3));
  expect(await cleanup.run()).toEqual(['cannot do the second: busy']);
  expect(order).toEqual([3, 2, 1]);
  expect(await cleanup.run()).toEqual([]);
});
