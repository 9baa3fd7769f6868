// Tables of answers.
import Table from 'cli-table3';

/** `numbers`: the columns that stand on the right. */
export function tableOf(head: string[], rows: string[][], numbers: readonly number[] = []): string {
  const table = new Table({
    head,
    style: { head: [], border: [] },
    colAligns: head.map((_, column) => (numbers.includes(column) ? 'right' : 'left')),
  });
  table.push(...rows);
  return `${table.toString()}\n`;
}

export const count = (number: number): string => number.toLocaleString('en-US');

/** Says why, and ends with 1. */
export function failWith(command: string, error: unknown): void {
  const text = error instanceof Error ? error.message : String(error);
  for (const line of text.split('\n')) console.error(`stratamap ${command}: ${line}`);
  process.exitCode = 1;
}
