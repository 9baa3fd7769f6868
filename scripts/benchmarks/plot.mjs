// Draws what a benchmark wrote: NAME.json to NAME.svg beside it, a panel for each group; a dot for a contender's
// median, a line between its quartiles.
// Usage: plot.mjs FILE...
import { readFileSync, writeFileSync } from 'node:fs';
import { parse, View } from 'vega';
import { compile } from 'vega-lite';

const WIDE = 20; // times: beyond that, the scale is logarithmic

function panel({ name, unit, rows }) {
  const values = rows.map(({ name: row, quartiles: [low, median, high] }) => ({ row, low, median, high }));
  const least = Math.min(...values.map(({ low }) => low));
  const most = Math.max(...values.map(({ high }) => high));
  const scale = least > 0 && most / least > WIDE ? { type: 'log', nice: false } : { zero: true };
  const y = { field: 'row', type: 'nominal', sort: null, title: null };
  const x = { type: 'quantitative', title: unit, scale };
  return {
    title: { text: name, anchor: 'start' },
    width: 320,
    data: { values },
    encoding: { y },
    layer: [
      { mark: 'rule', encoding: { x: { ...x, field: 'low' }, x2: { field: 'high' } } },
      {
        mark: { type: 'point', filled: true, size: 60 },
        encoding: {
          x: { ...x, field: 'median' },
          color: {
            condition: { test: `datum.row === ${JSON.stringify(rows[0].name)}`, value: '#c0392b' },
            value: '#555',
          },
        },
      },
    ],
  };
}

/** The SVG of a benchmark's groups, as text. */
export async function plot({ groups }) {
  const spec = {
    config: { axis: { labelLimit: 260 }, background: 'white' },
    columns: 2,
    concat: groups.map(panel),
    resolve: { scale: { x: 'independent', y: 'independent' } },
  };
  return `${await new View(parse(compile(spec).spec), { renderer: 'none' }).toSVG()}\n`;
}

if (import.meta.filename === process.argv[1]) {
  for (const file of process.argv.slice(2)) {
    const result = JSON.parse(readFileSync(file, 'utf8'));
    if (result.groups.length > 0) writeFileSync(file.replace(/\.json$/, '.svg'), await plot(result));
  }
}
