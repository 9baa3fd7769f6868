// The demo as users run it: the built program, on loop devices and on plain files.
import { spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { checkout } from '../support/checkout.js';
import { tmpDir } from '../support/files.js';
import { needsLoop, needsProgram } from '../support/machine.js';

const PROGRAM = path.join(checkout, 'dist/cli/main.js');
const withTools = needsProgram('the demo', 'mkfs.ext4', 'e2fsck');
const withLoop = withTools === test ? needsLoop('the demo on loop devices') : withTools;

interface Finished {
  code: number | null;
  stdout: string;
  stderr: string;
}

// As far as colours go, the environment of a CI run in which nobody asks for them, whatever the tests run in.
const PLAIN = { CI: '1', FORCE_COLOR: undefined, NO_COLOR: undefined };

function start(args: string[], cwd: string, env: Record<string, string> = {}) {
  const child = spawn(process.execPath, [PROGRAM, 'demo', '--folder', cwd, ...args], {
    cwd,
    env: { ...process.env, ...PLAIN, ...env },
  });
  onTestFinished(() => void child.kill('SIGKILL'));
  const result: Finished = { code: null, stdout: '', stderr: '' };
  child.stdout.on('data', (data) => {
    result.stdout += data;
  });
  child.stderr.on('data', (data) => {
    result.stderr += data;
  });
  const finished = new Promise<Finished>((resolve) => {
    child.on('close', (code) => resolve({ ...result, code }));
  });
  return { child, finished };
}

/** Backing files of all loop devices that lie in `folder`. */
function loopsIn(folder: string): string[] {
  return readdirSync('/sys/block')
    .map((name) => `/sys/block/${name}/loop/backing_file`)
    .filter((file) => existsSync(file))
    .map((file) => {
      try {
        return readFileSync(file, 'utf8');
      } catch {
        return ''; // detached meanwhile
      }
    })
    .filter((file) => file.startsWith(folder));
}

async function expectProof(volume: string, args: string[]) {
  const folder = tmpDir();
  const { code, stdout, stderr } = await start(['--size', '8M', '--volume', volume, '--json', ...args], folder)
    .finished;
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  const result = JSON.parse(stdout);
  expect(Object.keys(result.proof)).toEqual(['extents', 'bytesCompared', 'differing', 'recall']);
  expect(result.proof).toMatchObject({ differing: 0, recall: 1 });
  expect(result.proof.extents).toBeGreaterThan(300);
  expect(result.proof.bytesCompared).toBeGreaterThan(8 * 2 ** 20);
  expect(result.misnamed).toBe(0);
  expect(result.scatter.neighbours).toBeGreaterThan(200);
  expect(result.scatter.share).toBeGreaterThanOrEqual(0.9);
  expect(result.failures).toEqual([]);
  expect(result.disks.map(({ vm, name, fsck }: Record<string, string>) => [vm, name, fsck])).toEqual([
    ['web', 'vda', 'clean'],
    ['db', 'vda', 'clean'],
    ['mail', 'vda', 'clean'],
  ]);
  for (const disk of result.disks) {
    expect(disk.mapped).toBe(disk.written);
    expect(disk.image.files).toBeGreaterThan(10);
    for (const kind of ['write', 'discard', 'read']) expect(disk.workload[kind].operations).toBeGreaterThan(10);
  }
  expect(Object.keys(result.ledger.devices)).toEqual(result.devices.map(({ name }: { name: string }) => name));
  for (const fates of Object.values<Record<string, { operations: number }>>(result.ledger.devices)) {
    expect(Object.keys(fates)).toEqual(['attributed', 'ambiguous', 'unattributed', 'control']);
    expect(fates.attributed!.operations).toBeGreaterThan(100);
  }
  expect(readFileSync(path.join(folder, 'out', `demo-${volume}.svg`), 'utf8')).toMatch(
    /^<svg .*web\/vda from .*<\/svg>\n$/s,
  );
  expect(readdirSync(folder)).toEqual(['out']);
  expect(loopsIn(folder)).toEqual([]);
  return result;
}

for (const volume of ['extent', 'stripe']) {
  withLoop(`the demo proves the map of a volume of type ${volume} on loop devices`, async () => {
    const { devices } = await expectProof(volume, []);
    for (const device of devices) expect(device.path).toMatch(/^\/dev\/loop\d+$/);
    expect(devices).toHaveLength(2);
  });

  withTools(`the demo proves the map of a volume of type ${volume} on plain files`, async () => {
    const { devices, notes } = await expectProof(volume, ['--files']);
    for (const device of devices) expect(device.path).toMatch(/\.img$/);
    expect(notes[0]).toBe('plain files in place of loop devices: asked for by --files');
  });
}

withTools('the demo shows pictures, extents, ledger and proof', async () => {
  const folder = tmpDir();
  const { code, stdout, stderr } = await start(['--size', '8M', '--files', '--seed', '7', '--svg', 'x.svg'], folder)
    .finished;
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  for (const part of ['a.img', 'b.img', 'The largest extents', 'The ledger', 'recall 1.0', 'x.svg', 'Proven']) {
    expect(stdout).toContain(part);
  }
  expect(stdout).toMatch(/^ *\d+ MiB │[·WwDdMm]{32,}$/m);
  expect(stdout).not.toContain('\x1b');
  expect(readdirSync(folder)).toEqual(['x.svg']);
});

withTools('FORCE_COLOR colours what is no terminal', async () => {
  const args = ['--size', '8M', '--files', '--no-svg'];
  const { code, stdout } = await start(args, tmpDir(), { FORCE_COLOR: '1' }).finished;
  expect(code).toBe(0);
  expect(stdout).toContain('\x1b[32m\x1b[1mProven: not one byte differs.\x1b[22m\x1b[39m\n');
});

withTools('--keep leaves the files, and says where', async () => {
  const folder = tmpDir();
  const { stdout } = await start(['--size', '8M', '--files', '--no-svg', '--keep'], folder).finished;
  const [left] = readdirSync(folder);
  expect(stdout).toContain(path.join(folder, left!));
  expect(readdirSync(path.join(folder, left!))).toEqual(
    expect.arrayContaining(['a.img', 'b.img', 'web.ext4', 'web.kept']),
  );
});

/** Runs the demo with `program` replaced by a shell script, in which the real one is `$real`. */
function startWith(program: string, script: string) {
  const bin = tmpDir();
  writeFileSync(path.join(bin, program), `#!/bin/sh\nPATH=\${PATH#*:}; real=$(command -v ${program})\n${script}\n`, {
    mode: 0o755,
  });
  return start(['--size', '8M', '--files', '--no-svg', '--json'], tmpDir(), { PATH: `${bin}:${process.env.PATH}` })
    .finished;
}

withTools('a device that holds other bytes than were written fails the demo', async () => {
  const spoil = 'yes | "$real" "$2" bs=1M count=4 seek=8 conv=notrunc iflag=fullblock status=none';
  const { code, stdout, stderr } = await startWith('dd', `"$real" "$@" && ${spoil}`);
  expect(code).toBe(1);
  const { proof, failures } = JSON.parse(stdout);
  expect(proof.differing).toBeGreaterThan(10_000);
  expect(proof.recall).toBe(1);
  expect(failures.length).toBeGreaterThan(1);
  expect(stderr).toContain(`stratamap demo: ${failures[0]}\n`);
  expect(failures[0]).toMatch(/^(web|db|mail)\/vda at \d+, mapped to [ab]\.img at \d+: \d+ bytes differ/);
});

withTools('a file system that is not clean fails the demo', async () => {
  const { code, stdout, stderr } = await startWith('e2fsck', 'echo "bad magic"; exit 4');
  expect(code).toBe(1);
  const { proof, disks } = JSON.parse(stdout);
  expect(proof.differing).toBe(0);
  expect(disks.map(({ fsck }: { fsck: string }) => fsck)).toEqual(['not clean', 'not clean', 'not clean']);
  expect(stderr).toContain('web/vda, rewritten and read back: e2fsck -fn ended with 4: bad magic');
});

for (const [name, code] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const) {
  withTools(`${name} ends the demo, and leaves nothing behind`, async () => {
    const folder = tmpDir();
    const { child, finished } = start(['--size', '256M', '--no-svg'], folder);
    // Wherever it is once its temporary folder has the first ext4 image.
    while (!readdirSync(folder, { recursive: true }).some((file) => `${file}`.endsWith('.ext4'))) {
      expect(child.exitCode).toBe(null);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    child.kill(name);
    expect(await finished).toMatchObject({ code, stderr: 'stratamap demo: interrupted; everything is cleaned up\n' });
    expect(readdirSync(folder)).toEqual([]);
    expect(loopsIn(folder)).toEqual([]);
  });
}

test.each([
  [['--size', '1M'], /a multiple of 1M, from 8 MiB/],
  [['--size', '9999G'], /to 64 GiB/],
  [['--size', 'big'], /'big' is not a size/],
  [['--seed', '-1'], /a whole number/],
  [['--volume', 'raid'], /Allowed choices are extent, stripe/],
  [['--svg', '/proc/none/x.svg'], /cannot write the picture: .*\/proc\/none\/x\.svg.*--no-svg/],
  [['--size', '8M', '--folder', '/proc/none'], /there is no folder \/proc\/none.*--folder/],
])('%j is refused before anything is touched', async (args, message) => {
  const folder = tmpDir();
  const { code, stdout, stderr } = await start(args, folder).finished;
  expect(code).toBe(1);
  expect(stdout).toBe('');
  expect(stderr).toMatch(message);
  expect(readdirSync(folder).filter((name) => name !== 'out')).toEqual([]);
});

test('stratamap has a help and a version', async () => {
  const run = (...args: string[]) =>
    new Promise<string>((resolve) => {
      let out = '';
      spawn(process.execPath, [PROGRAM, ...args], { env: { ...process.env, ...PLAIN } })
        .on('close', (code) => resolve(`${code} ${out}`))
        .stdout.on('data', (data) => {
          out += data;
        });
    });
  const { version } = JSON.parse(readFileSync(path.join(checkout, 'package.json'), 'utf8'));
  expect(await run('--version')).toBe(`0 ${version}\n`);
  expect(await run('--help')).toMatch(/^0 Usage: stratamap .*demo/s);
  expect(await run('demo', '--help')).toMatch(/^0 Usage: stratamap demo .*--volume.*--size.*--seed.*--json/s);
});
