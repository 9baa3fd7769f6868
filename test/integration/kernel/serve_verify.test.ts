// `stratamap verify` as a user runs it: a served disk of a volume of type kernel, written by an NBD client.
import path from 'node:path';
import { connectControl, type Verification } from 'stratamap';
import { expect } from 'vitest';
import { tmpDir } from '../../support/files.js';
import { NbdClient } from '../../support/nbd_client.js';
import { startServe, stratamap } from '../../support/serve.js';
import { failureOf, MiB, pattern } from '../../support/stack.js';
import { openKernelStack } from './stacks.js';
import { needsHint } from './watched.js';

const BYTES = 40 * MiB;

needsHint('stratamap verify', ['ext4 4k'])('what is served is verified on every device beneath it', async () => {
  const { upper, lower } = await openKernelStack({ upper: 'ext4 4k' });
  const folder = tmpDir();
  const running = await startServe(
    folder,
    `
volumes:
  v0: { type: kernel, options: { directory: ${upper.directory}, allocate: full } }
disks:
  vm-1/vda: { volume: v0, size: ${BYTES}, create: true }
  vm-2/vda: { volume: v0, size: ${MiB}, create: true }
exports:
  - { socket: nbd.sock }
probe: { association: hint }
control: { socket: control.sock }
`,
  );
  const client = await NbdClient.connect(path.join(folder, 'nbd.sock'), 'vm-1/vda');
  while (!(await running.ask<{ learning: boolean }>('probe', 'state')).learning) await client.flush();
  for (let at = 0; at < 24 * MiB; at += MiB / 2) await client.write(at, pattern(MiB / 2, at + 1));

  const [first, second] = await running.ask<Verification[]>('verify');
  expect(first).toMatchObject({ vm: 'vm-1', file: path.join(upper.directory, 'vm-1', 'vda.img'), wrong: [] });
  expect(first?.devices.map(({ device }) => device)).toEqual([upper.device, lower.device]);
  for (const device of first?.devices ?? []) {
    expect(device).toMatchObject({ mapped: 24 * MiB, written: 24 * MiB, unknown: 0, precision: 1, recall: 1 });
    expect(device.fiemap).toMatchObject({ agreeing: 24 * MiB, differing: 0 });
    expect(device.bytes).toMatchObject({ equal: 24 * MiB, different: 0 });
  }
  expect(second).toMatchObject({ vm: 'vm-2', devices: [{ mapped: 0, precision: null }, { mapped: 0 }] });

  await using control = await connectControl(running.ready.control as string);
  const controller = new AbortController();
  const parts: number[] = [];
  const onProgress = (done: number) => {
    if (parts.push(done) === 2) controller.abort('enough');
  };
  const { signal } = controller;
  expect(await failureOf(control.verify('vm-1/vda', { signal, onProgress }))).toMatchObject({ cause: 'enough' });
  expect(parts).toEqual([16 * MiB, 32 * MiB]);

  // While it is written to.
  let over = false;
  const writing = (async () => {
    for (let round = 2; !over; ++round) {
      for (let at = 0; at < 24 * MiB && !over; at += MiB / 2) await client.write(at, pattern(MiB / 2, at + round));
    }
  })();
  try {
    const { code, stdout, stderr } = await stratamap([
      'verify',
      'vm-1/vda',
      '--socket',
      running.ready.control as string,
    ]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    for (const part of ['vm-1/vda', upper.device, lower.device, 'precision', '24 MiB']) expect(stdout).toContain(part);
    expect(stdout).not.toContain('WRONG');
  } finally {
    over = true;
    await writing;
    client.close();
  }
});
