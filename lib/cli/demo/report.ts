// What people and programs are shown of a demo.
import Table from 'cli-table3';
import picocolors from 'picocolors';
import type { Extent } from '../../index.js';
import { wantsColour } from '../colour.js';
import { formatBytes } from '../size.js';
import { count } from '../table.js';
import { cellBytesFor, type DevicePicture, drawDevice, type Paint, renderPicture } from './picture.js';
import type { DemoResult } from './run.js';
import { isMapped } from './snapshot.js';
import { CHUNK } from './stack.js';
import { renderSvg, SVG_CELLS } from './svg.js';

const pc = picocolors.createColors(wantsColour(process.stdout, process.env));

const MOST_ROWS = 24;
const LARGEST = 8;
const TRAIL_STEP = 25; // columns that one needs

const FULL = [pc.bgBlue, pc.bgYellow, pc.bgGreen].map((back) => (text: string) => back(pc.black(text)));
const PART = [pc.blue, pc.yellow, pc.green];

const paint: Paint = (text, owner, full) =>
  owner < 0 ? (text === '?' ? pc.red(text) : pc.dim(text)) : (full ? FULL : PART)[owner]!(text);

const exact = (bytes: number) => `${count(bytes)} bytes`;
/** Never rounded up: 100 % means all. */
const percent = (share: number) => `${share === 1 ? '100' : (Math.floor(share * 1000) / 10).toFixed(1)} %`;
const heading = (text: string) => pc.bold(text);

function table(head: string[], rows: string[][], numbers: readonly number[]): string {
  const built = new Table({
    head,
    style: { head: [], border: [], compact: true, 'padding-left': 0, 'padding-right': 0 },
    colAligns: head.map((_, column) => (numbers.includes(column) ? 'right' : 'left')),
    chars: {
      top: '',
      'top-mid': '',
      'top-left': '',
      'top-right': '',
      bottom: '',
      'bottom-mid': '',
      'bottom-left': '',
      'bottom-right': '',
      left: '  ',
      'left-mid': '  ',
      right: '',
      'right-mid': '',
      middle: '  ',
      mid: '─',
      'mid-mid': '──',
    },
  });
  built.push(...rows);
  return built.toString();
}

export const diskNames = (result: DemoResult): string[] => result.disks.map(({ vm, name }) => `${vm}/${name}`);

/** `cells`: how many cells a picture may have. */
export function picturesOf(result: DemoResult, cells: number): DevicePicture[] {
  return result.devices.map(({ name, size }) =>
    drawDevice(name, size, cellBytesFor(size, CHUNK, cells), result.snapshot.extents),
  );
}

function title({ options, devices, whyFiles, disks }: DemoResult): string {
  const kind = whyFiles ? 'plain files' : 'loop devices';
  return `${disks.length} VMs’ disks of ${formatBytes(options.size)} on a volume of type “${options.volume}” on ${devices.length} ${kind}`;
}

function proofLines({ proof, misnamed, scatter, disks, devices }: DemoResult): string[] {
  const how = devices.every(({ direct }) => direct) ? 'dd with O_DIRECT' : 'dd (O_DIRECT is not to be had there)';
  return [
    `${count(proof.extents)} mapped extents, ${exact(proof.bytesCompared)} that are not zeroes: device by ${how} = virtual disk = image kept apart`,
    `${count(proof.differing)} bytes differ; owners() names disk and offset of ${misnamed === 0 ? 'every extent' : `all but ${count(misnamed)} extents`}`,
    `recall ${proof.recall === 1 ? '1.0' : proof.recall.toFixed(9)}: ${exact(disks.reduce((sum, disk) => sum + disk.mapped, 0))} of ${exact(disks.reduce((sum, disk) => sum + disk.written, 0))} written are mapped`,
    `scatter ${percent(scatter.share)}: ${count(scatter.apart)} of ${count(scatter.neighbours)} neighbouring ${formatBytes(CHUNK)} chunks of a disk are not neighbours on a device`,
    `e2fsck -fn after a rewrite: ${disks.map(({ vm, fsck }) => `${vm} ${fsck}`).join(', ')}`,
  ];
}

export function svgOf(result: DemoResult): string {
  const { options, disks } = result;
  return renderSvg({
    title: 'Which VM owns which block, learned from live I/O',
    subtitle: `${title(result)}, after ${count(requestsOf(result))} random requests (seed ${options.seed})`,
    disks: diskNames(result).map((name, index) => ({ name, mapped: disks[index]!.mapped })),
    pictures: picturesOf(result, SVG_CELLS),
    notes: proofLines(result),
  });
}

const requestsOf = ({ disks }: DemoResult) =>
  disks.reduce(
    (sum, { workload: { write, discard, read } }) => sum + write.operations + discard.operations + read.operations,
    0,
  );

export function jsonOf(result: DemoResult, svg: string | undefined): string {
  const { options, proof, snapshot, disks, scatter, devices, timings, failures } = result;
  const elapsed = timings.reduce((sum, { seconds }) => sum + seconds, 0);
  const { volume, size, seed } = options;
  const setting = { devices, volume, size, seed, notes: notesOf(result) };
  return JSON.stringify(
    {
      proof,
      misnamed: result.misnamed,
      ledger: snapshot.ledger,
      disks,
      scatter,
      ...setting,
      elapsed,
      timings,
      svg,
      failures,
    },
    null,
    2,
  );
}

export function textOf(result: DemoResult, svg: string | undefined, width: number): string {
  const sections = [
    opening(result),
    ...pictureSections(result, width),
    trails(result, width),
    largest(result),
    disksTable(result),
    ledger(result),
    [heading('Proof'), ...proofLines(result).map((line) => `  ${line}`)].join('\n'),
    timings(result),
    closing(result, svg),
  ];
  return `\n${sections.join('\n\n')}\n`;
}

function opening(result: DemoResult): string {
  return [heading(title(result)), ...notesOf(result).map((note) => `  ${note}`)].join('\n');
}

function notesOf({ whyFiles, notices }: DemoResult): string[] {
  return whyFiles ? [`plain files in place of loop devices: ${whyFiles}`, ...notices] : notices;
}

function pictureSections(result: DemoResult, width: number): string[] {
  const letters = result.disks.map(({ vm }) => vm[0]!);
  const columns = Math.max(32, Math.min(128, Math.floor((width - 14) / 16) * 16));
  const sections = picturesOf(result, columns * MOST_ROWS).map((picture, index) => {
    const { name, path, size } = result.devices[index]!;
    const head = `${heading(name)}  ${path}, ${formatBytes(size)}, each cell ${formatBytes(picture.cellBytes)}`;
    return [head, ...renderPicture(picture, letters, columns, paint)].join('\n');
  });
  const names = diskNames(result).map((name, i) => `${paint(` ${letters[i]!.toUpperCase()} `, i, true)} ${name}`);
  const rest = `small letter: less than half of the cell   ${pc.dim('·')} free, or the volume’s own`;
  return [...sections, `${names.join('   ')}   ${rest}`];
}

const placeOf = ({ places }: Extent) =>
  places.map(({ device, offset }) => `${device} ${formatBytes(offset)}`).join(', ');

/** Where the first chunks of each disk went; as many as fit. */
function trails(result: DemoResult, width: number): string {
  const rows = result.snapshot.extents.map((extents, disk) => [
    diskNames(result)[disk]!,
    ...extents
      .filter((extent) => isMapped(extent) && extent.diskOffset % CHUNK === 0)
      .slice(0, Math.max(1, Math.floor((width - 10) / TRAIL_STEP)))
      .map((extent) => `${formatBytes(extent.diskOffset)} → ${placeOf(extent)}`),
  ]);
  return [heading('Where the first chunks of each disk lie'), ...alignedRows(rows)].join('\n');
}

/** A table without a head, its columns on the left. */
function alignedRows(rows: string[][]): string[] {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  return rows.map((row) => `  ${row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join('   ')}`.trimEnd());
}

function largest(result: DemoResult): string {
  const rows = result.snapshot.extents
    .flatMap((extents, disk) => extents.filter(isMapped).map((extent) => ({ disk: diskNames(result)[disk]!, extent })))
    .sort((a, b) => b.extent.length - a.extent.length || a.extent.diskOffset - b.extent.diskOffset)
    .slice(0, LARGEST)
    .map(({ disk, extent }) => [
      disk,
      formatBytes(extent.length),
      count(extent.diskOffset),
      extent.places.map(({ device }) => device).join(', '),
      extent.places.map(({ offset }) => count(offset)).join(', '),
    ]);
  const head = ['disk', 'length', 'disk offset', 'device', 'device offset'];
  return `${heading('The largest extents')}\n${table(head, rows, [1, 2, 4])}`;
}

function disksTable(result: DemoResult): string {
  const rows = result.disks.map(({ image, workload: { write, discard, read }, mapped, extents, fsck }, disk) => [
    diskNames(result)[disk]!,
    `${count(image.files)} files, ${formatBytes(image.fileBytes)}`,
    `${count(write.operations)}, ${formatBytes(write.bytes)}`,
    `${count(discard.operations)}, ${formatBytes(discard.bytes)}`,
    `${count(read.operations)}, ${formatBytes(read.bytes)}`,
    formatBytes(mapped),
    count(extents),
    fsck,
  ]);
  const head = ['disk', 'in its ext4', 'then written', 'discarded', 'read', 'mapped', 'extents', 'e2fsck'];
  return `${heading('What the VMs did')}\n${table(head, rows, [2, 3, 4, 5, 6])}`;
}

function ledger({ snapshot: { ledger } }: DemoResult): string {
  const rows = Object.entries(ledger.devices).map(([device, fates]) => {
    const all = Object.values(fates);
    const total = all.reduce((sum, { operations }) => sum + operations, 0);
    return [
      device,
      ...all.map(({ operations, bytes }) => `${count(operations)}${bytes > 0 ? `, ${formatBytes(bytes)}` : ''}`),
      count(total),
    ];
  });
  const fates = Object.keys(Object.values(ledger.devices)[0] ?? {});
  const lost = Object.entries(ledger.unmapped).filter(([, { operations }]) => operations > 0);
  const unmapped = lost.map(([reason, { bytes }]) => `${reason} ${formatBytes(bytes)}`).join(', ');
  return [
    heading('The ledger: what became of every physical I/O'),
    table(['device', ...fates, 'all'], rows, [1, 2, 3, 4, 5]),
    '  unattributed: the volume’s own, as its metadata; control: flushes',
    `  written, and left unmapped: ${unmapped || 'nothing'}`,
  ].join('\n');
}

function timings({ timings }: DemoResult): string {
  const total = timings.reduce((sum, { seconds }) => sum + seconds, 0);
  const rows = [...timings, { phase: 'in all', seconds: total }];
  return [heading('Time'), ...alignedRows(rows.map(({ phase, seconds }) => [phase, `${seconds.toFixed(2)} s`]))].join(
    '\n',
  );
}

function closing({ failures, kept }: DemoResult, svg: string | undefined): string {
  const lines: string[] = [];
  if (svg) lines.push(`The picture is also in ${svg}: hover over a cell to see what it holds.`);
  if (kept) lines.push(`The devices’ images, and all that was compared, are left in ${kept}.`);
  lines.push(
    failures.length === 0 ? pc.green(pc.bold('Proven: not one byte differs.')) : pc.red(pc.bold('Not proven.')),
  );
  return lines.join('\n');
}
