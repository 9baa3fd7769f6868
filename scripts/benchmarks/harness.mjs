// What benchmarks in JavaScript have in common, as native/bench/bench.h for those in C++: contenders in turn, medians
// with quartiles, ratios of the same round, a table to read and JSON to draw.
import { spawnSync } from 'node:child_process';
import { accessSync, constants, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';

/** The value below which `part` of them lie. */
export function quantile(values, part) {
  const sorted = [...values].sort((a, b) => a - b);
  const at = part * (sorted.length - 1);
  const below = sorted[Math.floor(at)];
  return below + (sorted[Math.ceil(at)] - below) * (at - Math.floor(at));
}

/** The arguments that every benchmark takes. */
export function options() {
  const { values } = parseArgs({
    options: {
      quick: { type: 'boolean', default: false },
      only: { type: 'string', default: '' },
      json: { type: 'string' },
    },
  });
  return values;
}

const ratios = (rounds, base) => rounds.map((value, i) => value / base[i]);

// A goal is { ratio | value: 'least' | 'most', is: number, quantile }: of the paired ratios to the first contender, or of
// the figures themselves.
function judge(goal, row, base) {
  const kind = 'ratio' in goal ? 'ratio' : 'value';
  const figures = kind === 'ratio' ? ratios(row.rounds, base.rounds) : row.rounds;
  const found = quantile(figures, goal.quantile ?? 0.5);
  return { found, met: goal[kind] === 'least' ? found >= goal.is : found <= goal.is };
}

export const short = (value) =>
  Math.abs(value) >= 1000 ? Math.round(value).toLocaleString('en-US') : value.toPrecision(3);

/** '≥ ×0.98', '≤ 20.0' */
export const wordsOf = (goal) =>
  `${(goal.ratio ?? goal.value) === 'least' ? '≥' : '≤'} ${'ratio' in goal ? `×${goal.is}` : short(goal.is)}`;

export class Report {
  #name;
  #rounds;
  #only;
  #groups = [];
  #skipped = [];

  constructor(name, rounds, only) {
    this.#name = name;
    this.#rounds = rounds;
    this.#only = only;
  }

  /**
   * A group: { name, measures: [{ name, unit }], contenders: [{ name, round, goals: { [measure]: goal } }] }. `round`
   * does it once and returns a figure for each measure.
   */
  async run(group) {
    if (!group.name.includes(this.#only)) return;
    const tables = group.measures.map((measure) => ({
      name: `${group.name}, ${measure.name}`,
      unit: measure.unit,
      rows: group.contenders.map(({ name, goals }) => ({ name, goal: goals?.[measure.name], rounds: [] })),
    }));
    for (let round = 0; round < this.#rounds; ++round) {
      for (const [i, contender] of group.contenders.entries()) {
        const figures = await contender.round(round);
        for (const table of tables) {
          const measure = table.name.slice(group.name.length + 2);
          table.rows[i].rounds.push(figures[measure]);
        }
      }
    }
    for (const table of tables) this.#finish(table);
  }

  #finish(table) {
    console.log(table.name);
    for (const row of table.rows) {
      row.quartiles = [0.25, 0.5, 0.75].map((part) => quantile(row.rounds, part));
      row.ratio = quantile(ratios(row.rounds, table.rows[0].rounds), 0.5);
      const [low, median, high] = row.quartiles.map(short);
      let line = `  ${row.name.padEnd(40)} ${median.padStart(10)} ${table.unit}  (${low} … ${high})`;
      if (row !== table.rows[0]) line += `  ×${row.ratio.toFixed(3)}`;
      if (row.goal) {
        Object.assign(row.goal, judge(row.goal, row, table.rows[0]));
        line += `  goal ${wordsOf(row.goal)}: ${row.goal.met ? 'met' : 'missed'} (${row.goal.found.toPrecision(4)})`;
      }
      console.log(line);
    }
    this.#groups.push(table);
  }

  /** A line for each goal that was not met. */
  missed() {
    const rows = this.#groups.flatMap((table) => table.rows.map((row) => ({ table, row })));
    return rows
      .filter(({ row }) => row.goal && !row.goal.met)
      .map(
        ({ table, row }) => `${table.name}, ${row.name}: ${row.goal.found.toPrecision(4)}, not ${wordsOf(row.goal)}`,
      );
  }

  skip(name, install) {
    console.log(`${name}: not installed, skipped; ${install}`);
    this.#skipped.push({ name, install });
  }

  write(file) {
    if (!file) return;
    const machine = {
      processor: os.cpus()[0]?.model ?? 'unknown',
      cores: os.cpus().length,
      memory: os.totalmem(),
      system: `${os.type()} ${os.release()} ${os.machine()}`,
      node: process.version,
    };
    const all = { name: this.#name, machine, rounds: this.#rounds, skipped: this.#skipped, groups: this.#groups };
    writeFileSync(file, `${JSON.stringify(all, undefined, 1)}\n`);
  }
}

/** A folder in memory where there is one, removed when the process ends. */
export function folderInMemory() {
  let parent = os.tmpdir();
  try {
    accessSync('/dev/shm', constants.W_OK);
    parent = '/dev/shm';
  } catch {}
  const folder = mkdtempSync(path.join(parent, 'stratamap-bench-'));
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

export function emptyFile(folder, name, bytes) {
  const file = path.join(folder, name);
  writeFileSync(file, '');
  truncateSync(file, bytes);
  return file;
}

/** What a program prints as JSON, behind whatever else it says first. */
export function outputOf(program, words) {
  const { stdout, stderr, status, error } = spawnSync(program, words, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${program} failed: ${error ?? stderr}`);
  return JSON.parse(stdout.slice(stdout.indexOf('{')));
}

/** fio's 4 KiB at random for some seconds: how many operations it did, in how many ns, and the CPU time it took, ns. */
export function runFio(pattern, seconds, parameters) {
  const all = {
    name: 'bench',
    rw: pattern,
    bs: '4k',
    norandommap: 1,
    randrepeat: 0,
    gtod_reduce: 1,
    time_based: 1,
    runtime: `${1000 * seconds}ms`, // it takes no fractions
    'output-format': 'json',
    ...parameters,
  };
  const words = Object.entries(all).map(([name, value]) => `--${name}=${value}`);
  const job = outputOf('fio', words).jobs[0];
  const { total_ios: operations, runtime } = pattern === 'randread' ? job.read : job.write;
  return { operations, ns: runtime * 1e6, cpu: ((job.usr_cpu + job.sys_cpu) / 100) * job.job_runtime * 1e6 };
}

export const isInstalled = (program) => spawnSync(program, ['--version']).error === undefined;

/** CPU time that the whole machine has spent so far, ns, the kernel's threads included. */
export function machineCpu() {
  const [, user, nice, system, , , irq, softirq] = readFileSync('/proc/stat', 'utf8')
    .split('\n')[0]
    .split(/ +/)
    .map(Number);
  return (user + nice + system + irq + softirq) * 1e7; // of 10 ms
}

/** CPU time that this process has spent so far, ns. */
export function ownCpu() {
  const { user, system } = process.cpuUsage();
  return (user + system) * 1000;
}
