// The package as a user gets it: packed, installed into an empty folder where no compiler can be found, and used from
// there by both module systems.
import { type SpawnSyncOptionsWithStringEncoding, spawnSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { checkout, copySources } from '../support/checkout.js';

const work = mkdtempSync(path.join(tmpdir(), 'stratamap-package-'));
const project = path.join(work, 'project');
const installed = path.join(project, 'node_modules/stratamap');

afterAll(() => rmSync(work, { recursive: true, force: true }));

function run(command: string, args: string[], options: Partial<SpawnSyncOptionsWithStringEncoding> = {}) {
  const { status, stdout, stderr } = spawnSync(command, args, { cwd: project, ...options, encoding: 'utf8' });
  return { status, stdout, stderr };
}

function mustRun(...args: Parameters<typeof run>): string {
  const { status, stdout, stderr } = run(...args);
  expect(status, `${args[0]} ${args[1].join(' ')}\n${stdout}\n${stderr}`).toBe(0);
  return stdout;
}

/** A PATH on which there is Node, a shell, and nothing that compiles. */
function withoutCompilers(): NodeJS.ProcessEnv {
  const bin = path.join(work, 'bin');
  mkdirSync(bin);
  symlinkSync(process.execPath, path.join(bin, 'node'));
  symlinkSync('/bin/sh', path.join(bin, 'sh'));
  return { ...process.env, PATH: bin, CC: '', CXX: '' };
}

function npmProgram(): string {
  const folder = (process.env.PATH ?? '').split(':').find((name) => existsSync(path.join(name, 'npm')));
  return realpathSync(path.join(folder ?? '', 'npm'));
}

beforeAll(() => {
  const stage = path.join(work, 'stage');
  copySources(stage);
  symlinkSync(path.join(checkout, 'node_modules'), path.join(stage, 'node_modules'));
  mkdirSync(project);
  writeFileSync(path.join(project, 'package.json'), '{ "private": true }');
  // prebuildify leaves its folder for temporary files behind.
  mustRun('npm', ['pack', '--pack-destination', work], { cwd: stage, env: { ...process.env, TMPDIR: work } });
  const tarball = readdirSync(work).find((name) => name.endsWith('.tgz'));
  const env = withoutCompilers();
  expect(run('cc', ['--version'], { env }).status).toBeNull();
  const install = ['install', '--prefer-offline', '--no-audit', '--no-fund', path.join(work, tarball!)];
  mustRun(process.execPath, [npmProgram(), ...install], { env });
}, 900_000);

test('the tarball holds what is needed and no more', () => {
  expect(readdirSync(installed).sort()).toEqual(
    [
      'CHANGELOG.md',
      'LICENSE',
      'NOTICE',
      'README.md',
      'binding.gyp',
      'capabilities.json',
      'dist',
      'examples',
      'native',
      'package.json',
      'prebuilds',
    ].sort(),
  );
  expect(existsSync(path.join(installed, 'native/include/stratamap/volume.h'))).toBe(true);
});

test('nothing was compiled: the prebuilt addon is the one that loads', () => {
  expect(existsSync(path.join(installed, 'build'))).toBe(false);
  const resolved = mustRun('node', ['-p', "require('node-gyp-build').resolve('node_modules/stratamap')"]);
  expect(path.relative(realpathSync(installed), resolved.trim())).toMatch(
    /^prebuilds\/linux-\w+\/stratamap\.glibc\.node$/,
  );
});

test('the program finds the libraries that serve needs', () => {
  const program = path.join(installed, 'dist/cli/main.js');
  const example = path.join(installed, 'examples/host.yaml');
  expect(mustRun('node', [program, 'serve', '--check', example])).toBe(`${example} is valid\n`);
  expect(run('node', [program, 'disks', '--socket', 'none']).stderr).toContain('nobody listens on none');
});

// Writes, reads back and maps 4 KiB on a plain file. `maps` may come from the other module system than `stacks`: a probe
// takes the map only where both share one native state.
const USE = `
  async function use(stacks, maps, file) {
    require('node:fs').writeFileSync(file, '');
    require('node:fs').truncateSync(file, 64 * 2 ** 20);
    const host = await stacks.openHost({ threads: 1 });
    await host.openDevice({ name: 'nothing', driver: 'null', size: 2 ** 20 });
    const device = await host.openDevice({ name: 'd0', path: file });
    await host.formatVolume({ type: 'extent', devices: [device] });
    const volume = await host.openVolume({ name: 'v0', type: 'extent', devices: [device] });
    const disk = await volume.createDisk({ vm: 'vm-1', name: 'vda', size: 2 ** 20 });
    const map = await maps.openMap();
    await host.attachProbe({ map, association: 'serial', correlation: 'descend', capacity: 1024 });
    await disk.write(0, Buffer.alloc(4096, 7));
    const back = Buffer.from(await disk.read(0, 4096));
    const state = map.locate(disk, 0, 4096).map((extent) => extent.state).join();
    await host.close();
    console.log(JSON.stringify({ same: back.equals(Buffer.alloc(4096, 7)), state }));
  }
`;
const BOTH = `
  const differing = Object.keys(cjs).filter((name) => cjs[name] !== esm[name]);
  if (differing.length > 0) throw new Error('ESM and CommonJS differ in ' + differing);
`;

describe.each([
  [
    'ESM',
    'a.mjs',
    "import * as esm from 'stratamap'; import { createRequire } from 'node:module'; const require = createRequire(import.meta.url); const cjs = require('stratamap');",
    'esm, cjs',
  ],
  ['CommonJS', 'a.cjs', "const cjs = require('stratamap'); const load = () => import('stratamap');", 'cjs, esm'],
])('from %s', (_system, script, load, sides) => {
  test('it writes, reads and maps, and shares its native state with the other module system', () => {
    const body = `${BOTH} await use(${sides}, 'disk.img');`;
    const main = script.endsWith('.mjs') ? body : `load().then(async (esm) => { ${body} });`;
    writeFileSync(path.join(project, script), `${load}\n${USE}\n${main}`);
    expect(JSON.parse(mustRun('node', [script]))).toEqual({ same: true, state: 'mapped' });
  });
});

test('its types compile in both module systems, strictly', () => {
  const source = [
    "import { type Host, openHost } from 'stratamap';",
    'export async function open(): Promise<Host> { return await openHost({ threads: 1 }); }',
    '// @ts-expect-error: not an option',
    'export const wrong = openHost({ thread: 1 });',
  ].join('\n');
  writeFileSync(path.join(project, 'types.mts'), source);
  writeFileSync(path.join(project, 'types.cts'), source);
  const options = [
    '--noEmit',
    '--strict',
    '--target',
    'es2023',
    '--lib',
    'es2023,esnext.disposable',
    '--module',
    'nodenext',
  ];
  const types = ['--types', 'node', '--typeRoots', path.join(checkout, 'node_modules/@types')];
  mustRun(path.join(checkout, 'node_modules/.bin/tsc'), [...options, ...types, 'types.mts', 'types.cts']);
});

test('its program runs', () => {
  expect(mustRun('node_modules/.bin/stratamap', ['--version'])).toBe('0.1.0\n');
});

test('without its addon it says what to do', () => {
  const broken = path.join(work, 'broken/node_modules/stratamap');
  cpSync(path.join(project, 'node_modules'), path.dirname(broken), { recursive: true });
  rmSync(path.join(broken, 'prebuilds'), { recursive: true });
  const { status, stderr } = run('node', ['-e', "require('stratamap')"], { cwd: path.join(work, 'broken') });
  expect(status).not.toBe(0);
  expect(stderr).toContain('npm rebuild stratamap');
});
