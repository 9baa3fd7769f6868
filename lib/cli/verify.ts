// `stratamap verify`: whether the map of a running serve is right.
import type { Command } from 'commander';
import type { ControlClient, DeviceVerification, Verification } from '../index.js';
import { asking } from './asking.js';
import { Progress } from './progress.js';
import { formatBytes } from './size.js';
import { count, fraction, tableOf } from './table.js';

export function verifyCommand(): Command {
  return asking(
    'verify',
    'whether what the map says is so: against the bytes on the devices, and against FIEMAP',
    async (client, { json }, disks: string[]) => {
      const progress = new Progress(!json);
      const verified: Verification[] = [];
      for (const disk of await chosen(client, disks)) verified.push(await verifyDisk(client, disk, progress));
      if (verified.some(({ devices }) => devices.some(isWrong))) process.exitCode = 1;
      return { json: verified, text: textOf(verified) };
    },
  )
    .argument('[vm/disk...]', 'the disks; default: all whose volume is of type kernel')
    .addHelpText(
      'after',
      `
For each disk and each block device beneath its file:
  mapped     what the map says lies there; stale: what may have changed since
  unknown    what the file system says is written, and the map knows nothing of
  FIEMAP     of what is mapped: the file system says the same place / another / none that means anything (btrfs)
  bytes      of what is mapped, read past the page cache: as in the file / not / could not be read
  moved      changed while it was looked at, by FIEMAP / by bytes: it counts neither way
  precision  1 - wrong / mapped; recall: the part of what is written that is mapped; staleness: stale / (mapped + stale)
Another place with the same bytes is not wrong: what was moved may still lie where it was. FIEMAP is asked here and
nowhere else; the map learns nothing from it. Reading takes as long as reading the disk once, and once more for each
device; it is seen as anybody's, so that what was read is moving until the disk is used there again. Exits with 1 where
anything is wrong.`,
    );
}

const isWrong = ({ precision }: DeviceVerification) => precision !== null && precision < 1;

/** Those given; or all that can be verified, where there is one. */
async function chosen(client: ControlClient, disks: string[]): Promise<string[]> {
  if (disks.length > 0) return disks;
  const files = (await client.disks()).filter(({ file }) => file !== undefined);
  if (files.length > 0) return files.map(({ vm, name }) => `${vm}/${name}`);
  throw new Error('no disk here can be verified: that takes a volume of type kernel, whose disks are files');
}

async function verifyDisk(client: ControlClient, disk: string, progress: Progress): Promise<Verification> {
  const thousandths = 1000;
  let before = 0;
  return progress.phase(disk, thousandths, (step) =>
    client.verify(disk, {
      onProgress(done, all) {
        const now = Math.floor((thousandths * done) / all);
        step(now - before);
        before = now;
      },
    }),
  );
}

const parts = (...bytes: number[]) => bytes.map((each) => (each === 0 ? '0' : formatBytes(each))).join(' / ');
const share = (value: number | null) => (value === null ? '–' : fraction(value, 6));

function rowOf({ vm, name }: Verification, of: DeviceVerification): string[] {
  const { device, mapped, stale, unknown, fiemap, bytes, precision, recall, staleness } = of;
  return [
    `${vm}/${name}\n${device}`,
    `${formatBytes(mapped)}\n${formatBytes(stale)}\n${formatBytes(unknown)}`,
    parts(fiemap.agreeing, fiemap.differing, fiemap.incomparable),
    parts(bytes.equal, bytes.different, bytes.incomparable),
    parts(fiemap.moved, bytes.moved),
    `${share(precision)}\n${share(recall)}\n${share(staleness)}`,
  ];
}

const HEAD = [
  'disk\ndevice',
  'mapped\nstale\nunknown',
  'FIEMAP: same /\nother / none',
  'bytes: same /\nother / unread',
  'moved',
  'precision\nrecall\nstaleness',
];

function textOf(verified: Verification[]): string {
  const rows = verified.flatMap((each) => each.devices.map((device) => rowOf(each, device)));
  const wrong = verified.flatMap(({ vm, name, wrong }) =>
    wrong.map(
      ({ diskOffset, length, device, offset, why }) =>
        `WRONG: ${vm}/${name} at ${count(diskOffset)}, ${length} bytes, is not on ${device} at ${count(offset)}: ${why}\n`,
    ),
  );
  return tableOf(HEAD, rows, [1, 2, 3, 4, 5]) + wrong.join('');
}
