#!/usr/bin/env node
// Counts the instructions that an I/O of 4 KiB costs on the native path, with callgrind, and compares them with what
// native/bench/path_budget.json allows: a noisy machine does not change the count. Fails where one grew by over a tenth.
// Usage: scripts/check-path.mjs BENCH_PATH [--record]      (BENCH_PATH: the built native/bench/path.cc)
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { callgrind, perOperation } from './benchmarks/callgrind.mjs';

const BUDGET = path.resolve(import.meta.dirname, '../native/bench/path_budget.json');
const ALLOWED = 1.1;
const PATHS = ['none', 'serial', 'tag', 'pointer', 'address'].flatMap((association) =>
  ['randread', 'randwrite'].map((pattern) => `${pattern}/${association}`),
);

const [bench, option] = process.argv.slice(2);
if (!bench || (option && option !== '--record')) {
  console.error('usage: scripts/check-path.mjs BENCH_PATH [--record]');
  process.exit(2);
}

function run(program, ...parameters) {
  const { error, status, stdout, stderr } = spawnSync(program, parameters, { encoding: 'utf8', timeout: 300_000 });
  if (error?.code === 'ENOENT') return undefined;
  if (error || status !== 0) throw new Error(`${program} ${parameters.join(' ')}: ${error ?? stderr}`);
  return stdout + stderr;
}

function instructions(what) {
  const collected = (operations) => Number(/Collected : (\d+)/.exec(callgrind(bench, what, operations))[1]);
  return Math.round(perOperation(collected)((count) => count));
}

// Another compiler or processor makes other instructions of it.
const compiler = `${run('c++', '--version')?.split('\n')[0] ?? 'none'}, ${process.arch}`;
const budget = JSON.parse(readFileSync(BUDGET, 'utf8'));

if (run('valgrind', '--version') === undefined) {
  console.log('path: skipped: valgrind is not installed: apt-get install valgrind');
} else if (option) {
  budget.compiler = compiler;
  budget.instructions = Object.fromEntries(PATHS.map((what) => [what, instructions(what)]));
  writeFileSync(BUDGET, `${JSON.stringify(budget, undefined, 2)}\n`);
  console.log(`path: recorded in ${BUDGET}`);
} else if (compiler !== budget.compiler) {
  console.log(`path: skipped: the budget is of ${budget.compiler}; this is ${compiler}`);
} else {
  for (const what of PATHS) {
    const found = instructions(what);
    const allowed = budget.instructions[what];
    const good = found <= allowed * ALLOWED;
    if (!good) process.exitCode = 1;
    console.log(
      `${what.padEnd(18)} ${String(found).padStart(6)} instructions an I/O, budget ${allowed}${good ? '' : ': too many'}`,
    );
  }
  if (process.exitCode)
    console.log('path: what made it longer? If it has to be: scripts/check-path.mjs BENCH_PATH --record');
}
