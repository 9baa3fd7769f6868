#!/usr/bin/env node
// Makes capabilities.json, and the table in README.md, from what the conformance suite wrote: one JSON object a line.
// Without an argument: checks that README.md's table is the one that capabilities.json gives.
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';

const root = path.join(import.meta.dirname, '..');
const { recallRows } = createRequire(import.meta.url)('../dist/cli/associations.js');
const json = path.join(root, 'capabilities.json');
const readme = path.join(root, 'README.md');
const [found] = process.argv.slice(2);

const BEGIN = '<!-- capabilities: made by scripts/capabilities -->';
const END = '<!-- /capabilities -->';

const median = (numbers) => numbers.sort((a, b) => a - b)[numbers.length >> 1];

/** Of all that is left unmapped there, the share of each reason. */
function reasons(cells, volume) {
  const sums = {};
  for (const { unmapped } of cells.filter((cell) => cell.volume === volume)) {
    for (const [reason, bytes] of Object.entries(unmapped)) sums[reason] = (sums[reason] ?? 0) + bytes;
  }
  const all = Object.values(sums).reduce((sum, bytes) => sum + bytes, 0);
  return Object.entries(sums)
    .map(([reason, bytes]) => (bytes === all ? reason : `${reason} ${((100 * bytes) / all).toFixed(0)} %`))
    .join(', ');
}

/** Markdown: recall for each volume and association, and what each costs. */
function tables(cells) {
  const { names, rows } = recallRows(cells);
  const correlations = [...new Set(cells.map(({ correlation }) => correlation))];
  const row = (columns) => `| ${columns.join(' | ')} |`;
  const compared = cells.reduce((sum, cell) => sum + cell.compared, 0);
  const wrong = cells.reduce((sum, cell) => sum + cell.wrong, 0);
  const costs = correlations.map((correlation) => [
    correlation,
    ...names.map((name) =>
      median(
        cells
          .filter((cell) => cell.association === name && cell.correlation === correlation)
          .map(({ nsPerRequest }) => nsPerRequest),
      ),
    ),
  ]);
  return [
    `Recall of writes / of reads: the share of the bytes written (read) through a new probe that it then had \`mapped\`.`,
    'Where it is neither 0 nor 1, a part of the bytes was foretold to be lost: those of requests smaller than a block,',
    'or for which the volume has no room. In every cell it is what was foretold.',
    `Precision is 1 in all ${cells.length} cells: of ${(compared / 1e6).toFixed(0)} MB that were compared, wrong: ${wrong}.`,
    '',
    row(['volume', ...names, 'why written bytes are not mapped']),
    row(['---', ...names.map(() => '---'), '---']),
    ...rows.map(([volume, ...recalls]) => row([volume, ...recalls, reasons(cells, volume)])),
    '',
    'What interception adds to a random 4 KiB write at depth 32, in ns of the I/O thread’s time (median over the volumes):',
    '',
    row(['correlation', ...names]),
    row(['---', ...names.map(() => '---')]),
    ...costs.map(row),
  ].join('\n');
}

function withTables(text, cells) {
  const [before, rest] = text.split(BEGIN);
  const after = rest?.split(END)[1];
  if (after === undefined) throw new Error(`README.md has no place for the table: ${BEGIN} … ${END}`);
  return `${before}${BEGIN}\n${tables(cells)}\n${END}${after}`;
}

if (found) {
  const cells = readFileSync(found, 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  writeFileSync(json, `[\n${cells.map((cell) => JSON.stringify(cell)).join(',\n')}\n]\n`);
  writeFileSync(readme, withTables(readFileSync(readme, 'utf8'), cells));
  console.log(`capabilities: ${cells.length} cells in capabilities.json; README.md has their table`);
} else {
  const text = readFileSync(readme, 'utf8');
  if (withTables(text, JSON.parse(readFileSync(json, 'utf8'))) !== text) {
    console.error('capabilities: README.md is not what capabilities.json says; run scripts/capabilities');
    process.exit(1);
  }
}
