// A guest: an unmodified QEMU, without KVM, that boots the image, runs a script and is gone.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { onTestFinished } from 'vitest';
import { tmpDir } from '../../support/files.js';
import type { GuestImage } from './image.js';

export interface Guest {
  /** Resolves when the guest has said it, on a line of its own. */
  said(line: string): Promise<void>;
  /** A line for the guest's console. */
  tell(line: string): void;
  /** The script's exit status, when the guest is gone; 255 where it has none. */
  readonly status: Promise<number>;
  /** All that it said so far. */
  readonly console: string;
}

/** Runs `script` (sh; `disk SERIAL` prints a disk's device) with these disks: by serial, NBD URIs. */
export function startGuest(image: GuestImage, script: string, disks: Record<string, string>): Guest {
  const file = path.join(tmpDir(), 'script');
  const text = Buffer.from(script);
  writeFileSync(file, Buffer.concat([text, Buffer.alloc(512 - (text.length % 512))]));
  const drives = { script: `file:${file}`, ...disks };
  const args = ['-M', 'q35', '-accel', 'tcg', '-m', '192', '-nodefaults', '-no-user-config', '-display', 'none'];
  args.push('-no-reboot', '-serial', 'stdio', '-device', 'isa-debug-exit,iobase=0xf4,iosize=1');
  args.push('-kernel', image.kernel, '-initrd', image.initrd, '-append', 'console=ttyS0 quiet panic=-1');
  for (const [serial, uri] of Object.entries(drives)) {
    const cache = serial === 'script' ? 'readonly=on' : 'cache=none';
    args.push('-drive', `if=none,id=${serial},format=raw,file=${uri.replaceAll(',', ',,')},${cache}`);
    args.push('-device', `virtio-blk-pci,drive=${serial},serial=${serial}`);
  }
  const child = spawn('qemu-system-x86_64', args, { stdio: 'pipe' });
  const lines = { text: '', check: () => {} };
  const heard = (data: Buffer) => {
    lines.text += data.toString();
    lines.check();
  };
  child.stdout.on('data', heard);
  child.stderr.on('data', heard);
  // QEMU ends with twice the byte and one.
  const status = once(child, 'exit').then(([code]) => (typeof code === 'number' && code % 2 === 1 ? code >> 1 : 255));
  onTestFinished(async () => {
    child.kill('SIGKILL');
    await status;
  });
  return {
    said: (line) =>
      new Promise((resolve, reject) => {
        lines.check = () => {
          if (lines.text.split(/\r?\n/).includes(line)) resolve();
        };
        lines.check();
        status.then(() => reject(new Error(`the guest ended before it said ${line}: ${lines.text}`)));
      }),
    tell: (line) => child.stdin.write(`${line}\n`),
    status,
    get console() {
      return lines.text;
    },
  };
}
