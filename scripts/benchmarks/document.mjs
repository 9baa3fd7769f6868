// Makes docs/performance.md of what the benchmarks wrote, and beside it the plots that it shows.
// Usage: document.mjs FOLDER FILE
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { goalsTable } from './goals.mjs';
import { short, wordsOf } from './harness.mjs';
import { plot } from './plot.mjs';

const [folder, file] = process.argv.slice(2);
const NAMES = ['native', 'contexts', 'map', 'device', 'nbd', 'kernel', 'js'];

function goalOf(goal) {
  if (goal === undefined) return '';
  const of = goal.quantile === undefined ? '' : ', lower quartile';
  return `${wordsOf(goal)}${of}: ${goal.met ? 'met' : '**missed**'}`;
}

mkdirSync(path.dirname(file), { recursive: true });
let out = `# Performance

Made by \`npm run bench\` (\`scripts/benchmarks/document.mjs\`); do not edit. Contenders run in turn, each figure is the
median of all rounds with its quartiles, each ratio the median of the ratios to the first contender of the same round.
`;
const results = {};
for (const name of NAMES) {
  const from = path.join(folder, `${name}.json`);
  if (existsSync(from)) results[name] = JSON.parse(readFileSync(from, 'utf8'));
}
out += `\n## Goals\n\n${goalsTable(results)}`;
for (const [name, result] of Object.entries(results)) {
  const { machine, rounds, skipped, groups } = result;
  if (groups.length === 0) continue;
  writeFileSync(path.join(path.dirname(file), `${name}.svg`), await plot(result));
  out += `\n## \`npm run bench:${name}\`\n\n`;
  out += `${rounds} rounds on ${machine.processor}, ${machine.cores} cores, ${machine.system}`;
  out += `${machine.node ? `, Node ${machine.node}` : ''}.\n`;
  for (const { name: peer, install } of skipped) out += `\nNot installed here: ${peer} (\`${install}\`).\n`;
  out += `\n![${name}](${name}.svg)\n`;
  for (const group of groups) {
    out += `\n| ${group.name} | ${group.unit} | quartiles | ratio | goal |\n| --- | ---: | ---: | ---: | --- |\n`;
    for (const { name: row, quartiles, ratio, goal } of group.rows) {
      const [low, median, high] = quartiles;
      const times = row === group.rows[0].name || !ratio ? '' : `×${ratio.toFixed(2)}`;
      out += `| ${row} | ${short(median)} | ${short(low)} … ${short(high)} | ${times} | ${goalOf(goal)} |\n`;
    }
  }
}

// The instructions of a profile, and what they take of the time that the probe adds.
const profile = path.join(folder, 'profile.json');
if (existsSync(profile)) {
  out += `
## Where they are

Instructions of one I/O of 4 KiB at depth 32 on a null device, by the file that they come from, inlined code by the file
that it is written in (callgrind; \`scripts/benchmarks/profile.mjs\`). The nanoseconds are the measured cost of the
probe, shared out by the instructions that it adds.
`;
  for (const { pattern, association, rows } of JSON.parse(readFileSync(profile, 'utf8'))) {
    const sum = (what) => rows.reduce((all, row) => all + row[what], 0);
    const added = rows.reduce((all, row) => all + Math.max(0, row.with - row.without), 0);
    const nanoseconds = addedBy(pattern, association);
    out += `\n| ${pattern} | without a probe | with \`${association}\` | ns | what it is |\n| --- | ---: | ---: | ---: | --- |\n`;
    for (const row of rows) {
      const more = row.with - row.without;
      const share = nanoseconds && more >= 1 ? ((more / added) * nanoseconds).toFixed(1) : '';
      out += `| ${row.file} | ${row.without.toFixed(0)} | ${row.with.toFixed(0)} | ${share} | ${row.about} |\n`;
    }
    out += `| all | ${sum('without').toFixed(0)} | ${sum('with').toFixed(0)} | ${nanoseconds?.toFixed(1) ?? ''} | |\n`;
  }
}

function addedBy(pattern, association) {
  const native = path.join(folder, 'native.json');
  if (!existsSync(native)) return undefined;
  const { groups } = JSON.parse(readFileSync(native, 'utf8'));
  const group = groups.find(({ name }) => name.includes(pattern) && name.includes('64 MiB') && name.endsWith('added'));
  return group?.rows.find(({ name }) => name === association)?.quartiles[1];
}

writeFileSync(file, out);
