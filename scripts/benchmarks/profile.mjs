// Where the instructions of an I/O of 4 KiB are, file by file, without a probe and with one: by callgrind, so that a
// noisy machine changes nothing.
// Usage: profile.mjs BENCH_PATH JSON
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { callgrind, perOperation } from './callgrind.mjs';
import { isInstalled } from './harness.mjs';

const LEAST = 8; // instructions that get a file its line

const [bench, json] = process.argv.slice(2);
if (!isInstalled('valgrind')) {
  console.log('profile: valgrind is not installed, skipped; apt-get install valgrind');
  process.exit();
}
const folder = mkdtempSync(path.join(os.tmpdir(), 'stratamap-profile-'));
process.once('exit', () => rmSync(folder, { recursive: true, force: true }));

const LIBRARIES = 'the C and C++ libraries';
const native = path.join(import.meta.dirname, '../../native');

/** The file below native/; what is not ours is one. The compiler sees some of our folders under other names. */
function fileOf(name) {
  const [, ours] = /(?:\/may\/[^/]+|native)\/((?:[a-z_]+\/)+[a-z_]+\.(?:cc|h))$/.exec(name) ?? [];
  const files = ours ? [ours, `host/${ours}`] : [];
  return files.find((file) => existsSync(path.join(native, file))) ?? LIBRARIES;
}

function selfCosts(what, operations) {
  const out = path.join(folder, 'out');
  callgrind(bench, what, operations, out);
  const words = ['--auto=no', '--threshold=100', '--show=Ir', out];
  const { stdout } = spawnSync('callgrind_annotate', words, { encoding: 'utf8', maxBuffer: 2 ** 26 });
  const costs = new Map();
  for (const line of stdout.split('\n')) {
    const [, count, file] = /^ *([\d,]+) \( *[\d.]+%\) +([^:]+):/.exec(line) ?? [];
    if (file) costs.set(fileOf(file), (costs.get(fileOf(file)) ?? 0) + Number(count.replaceAll(',', '')));
  }
  if (costs.size === 0) throw new Error('callgrind_annotate tells of no file');
  return costs;
}

function perIo(what) {
  const files = new Set();
  const one = perOperation((operations) => {
    const costs = selfCosts(what, operations);
    for (const file of costs.keys()) files.add(file);
    return costs;
  });
  return new Map([...files].map((file) => [file, one((costs) => costs.get(file) ?? 0)]));
}

/** What a file, or else its header, says that it is: the first sentence of it. */
function about(file) {
  if (file === LIBRARIES)
    return 'memset, memcpy, and what of `<atomic>`, `<vector>` and others became part of our code';
  for (const each of [file, file.replace('.cc', '.h')].map((name) => path.join(native, name))) {
    const comment = (existsSync(each) && readFileSync(each, 'utf8').match(/^(?:\/\/.*\n)+/)?.[0]) || '';
    const text = comment.replaceAll(/^\/\/ ?/gm, '').replaceAll('\n', ' ');
    if (text) return text.match(/^.*?(?=\.(?: |$))/)?.[0] ?? '';
  }
  return '';
}

const profiles = ['randread', 'randwrite'].map((pattern) => {
  const [without, probed] = ['none', 'serial'].map((association) => perIo(`${pattern}/${association}`));
  const all = [...new Set([...probed.keys(), ...without.keys()])]
    .map((file) => ({ file, about: about(file), without: without.get(file) ?? 0, with: probed.get(file) ?? 0 }))
    .sort((a, b) => b.with - b.without - (a.with - a.without));
  const isSmall = (row) => Math.max(row.without, row.with) < LEAST;
  const sum = (what) => all.filter(isSmall).reduce((total, row) => total + row[what], 0);
  const rest = { file: 'the rest', about: '', without: sum('without'), with: sum('with') };
  const rows = [...all.filter((row) => !isSmall(row)), rest];
  for (const row of rows) console.log(`${pattern} ${row.file} ${row.without.toFixed(0)} ${row.with.toFixed(0)}`);
  return { pattern, association: 'serial', rows };
});
writeFileSync(json, `${JSON.stringify(profiles, undefined, 1)}\n`);
