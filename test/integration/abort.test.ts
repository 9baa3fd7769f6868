// AbortSignal: before, while an operation waits, and while a device works on it.
import { runWorkload } from 'stratamap';
import { expect, test } from 'vitest';
import { failureOf, MiB, openStack, pattern } from '../support/stack.js';

const aborted = { name: 'AbortError', code: 'ABORT_ERR' };

test('aborted before the call: nothing is touched', async () => {
  const { disk } = await openStack();
  const signal = AbortSignal.abort('no more');
  const calls = [
    disk.read(0, 4096, { signal }),
    disk.write(0, pattern(4096), { signal }),
    disk.writev(0, [pattern(4096)], { signal }),
    disk.discard(0, 4096, { signal }),
    disk.flush({ signal }),
    runWorkload(disk, { pattern: 'write', operations: 10, signal }),
  ];
  for (const call of calls) expect(await failureOf(call)).toMatchObject({ ...aborted, cause: 'no more' });
  expect((await disk.read(0, disk.size)).equals(Buffer.alloc(disk.size))).toBe(true);
});

test('a wrong argument comes before the abort', async () => {
  const { disk } = await openStack();
  expect(await failureOf(disk.read(1, 4096, { signal: AbortSignal.abort() }))).toMatchObject({ name: 'RangeError' });
});

test('aborted while it waits: it is never begun; what was begun before goes on', async () => {
  const { disk } = await openStack({ bytes: 256 * MiB, diskBytes: 192 * MiB });
  const controller = new AbortController();
  const first = Array.from({ length: 64 }, (_, i) => disk.write(i * MiB, pattern(MiB, i + 1)));
  const late = Array.from({ length: 100 }, (_, i) =>
    disk.write((64 + i) * MiB, pattern(MiB, 99), { signal: controller.signal }).then(
      () => 'written',
      (error) => error,
    ),
  );
  controller.abort(new Error('enough'));
  for (const result of await Promise.all(late)) {
    expect(result).toMatchObject({ ...aborted, cause: expect.objectContaining({ message: 'enough' }) });
  }
  await Promise.all(first);
  expect((await disk.read(63 * MiB, MiB)).equals(pattern(MiB, 64))).toBe(true);
  expect((await disk.read(64 * MiB, 100 * MiB)).equals(Buffer.alloc(100 * MiB))).toBe(true);
});

test('aborted in flight: it rejects when what was begun has ended, and the disk is free to use', async () => {
  const { disk } = await openStack({ bytes: 256 * MiB, diskBytes: 128 * MiB });
  const controller = new AbortController();
  const write = failureOf(disk.write(0, pattern(128 * MiB), { signal: controller.signal }));
  await new Promise((resolve) => setImmediate(resolve));
  controller.abort();
  expect(await write).toMatchObject(aborted);
  await disk.writeZeroes(0, 128 * MiB);
  expect((await disk.read(0, 128 * MiB)).equals(Buffer.alloc(128 * MiB))).toBe(true);
});

test('aborted after the end: nothing happens, and the signal holds no listener', async () => {
  const { disk } = await openStack();
  const controller = new AbortController();
  const listeners = new Set<unknown>();
  const { signal } = controller;
  const add = signal.addEventListener.bind(signal);
  const remove = signal.removeEventListener.bind(signal);
  signal.addEventListener = (type: string, listener: never, options?: never) => {
    listeners.add(listener);
    add(type, listener, options);
  };
  signal.removeEventListener = (type: string, listener: never, options?: never) => {
    listeners.delete(listener);
    remove(type, listener, options);
  };
  await disk.write(0, pattern(4096), { signal });
  expect((await disk.read(0, 4096, { signal })).equals(pattern(4096))).toBe(true);
  controller.abort();
  expect(listeners.size).toBe(0);
});

test('a workload is stopped', async () => {
  const { disk } = await openStack();
  const controller = new AbortController();
  const run = failureOf(
    runWorkload(disk, { pattern: 'randwrite', seconds: 3600, verify: true, signal: controller.signal }),
  );
  setTimeout(() => controller.abort('time'), 20);
  expect(await run).toMatchObject({ ...aborted, cause: 'time' });
  await disk.write(0, pattern(4096));
});
