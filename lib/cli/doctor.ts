// `stratamap doctor`: what this machine has and lacks.
import { Command } from 'commander';
import picocolors from 'picocolors';
import { inspectMachine, type MachineFact } from '../index.js';
import { wantsColour } from './colour.js';
import { failWith } from './table.js';

const pc = picocolors.createColors(wantsColour(process.stdout, process.env));
const MARKS = { present: pc.green('yes    '), limited: pc.yellow('limited'), absent: pc.red('no     ') };

export function doctorCommand(): Command {
  return new Command('doctor')
    .description('what this machine has and lacks, and what follows for what')
    .option('--json', 'print one JSON object and nothing else')
    .showHelpAfterError('(see stratamap doctor --help)')
    .action(({ json }: { json?: true }) => doctor(json === true).catch((error) => failWith('doctor', error)))
    .addHelpText('after', '\nIt changes nothing, and exits with 0 whatever it finds.');
}

async function doctor(json: boolean): Promise<void> {
  const report = await inspectMachine();
  if (json) {
    process.stdout.write(`${JSON.stringify(report, null, 1)}\n`);
    return;
  }
  const { kernel, node, arch, uid, facts } = report;
  const width = Math.max(...facts.map(({ name }) => name.length));
  const lines = facts.flatMap((fact) => linesOf(fact, width));
  process.stdout.write(`Linux ${kernel} on ${arch}, Node.js ${node}, user ${uid}\n\n${lines.join('\n')}\n`);
}

function linesOf({ name, state, found, for: what, follows }: MachineFact, width: number): string[] {
  const indent = ' '.repeat(width + 11);
  return [
    `${MARKS[state]}  ${pc.bold(name.padEnd(width))}  ${found}`,
    `${indent}${pc.dim(`for ${what}`)}`,
    ...(follows ? [`${indent}${follows}`] : []),
  ];
}
