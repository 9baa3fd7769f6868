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

/** 0 to 1, never rounded to either. */
export function fraction(value: number, digits: number): string {
  const least = 10 ** -digits;
  return value === 0 || value === 1 ? `${value}` : Math.min(1 - least, Math.max(least, value)).toFixed(digits);
}

/** Says why, and ends with 1. */
export function failWith(command: string, error: unknown): void {
  const text = error instanceof Error ? error.message : String(error);
  for (const line of text.split('\n')) console.error(`stratamap ${command}: ${line}`);
  process.exitCode = 1;
}
