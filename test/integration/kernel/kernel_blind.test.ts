// Where the I/O priority does not get through, nothing is guessed: the ledger says what could not be attributed.
import { closeSync, fsyncSync, openSync, writeSync } from 'node:fs';
import { expect } from 'vitest';
import { MiB } from '../../support/stack.js';
import type { FileSystemName } from './stacks.js';
import { needsHint, strange, Watched } from './watched.js';

const QUICK = 300; // I/Os

for (const upper of ['btrfs checksums', 'btrfs compressed'] satisfies FileSystemName[]) {
  needsHint(`maps through ${upper}`, [upper, 'ext4 4k'])(`nothing that is written is mapped: ${upper}`, async () => {
    const watched = await Watched.open({ upper, imageBytes: 32 * MiB });
    await watched.load.run({ operations: QUICK, reads: 0 });
    await watched.disk.flush();
    expect(watched.rightByBytes()).toEqual([0, 0]);
    expect(watched.probe.notices.join()).toContain('nothing is mapped through');
    const { devices, unmapped } = watched.map.ledger();
    expect(Object.values(unmapped).reduce((sum, { bytes }) => sum + bytes, 0)).toBe(watched.load.written);
    for (const device of [watched.upper, watched.lower]) {
      expect(devices[device]).toMatchObject({ attributed: { bytes: 0 }, ambiguous: { bytes: 0 } });
      expect(devices[device]?.unattributed.bytes).toBeGreaterThan(0);
    }
    // Reads may get through.
    await watched.load.run({ operations: QUICK });
    watched.rightByBytes();
  });
}

needsHint('maps where a loop device is buffered', ['ext4 4k'])(
  'beneath a loop device that goes through the page cache nothing is mapped',
  async () => {
    const watched = await Watched.open({ upper: 'ext4 4k', direct: false, imageBytes: 32 * MiB });
    await watched.load.run({ operations: QUICK });
    const [upper, lower] = watched.rightByBytes();
    expect(upper).toBeGreaterThan(0);
    expect(lower).toBe(0);
  },
);

needsHint('buffered I/O', ['ext4 4k', 'xfs'])(
  'what others write through the page cache is not the disk’s',
  async () => {
    for (const upper of ['ext4 4k', 'xfs'] satisfies FileSystemName[]) {
      const watched = await Watched.open({ upper, imageBytes: 32 * MiB });
      const { file, load, map, disk } = watched;
      for (let at = 0; at < 32 * MiB; at += MiB) await load.write(at, MiB);
      expect(watched.states().mapped).toBe(32 * MiB);
      const before = map.ledger().devices[watched.upper]!.unattributed.bytes;
      const fd = openSync(file, 'r+');
      writeSync(fd, strange(MiB), 0, MiB, 4 * MiB);
      fsyncSync(fd);
      closeSync(fd);
      // In place: what was there is overwritten.
      for (const { state } of map.locate(disk, 4 * MiB, MiB)) expect(state).not.toBe('mapped');
      expect(map.ledger().devices[watched.upper]!.unattributed.bytes - before).toBeGreaterThanOrEqual(MiB);
      watched.rightByBytes();
      strange(MiB).copy(load.content, 4 * MiB);
      await load.read(4 * MiB, MiB);
      watched.rightByBytes();
    }
  },
);
