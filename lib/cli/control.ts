// The commands that ask a running `stratamap serve`.
import { Command, InvalidArgumentError, Option } from 'commander';
import { associations, type Extent, type LedgerAnswer, type Owner } from '../index.js';
import { type Answer, asking } from './asking.js';
import { formatBytes, parseSize } from './size.js';
import { count, tableOf } from './table.js';

const ASSOCIATIONS = Object.keys(associations());
const CORRELATIONS = [...new Set(Object.values(associations()).flatMap(({ correlations }) => correlations))];
const BLOCK = 4096; // bytes

/** Bytes, as 4096 or 64K. */
function bytesArgument(text: string): number {
  try {
    return parseSize(text);
  } catch (error) {
    throw new InvalidArgumentError((error as Error).message);
  }
}

const flagsOf = ({ moving, shared }: { moving: boolean; shared: boolean }) =>
  [...(moving ? ['moving'] : []), ...(shared ? ['shared'] : [])].join(' ');

function extentsTable(extents: Extent[]): string {
  const rows = extents.map((extent) => [
    count(extent.diskOffset),
    count(extent.length),
    extent.state,
    extent.places.map(({ device }) => device).join('\n'),
    extent.places.map(({ offset }) => count(offset)).join('\n'),
    flagsOf(extent),
  ]);
  return tableOf(['disk offset', 'length', 'state', 'device', 'device offset', ''], rows, [0, 1, 4]);
}

function ownersTable(owners: Owner[]): string {
  const rows = owners.map((owner) => [
    count(owner.offset),
    count(owner.length),
    owner.state,
    `${owner.vm}/${owner.disk}`,
    count(owner.diskOffset),
    flagsOf(owner),
  ]);
  return tableOf(['device offset', 'length', 'state', 'disk', 'disk offset', ''], rows, [0, 1, 4]);
}

function ledgerTable({ devices, unmapped, probe }: LedgerAnswer): string {
  const tally = ({ operations, bytes }: { operations: number; bytes: number }) =>
    `${count(operations)}${bytes > 0 ? `, ${formatBytes(bytes)}` : ''}`;
  const rows = Object.entries(devices).map(([name, fates]) => [name, ...Object.values(fates).map(tally)]);
  const lost = Object.entries(unmapped).filter(([, { operations }]) => operations > 0);
  const reasons = lost.map(([reason, { bytes }]) => `${reason} ${formatBytes(bytes)}`).join(', ');
  const head = ['device', 'attributed', 'ambiguous', 'unattributed', 'control'];
  return `${tableOf(head, rows, [1, 2, 3, 4])}written, and left unmapped: ${reasons || 'nothing'}\n${probeText(probe)}`;
}

function probeText({ attached, association, correlation, learning, stats, notices }: LedgerAnswer['probe']): string {
  if (!attached) return 'no probe is attached\n';
  const { kernel, ...own } = stats ?? {};
  const all = { ...own, ...(association === 'hint' ? kernel : {}) };
  const counts = Object.entries(all).map(([name, value]) => `${name} ${count(value)}`);
  const now = learning ? 'it learns' : 'it waits for what was in flight';
  const said = (notices ?? []).map((notice) => `${notice}\n`).join('');
  return `a probe is attached: ${association}, ${correlation}; ${now}\n${counts.join(', ')}\n${said}`;
}

const probeAnswer = (state: LedgerAnswer['probe']): Answer => ({ json: state, text: probeText(state) });

const probeCommand = () =>
  new Command('probe')
    .description('attach or detach the probe of a running serve, with I/O in flight')
    .showHelpAfterError('(see stratamap probe --help)')
    .addCommand(
      asking('attach', 'learns from all devices and disks', async (client, { association, correlation, tagging }) =>
        probeAnswer(await client.attachProbe({ association, correlation, tagging })),
      )
        .addOption(new Option('--association <name>', 'default: as configured, or serial').choices(ASSOCIATIONS))
        .addOption(new Option('--correlation <name>', 'default: as configured, or descend').choices(CORRELATIONS))
        .addOption(new Option('--tagging <name>', 'of hint: default adaptive').choices(['adaptive', 'always'])),
    )
    .addCommand(
      asking('detach', 'learns no more; everything in the map is stale then', async (client) =>
        probeAnswer(await client.detachProbe()),
      ),
    )
    .addCommand(
      asking('state', 'whether one is attached, and what it has seen', async (client) =>
        probeAnswer(await client.probe()),
      ),
    );

export function controlCommands(): Command[] {
  return [
    asking(
      'locate',
      'where a range of a virtual disk lies',
      async (client, _, disk: string, offset: number, length: number) => {
        const extents = await client.locate(disk, offset, length);
        return { json: extents, text: extentsTable(extents) };
      },
    )
      .argument('<vm/disk>', 'the disk')
      .argument('<offset>', 'where it begins, bytes; as 4096 or 64K', bytesArgument)
      .argument('[length]', 'bytes', bytesArgument, BLOCK),
    asking(
      'owners',
      'whose a range of a device is',
      async (client, _, device: string, offset: number, length: number) => {
        const owners = await client.owners(device, offset, length);
        return { json: owners, text: owners.length > 0 ? ownersTable(owners) : 'nothing is known of it\n' };
      },
    )
      .argument('<device>', 'the name of the device')
      .argument('<offset>', 'where it begins, bytes; as 4096 or 64K', bytesArgument)
      .argument('[length]', 'bytes', bytesArgument, BLOCK),
    asking('extents', 'all that is known of a virtual disk', async (client, _, disk: string) => {
      const extents: Extent[] = [];
      for await (const extent of client.extents(disk)) extents.push(extent);
      return { json: extents, text: extents.length > 0 ? extentsTable(extents) : 'nothing is known of it\n' };
    }).argument('<vm/disk>', 'the disk'),
    asking('ledger', 'what became of every physical I/O', async (client) => {
      const ledger = await client.ledger();
      return { json: ledger, text: ledgerTable(ledger) };
    }),
    asking('disks', 'the virtual disks, and where clients find them', async (client) => {
      const disks = await client.disks();
      const rows = disks.map(({ vm, name, size, volume, uris }) => [
        `${vm}/${name}`,
        formatBytes(size),
        volume,
        uris.join('\n'),
      ]);
      return { json: disks, text: tableOf(['disk', 'size', 'volume', 'served as'], rows, [1]) };
    }),
    probeCommand(),
  ];
}
