// What JavaScript does to its buffers while an operation is under way touches no I/O: the memory is ours.
import { describe, expect, test } from 'vitest';
import { failureOf, MiB, openStack, pattern } from '../support/stack.js';

const gone = { name: 'StratamapError', code: 'ERR_STRATAMAP_BUFFER', layer: 'disk', vm: 'vm-1', disk: 'vda' };

/** A view on a buffer of its own. */
function own(bytes: Buffer): Uint8Array<ArrayBuffer> {
  return new Uint8Array(bytes);
}

function detach(view: Uint8Array<ArrayBuffer>): void {
  structuredClone(view.buffer, { transfer: [view.buffer] });
}

describe('a write', () => {
  test('that was begun has its data, whatever becomes of the buffer', async () => {
    const { disk } = await openStack();
    const detached = own(pattern(MiB, 1));
    const overwritten = own(pattern(MiB, 2));
    const writes = [disk.write(0, detached), disk.write(MiB, overwritten)];
    detach(detached);
    overwritten.fill(0);
    await Promise.all(writes);
    expect((await disk.read(0, MiB)).equals(pattern(MiB, 1))).toBe(true);
    expect((await disk.read(MiB, MiB)).equals(pattern(MiB, 2))).toBe(true);
  });

  test('that waits for its turn fails where its buffer was detached, and writes nothing', async () => {
    const { disk } = await openStack({ bytes: 256 * MiB, diskBytes: 160 * MiB });
    const views = Array.from({ length: 160 }, (_, i) => own(pattern(MiB, i + 1)));
    const writes = views.map((view, i) =>
      disk.write(i * MiB, view).then(
        () => 'written',
        (error) => error,
      ),
    );
    for (const view of views) detach(view);
    const results = await Promise.all(writes);
    expect(results.filter((result) => result === 'written').length).toBeGreaterThan(0);
    expect(results.filter((result) => result !== 'written').length).toBeGreaterThan(0);
    for (const [i, result] of results.entries()) {
      const found = await disk.read(i * MiB, MiB);
      if (result === 'written') {
        expect(found.equals(pattern(MiB, i + 1)), `${i}`).toBe(true);
      } else {
        expect(result).toMatchObject({ ...gone, offset: i * MiB });
        expect(found.equals(Buffer.alloc(MiB)), `${i}`).toBe(true);
      }
    }
  });
});

describe('a read', () => {
  test('into a buffer that was detached meanwhile fails', async () => {
    const { disk } = await openStack();
    const view = own(Buffer.alloc(MiB));
    const read = failureOf(disk.read(0, view));
    detach(view);
    expect(await read).toMatchObject({ ...gone, offset: 0 });
  });

  test('into one of several that was detached meanwhile fails', async () => {
    const { disk } = await openStack();
    const views = [own(Buffer.alloc(4096)), own(Buffer.alloc(4096))];
    const read = failureOf(disk.readv(4096, views));
    detach(views[1]!);
    expect(await read).toMatchObject({ ...gone, offset: 4096 });
  });

  test.each([
    ['shorter', 4096],
    ['longer', 16384],
  ])('into a buffer that became %s fails', async (_what, bytes) => {
    const { disk } = await openStack();
    type Resizable = ArrayBuffer & { resize(bytes: number): void }; // newer than the types of our oldest Node
    const buffer: Resizable = Reflect.construct(ArrayBuffer, [8192, { maxByteLength: 65536 }]);
    const view = new Uint8Array(buffer);
    const read = failureOf(disk.read(0, view));
    buffer.resize(bytes);
    expect(await read).toMatchObject(gone);
  });

  test('hands over memory that nobody else has', async () => {
    const { disk } = await openStack();
    await disk.write(0, pattern(8192));
    const [first, second] = await Promise.all([disk.read(0, 4096), disk.read(0, 4096)]);
    first.fill(0);
    expect(second.equals(pattern(8192).subarray(0, 4096))).toBe(true);
  });
});

test('shared memory is read and written', async () => {
  const { disk } = await openStack();
  const from = new Uint8Array(new SharedArrayBuffer(4096));
  from.set(pattern(4096));
  await disk.write(0, from);
  const to = new Uint8Array(new SharedArrayBuffer(4096));
  expect(await disk.read(0, to)).toBe(to);
  expect(Buffer.from(to).equals(pattern(4096))).toBe(true);
});

test('a part of a buffer is read into, and no more', async () => {
  const { disk } = await openStack();
  await disk.write(0, pattern(4096));
  const around = new Uint8Array(4096 + 200).fill(7);
  await disk.read(0, around.subarray(100, 4196));
  expect(Buffer.from(around.subarray(100, 4196)).equals(pattern(4096))).toBe(true);
  expect(around.subarray(0, 100).every((byte) => byte === 7)).toBe(true);
  expect(around.subarray(4196).every((byte) => byte === 7)).toBe(true);
});
