#!/usr/bin/env node
// Checks which folder includes what, by direct includes and imports, against the table below (that of the design).
// Usage: scripts/check-folders.mjs [ROOT]. Prints one line for each violation and exits with 1 if there is one.
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';

// A folder may include itself and what stands on its right. The row of the longest matching path counts.
const CONTRACTS = 'native/include/stratamap';
const EVERYTHING = ['native', 'test'];
const MAY = {
  [CONTRACTS]: [],
  'native/sys': [],
  'native/host/engine': [CONTRACTS, 'native/sys'],
  'native/host/disks': [CONTRACTS, 'native/host/engine'],
  'native/host/volumes': [CONTRACTS],
  'native/host/devices': [CONTRACTS, 'native/host/engine', 'native/sys'],
  // Files directly in host/, where its folders come together.
  'native/host': [
    CONTRACTS,
    'native/sys',
    'native/host/engine',
    'native/host/disks',
    'native/host/volumes',
    'native/host/devices',
  ],
  'native/map': [],
  'native/correlate': [CONTRACTS, 'native/map'],
  'native/intercept': [CONTRACTS, 'native/correlate', 'native/map', 'native/intercept/kernel'],
  'native/intercept/kernel': [CONTRACTS, 'native/correlate', 'native/map', 'native/intercept', 'native/sys'],
  'native/policies': [CONTRACTS, 'native/intercept', 'native/correlate', 'native/map'],
  'native/nbd': [
    CONTRACTS,
    'native/host',
    'native/host/engine',
    'native/host/disks',
    'native/host/volumes',
    'native/host/devices',
  ],
  'native/binding': ['native'],
  'native/bench': EVERYTHING,
  // The independent truth shares no source with what it judges.
  'test/oracle': [CONTRACTS],
  // A stranger's volumes.
  'test/fixtures': [CONTRACTS],
  test: EVERYTHING,
};

// Headers of others that belong to one folder alone.
const FOREIGN = [
  { header: /^liburing(\.h|\/)/, folder: 'native/sys' },
  { header: /^bpf\/libbpf\.h$/, folder: 'native/sys' },
  { header: /^gnutls\//, folder: 'native/nbd' },
  { header: /^(napi|node_api|js_native_api|node|uv|v8)\.h$/, folder: 'native/binding' },
];

const root = path.resolve(process.argv[2] ?? path.join(import.meta.dirname, '..'));
const violations = [];
const read = (file) => readFileSync(path.join(root, file), 'utf8');

function filesIn(folder, pattern) {
  const absolute = path.join(root, folder);
  if (!existsSync(absolute)) return [];
  return readdirSync(absolute, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && pattern.test(entry.name))
    .map((entry) => path.relative(root, path.join(entry.parentPath, entry.name)))
    .sort();
}

// Each match of `pattern` in the file, as [line number, match].
function* matches(file, pattern) {
  for (const [index, line] of read(file).split('\n').entries()) {
    for (const match of line.matchAll(pattern)) yield [index + 1, match];
  }
}

const inside = (file, folder) => file === folder || file.startsWith(`${folder}/`);

function rowOf(file) {
  const rows = Object.keys(MAY).filter((folder) => inside(path.dirname(file), folder));
  return rows.sort((a, b) => b.length - a.length)[0];
}

// The file of ours that an include means, existing or not; null for a header of the system or of others.
function resolveInclude(file, name, quoted) {
  const bases = ['native', 'native/host', 'native/include', '.'];
  if (quoted) bases.unshift(path.dirname(file));
  const candidates = bases.map((base) => path.normalize(path.join(base, name)));
  const isFile = (candidate) => statSync(path.join(root, candidate), { throwIfNoEntry: false })?.isFile();
  const existing = candidates.find(isFile);
  if (existing !== undefined || !quoted) return existing ?? null;
  return candidates.find((candidate) => rowOf(candidate) !== undefined && rowOf(candidate) !== rowOf(file)) ?? null;
}

function checkIncludes(file) {
  const row = rowOf(file);
  if (row === undefined) {
    violations.push(`${file}: its folder is not in the table of scripts/check-folders.mjs`);
    return;
  }
  for (const [line, [, open, name]] of matches(file, /^\s*#\s*include\s*([<"])([^>"]+)[>"]/g)) {
    const where = `${file}:${line}: includes ${name}`;
    const foreign = FOREIGN.find(({ header }) => header.test(name));
    if (foreign && foreign.folder !== row && row !== 'test')
      violations.push(`${where}, which only ${foreign.folder}/ may`);
    const target = resolveInclude(file, name, open === '"');
    if (target === null) continue;
    const targetRow = rowOf(target);
    const allowed =
      targetRow === row ||
      MAY[row].some(
        (folder) => targetRow === folder || (EVERYTHING.includes(folder) && inside(targetRow ?? target, folder)),
      );
    if (!allowed) violations.push(`${where}: ${row}/ may not use ${targetRow ?? path.dirname(target)}/`);
  }
}

function checkContract(header) {
  for (const [compiler, language, standard] of [
    [process.env.CC ?? 'cc', 'c', 'c11'],
    [process.env.CXX ?? 'c++', 'c++', 'c++20'],
  ]) {
    const args = [
      '-fsyntax-only',
      '-Wall',
      '-Wextra',
      '-Werror',
      `-std=${standard}`,
      '-I',
      'native/include',
      '-x',
      language,
      '-',
    ];
    const input = `#include <${path.relative('native/include', header)}>\n`;
    const { status, stderr, error } = spawnSync(compiler, args, { cwd: root, input, encoding: 'utf8' });
    if (status !== 0) violations.push(`${header}: does not compile alone as ${standard}: ${error ?? stderr.trim()}`);
  }
}

// sources.json is what binding.gyp and CMake build: what neither it nor the folder's own CMakeLists.txt names would never
// be compiled.
function checkSources() {
  const listed = Object.values(JSON.parse(read('native/sources.json')))
    .flat()
    .map((file) => `native/${file}`);
  for (const file of filesIn('native', /\.cc$/)) {
    const cmake = path.join(path.dirname(file), 'CMakeLists.txt');
    const built = existsSync(path.join(root, cmake)) && read(cmake).includes(path.basename(file));
    if (!listed.includes(file) && !built) violations.push(`${file}: not in native/sources.json`);
  }
  for (const file of listed) {
    if (!existsSync(path.join(root, file))) violations.push(`native/sources.json: names ${file}, which does not exist`);
  }
}

function checkImports(file) {
  const pattern = /(?:\bfrom\s*|\bimport\s*\(?\s*|\brequire\s*\(\s*)['"]([^'"]+)['"]/g;
  for (const [line, [, name]] of matches(file, pattern)) {
    const where = `${file}:${line}: imports ${name}`;
    if ((name === 'node-gyp-build' || name.endsWith('.node')) && file !== 'lib/native.ts') {
      violations.push(`${where}: lib/native.ts alone loads the addon`);
    }
    if (!name.startsWith('.')) continue;
    const target = path.join(path.dirname(file), name).replace(/\.[cm]?js$/, '');
    const fromCli = inside(file, 'lib/cli');
    const toCli = inside(target, 'lib/cli');
    if (fromCli && !toCli && target !== 'lib/index' && target !== 'lib') {
      violations.push(`${where}: lib/cli/ may use only what lib/index.ts exports`);
    }
    if (!fromCli && toCli) violations.push(`${where}: nothing may use lib/cli/`);
  }
}

for (const file of filesIn('native', /\.(h|cc|c)$/)) checkIncludes(file);
for (const file of filesIn('test', /\.(h|cc|c)$/)) checkIncludes(file);
for (const file of filesIn(CONTRACTS, /\.h$/)) checkContract(file);
for (const file of filesIn('lib', /\.[cm]?ts$/)) checkImports(file);
checkSources();

for (const violation of violations) console.log(violation);
console.log(`check-folders: ${violations.length === 0 ? 'no violation' : `${violations.length} violation(s)`}`);
process.exitCode = violations.length === 0 ? 0 : 1;
