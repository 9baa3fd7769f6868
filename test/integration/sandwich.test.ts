// What is learned through QEMU's qcow2, by content alone: never wrong, and nearly everything; through LUKS nothing.
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import type { Correlation } from 'stratamap';
import { expect } from 'vitest';
import { tmpDir } from '../support/files.js';
import { hasLoop, needsProgram } from '../support/machine.js';
import { qemuImg } from '../support/qemu.js';
import { CLUSTER, Sandwich, SIZE } from '../support/sandwich.js';
import { pattern } from '../support/stack.js';

const withQemu = needsProgram('qcow2 between the two points', 'qemu-storage-daemon', 'qemu-img');
if (!hasLoop) console.warn('SKIP loop devices below qcow2: a file takes their place');

async function learned(sandwich: Sandwich): Promise<void> {
  const { recall, blocks, wrong, elsewhere, mapped } = await sandwich.verdict();
  expect(wrong).toEqual([]);
  expect(elsewhere).toEqual([]);
  expect(blocks).toBeGreaterThan(500);
  expect(mapped).toBeGreaterThan(0);
  expect(recall).toBeGreaterThanOrEqual(0.99);
}

for (const correlation of ['descend', 'ascend', 'meet'] satisfies Correlation[]) {
  withQemu(`clusters are found that are allocated on the way: ${correlation}`, async () => {
    const sandwich = await Sandwich.open({ correlation });
    await sandwich.watch();
    await sandwich.load(1500, 40);
    await learned(sandwich);
  });
}

withQemu('clusters that were there before are found', async () => {
  const sandwich = await Sandwich.open({ create: ['-o', 'preallocation=metadata'] });
  await sandwich.watch();
  await sandwich.load(1500, 40);
  await learned(sandwich);
});

withQemu('what was written before is found by reading it', async () => {
  const sandwich = await Sandwich.open();
  for (let at = 0; at < SIZE; at += CLUSTER) await sandwich.write(at, CLUSTER);
  await sandwich.watch();
  await sandwich.load(1500, 100);
  await learned(sandwich);
});

withQemu('what lies in a backing file is nowhere on the device, until it is written', async () => {
  const content = pattern(SIZE);
  const base = path.join(tmpDir(), 'base');
  writeFileSync(base, content);
  const sandwich = await Sandwich.open({ create: ['-b', base, '-F', 'raw'], content });
  await sandwich.watch();
  await sandwich.load(300, 100);
  expect(sandwich.map.locate(sandwich.disk, 0, SIZE).some(({ state }) => state === 'mapped')).toBe(false);
  await sandwich.load(1500, 40);
  await learned(sandwich);
});

withQemu('after an internal snapshot it is found where it is written to', async () => {
  const sandwich = await Sandwich.open();
  for (let at = 0; at < SIZE; at += CLUSTER) await sandwich.write(at, CLUSTER);
  await sandwich.closeAbove();
  await qemuImg('snapshot', '-c', 'before', sandwich.uri);
  await sandwich.openAbove();
  await sandwich.watch();
  await sandwich.load(1500, 40);
  await learned(sandwich);
});

withQemu('of what LUKS encrypts nothing is found, and nothing is wrong', async () => {
  const sandwich = await Sandwich.open({
    objects: ['secret,id=key,data=passphrase'],
    create: ['-o', 'encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=200'],
    keys: ['encrypt.format=luks', 'encrypt.key-secret=key'],
  });
  await sandwich.watch();
  await sandwich.load(600, 40);
  const { recall, blocks, mapped, wrong } = await sandwich.verdict();
  expect({ recall, mapped, wrong }).toEqual({ recall: 0, mapped: 0, wrong: [] });
  expect(blocks).toBeGreaterThan(500);
});
