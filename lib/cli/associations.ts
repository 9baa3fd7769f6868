// `stratamap associations`: what finds a request again, and through which volumes.
import Table from 'cli-table3';
import { Command } from 'commander';
import { type Association, associations, type Capability, capabilities, type Recall } from '../index.js';

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
          : `${carriers()}\n\n${recalls(cells)}\n`,
      );
    })
    .addHelpText(
      'after',
      '\nThe table is measured by the conformance suite; in a checkout, scripts/capabilities makes it anew.',
    );
}

function carriers(): string {
  const table = new Table({ head: ['association', 'carrier', 'correlations'], style: { head: [], border: [] } });
  for (const [name, { carrier, correlations }] of Object.entries(associations())) {
    table.push([name, carrier, correlations.join(' ')]);
  }
  return table.toString();
}

const share = ({ bytes, mapped }: Recall) =>
  mapped === bytes ? '1' : mapped === 0 ? '0' : (mapped / bytes).toFixed(2);

/** Recall of writes / of reads, for each volume and association; where correlations differ, for each of them. */
export function recallRows(cells: Capability[]): { names: Association[]; rows: string[][] } {
  const names = [...new Set(cells.map(({ association }) => association))];
  const volumes = [...new Set(cells.map(({ volume }) => volume))];
  const rows = volumes.map((volume) => [
    volume,
    ...names.map((name) => {
      const here = cells.filter((cell) => cell.volume === volume && cell.association === name);
      const shown = here.map(({ writes, reads }) => `${share(writes)} / ${share(reads)}`);
      if (new Set(shown).size === 1) return shown[0]!;
      return here.map(({ correlation }, index) => `${correlation} ${shown[index]}`).join(', ');
    }),
  ]);
  return { names, rows };
}

function recalls(cells: Capability[]): string {
  const { names, rows } = recallRows(cells);
  const table = new Table({ head: ['volume', ...names], style: { head: [], border: [] } });
  table.push(...rows);
  const wrong = cells.reduce((sum, cell) => sum + cell.wrong, 0);
  return `Recall of writes / of reads; wrong mappings in all ${cells.length} cells: ${wrong}\n${table.toString()}`;
}
