// `stratamap associations`: what finds a request again, and through which volumes.
import { Command } from 'commander';
import { type Association, associations, type Capability, capabilities, type Recall } from '../index.js';
import { fraction, tableOf } from './table.js';

export function associationsCommand(): Command {
  return new Command('associations')
    .description('the associations, their carriers, and what each finds through each volume')
    .option('--json', 'print one JSON object: associations, and every cell of the capability table')
    .showHelpAfterError('(see stratamap associations --help)')
    .action(({ json }: { json?: true }) => {
      const cells = capabilities();
      process.stdout.write(
        json
          ? `${JSON.stringify({ associations: associations(), capabilities: cells }, null, 1)}\n`
          : `${carriers()}\n${recalls(cells)}`,
      );
    })
    .addHelpText(
      'after',
      '\nThe table is measured by the conformance suite; in a checkout, scripts/capabilities makes it anew.',
    );
}

function carriers(): string {
  const rows = Object.entries(associations()).map(([name, { carrier, correlations }]) => [
    name,
    carrier,
    correlations.join(' '),
  ]);
  return tableOf(['association', 'carrier', 'correlations'], rows);
}

const share = ({ bytes, mapped }: Recall) => mapped / bytes;
function range(values: number[]): string {
  const [least, most] = [fraction(Math.min(...values), 2), fraction(Math.max(...values), 2)];
  return least === most ? least : `${least}–${most}`;
}

/** What is `moving` is told apart. */
function recall(of: Recall[]): string {
  const moving = of.map((each) => each.moving / each.bytes);
  return range(of.map(share)) + (moving.some((value) => value > 0) ? ` (${range(moving)} moving)` : '');
}

/** Recall of writes / of reads, for each volume and association, over the correlations. */
export function recallRows(cells: Capability[]): { names: Association[]; rows: string[][] } {
  const names = [...new Set(cells.map(({ association }) => association))];
  const volumes = [...new Set(cells.map(({ volume }) => volume))];
  const rows = volumes.map((volume) => [
    volume,
    ...names.map((name) => {
      const here = cells.filter((cell) => cell.volume === volume && cell.association === name);
      return `${recall(here.map(({ writes }) => writes))} / ${recall(here.map(({ reads }) => reads))}`;
    }),
  ]);
  return { names, rows };
}

function recalls(cells: Capability[]): string {
  const { names, rows } = recallRows(cells);
  const wrong = cells.reduce((sum, cell) => sum + cell.wrong, 0);
  return `Recall of writes / of reads; wrong mappings in all ${cells.length} cells: ${wrong}\n${tableOf(['volume', ...names], rows)}`;
}
