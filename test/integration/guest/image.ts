// A kernel and an initrd for guests: Debian's kernel, carved out of its package, which is downloaded and not installed;
// busybox, the modules for disks and ext4, and mke2fs. Made once, in out/guest.
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { checkout } from '../../support/checkout.js';

export interface GuestImage {
  kernel: string;
  initrd: string;
}

const MODULES = ['virtio_pci', 'virtio_blk', 'ext4', 'crc32c_generic'];
const FOLDER = path.join(checkout, 'out/guest');

// Of it /script, the disk with that serial, is run; its exit status leaves through the port 0xf4.
const INIT = `#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin:/sbin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
while read module; do insmod /modules/$module || echo "no module $module"; done < /modules/order
# disk SERIAL: its device.
disk() { for each in /sys/block/vd*; do [ "$(cat $each/serial)" = "$1" ] && echo /dev/\${each##*/}; done; }
tr -d '\\000' < "$(disk script)" > /script
( set -e; . /script )
status=$?
sync
printf "\\\\x$(printf %x $status)" | dd of=/dev/port bs=1 seek=244 2>/dev/null
poweroff -f
`;

const run = (program: string, args: string[], cwd: string, input?: Buffer) =>
  execFileSync(program, args, { cwd, input, maxBuffer: 2 ** 28, stdio: ['pipe', 'pipe', 'pipe'] });

/** What a compressed module or kernel holds. */
function unpacked(data: Buffer, cwd: string): Buffer {
  const magic = data.readUInt32BE(0);
  if (magic === 0xfd377a58) return run('xz', ['-dc', '--single-stream'], cwd, data);
  if (magic === 0x28b52ffd) return run('zstd', ['-dc'], cwd, data);
  if (magic === 0x7f454c46) return data;
  throw new Error(`compressed in a way that is not known: ${magic.toString(16)}`);
}

/** The ELF file in a bzImage, by the boot protocol's setup_sects, payload_offset and payload_length. */
function carve(image: Buffer, cwd: string): Buffer {
  const from = (image.readUInt8(0x1f1) + 1) * 512 + image.readUInt32LE(0x248);
  // Behind it stands the size that it unpacks to.
  return unpacked(image.subarray(from, from + image.readUInt32LE(0x24c) - 4), cwd);
}

function filesIn(folder: string): string[] {
  const found = readdirSync(folder, { recursive: true, withFileTypes: true });
  return found.filter((each) => each.isFile()).map((each) => path.join(each.parentPath, each.name));
}

/** Unpacks the modules that are asked for and those that they need into `to`, with their order. */
function addModules(root: string, version: string, to: string, cwd: string): void {
  const all = path.join(root, 'lib/modules', version);
  for (const file of filesIn(all).filter((each) => /\.ko\.(xz|zst)$/.test(each))) {
    writeFileSync(file.replace(/\.(xz|zst)$/, ''), unpacked(readFileSync(file), cwd));
    rmSync(file);
  }
  run('busybox', ['depmod', '-b', root, version], cwd);
  const needs = new Map<string, string[]>();
  const paths = new Map<string, string>();
  for (const line of readFileSync(path.join(all, 'modules.dep'), 'utf8').split('\n').filter(Boolean)) {
    const [file, rest] = line.split(':') as [string, string];
    needs.set(file, rest.split(' ').filter(Boolean));
    paths.set(path.basename(file, '.ko').replaceAll('-', '_'), file);
  }
  const order: string[] = [];
  const add = (file: string) => {
    for (const each of needs.get(file) ?? []) add(each);
    if (order.includes(file)) return;
    order.push(file);
    copyFileSync(path.join(all, file), path.join(to, path.basename(file)));
  };
  // What is not there is in the kernel.
  for (const name of MODULES) if (paths.has(name)) add(paths.get(name) as string);
  writeFileSync(path.join(to, 'order'), order.map((file) => `${path.basename(file)}\n`).join(''));
}

/** A program of this machine with the libraries that it needs. */
function addProgram(program: string, root: string): void {
  const libraries = execFileSync('ldd', [program], { encoding: 'utf8' }).match(/\/\S+/g) ?? [];
  for (const file of [program, ...libraries.filter((each) => !each.endsWith(':'))]) {
    const to = path.join(root, file);
    mkdirSync(path.dirname(to), { recursive: true });
    copyFileSync(file, to);
  }
}

function make(name: string, folder: string, image: GuestImage): void {
  run('apt-get', ['download', '-q', '-o', 'Acquire::http::Timeout=20', '-o', 'Acquire::Retries=1', name], folder);
  const archive = readdirSync(folder).find((each) => each.endsWith('.deb')) as string;
  const unpackedTo = path.join(folder, 'kernel');
  run('dpkg', ['-x', archive, unpackedTo], folder);
  const version = name.replace(/^linux-image-/, '');
  writeFileSync(image.kernel, carve(readFileSync(path.join(unpackedTo, 'boot', `vmlinuz-${version}`)), folder));

  const root = path.join(folder, 'root');
  for (const each of ['bin', 'sbin', 'dev', 'proc', 'sys', 'mnt', 'modules', 'etc']) {
    mkdirSync(path.join(root, each), { recursive: true });
  }
  addModules(unpackedTo, version, path.join(root, 'modules'), folder);
  addProgram('/usr/sbin/mke2fs', root);
  copyFileSync('/etc/mke2fs.conf', path.join(root, 'etc/mke2fs.conf'));
  copyFileSync(run('which', ['busybox'], folder).toString().trim(), path.join(root, 'bin/busybox'));
  writeFileSync(path.join(root, 'init'), INIT);
  chmodSync(path.join(root, 'init'), 0o755);
  writeFileSync(image.initrd, run('sh', ['-c', 'find . | cpio -o -H newc --quiet | gzip -1'], root));
}

/** The image, made where there is none yet; or why there is none. */
export function guestImage(): GuestImage | string {
  const program = 'qemu-system-x86_64 busybox cpio mke2fs debugfs xz apt-get dpkg ldd'.split(' ').find((each) => {
    try {
      execFileSync('sh', ['-c', `PATH="$PATH:/usr/sbin:/sbin" command -v ${each}`], { stdio: 'ignore' });
      return false;
    } catch {
      return true;
    }
  });
  if (program !== undefined) return `it needs ${program}, which is not installed`;
  const image = { kernel: path.join(FOLDER, 'vmlinux'), initrd: path.join(FOLDER, 'initrd.gz') };
  // Another recipe makes another image.
  const recipe = readFileSync(import.meta.filename, 'utf8');
  const made = path.join(FOLDER, 'recipe');
  if (existsSync(made) && readFileSync(made, 'utf8') === recipe) return image;
  mkdirSync(FOLDER, { recursive: true });
  const folder = mkdtempSync(path.join(FOLDER, 'making-'));
  try {
    const depends = run('apt-cache', ['depends', 'linux-image-amd64'], folder).toString();
    const name = /Depends: (linux-image-\S+)/.exec(depends)?.[1];
    if (name === undefined) return 'apt knows no linux-image-amd64: run apt-get update';
    const fresh = { kernel: path.join(folder, 'vmlinux'), initrd: path.join(folder, 'initrd.gz') };
    try {
      make(name, folder, fresh);
    } catch (error) {
      return `no guest could be made: ${String((error as { stderr?: Buffer }).stderr ?? error).trim()}`;
    }
    renameSync(fresh.kernel, image.kernel);
    renameSync(fresh.initrd, image.initrd);
    writeFileSync(made, recipe);
    return image;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
