// What this machine has of what stratamap can use, and what follows where it has not.
import { accessSync, constants, readFileSync } from 'node:fs';
import os from 'node:os';
import { type Host, openHost } from './host.js';
import { native } from './native.js';

export interface MachineFact {
  /** Its name, the same on every machine. */
  name: string;
  /** `limited`: it is there, and not as one would want it. */
  state: 'present' | 'limited' | 'absent';
  /** What was looked at, and found. */
  found: string;
  /** What needs it. */
  for: string;
  /** What follows, and what to do; empty where there is nothing to say. */
  follows: string;
}

export interface MachineReport {
  kernel: string;
  node: string;
  arch: string;
  /** Who runs this: effective user id. */
  uid: number;
  facts: MachineFact[];
}

/** Looks, and changes nothing: but for a host and two scratch loop devices that it opens and closes. */
export async function inspectMachine(): Promise<MachineReport> {
  const capabilities = effectiveCapabilities();
  return {
    kernel: os.release(),
    node: process.version,
    arch: process.arch,
    uid: process.geteuid?.() ?? -1,
    facts: [
      kernel(),
      ...(await uring()),
      lockedMemory(capabilities),
      loopDevices(capabilities),
      ...CAPABILITIES.map((each) => capability(each, capabilities)),
      observer(),
      hugePages(),
      tls(),
    ],
  };
}

function textOf(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8').trim();
  } catch {
    return undefined;
  }
}

function canOpen(file: string, mode: number): string | undefined {
  try {
    accessSync(file, mode);
    return undefined;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code;
  }
}

function kernel(): MachineFact {
  const release = os.release();
  const [major = 0, minor = 0] = release.split('.').map(Number.parseFloat);
  const hints = major > 6 || (major === 6 && minor >= 5);
  return {
    name: 'kernel',
    state: hints ? 'present' : 'limited',
    found: `Linux ${release}`,
    for: 'everything; I/O priority hints, by which stacks in the kernel can be followed, need 6.5',
    follows: hints ? '' : 'I/O cannot carry hints through the kernel; all that this version does works without',
  };
}

/** A host is asked: what the kernel says of itself is not what it lets one do. */
async function uring(): Promise<MachineFact[]> {
  const sysctl = textOf('/proc/sys/kernel/io_uring_disabled');
  const setting = sysctl === undefined ? 'the kernel has no sysctl for it' : `kernel.io_uring_disabled = ${sysctl}`;
  let host: Host | undefined;
  try {
    host = await openHost({ threads: 1 });
    const refused = host.notices.find((notice) => notice.startsWith('io_uring'));
    const buffers = host.notices.find((notice) => notice.includes('buffers'));
    return [
      {
        name: 'io_uring',
        state: refused ? 'absent' : 'present',
        found: refused ? `${refused}; ${setting}` : setting,
        for: 'device driver uring; NBD servers (stratamap serve)',
        follows: refused
          ? `devices are served by the driver posix, with a pool of threads; nothing can be served by NBD. ${refused.includes('liburing') ? 'Install liburing-dev, and build the addon again: npm rebuild stratamap --build-from-source' : 'Allow it: sysctl kernel.io_uring_disabled=0; in a container, a seccomp profile that lets io_uring_setup pass'}`
          : '',
      },
      {
        name: 'registered buffers',
        state: refused ? 'absent' : buffers ? 'limited' : 'present',
        found: refused ? 'there is no io_uring' : (buffers ?? 'a host of one I/O thread has registered its 32 MiB'),
        for: 'I/O without pinning pages for each request',
        follows: buffers && !refused ? 'I/O works, at a higher cost. Raise the locked memory limit' : '',
      },
    ];
  } catch (error) {
    const found = `no host can be opened: ${(error as Error).message}`;
    return [{ name: 'io_uring', state: 'absent', found, for: 'everything', follows: 'nothing can be served' }];
  } finally {
    await host?.close();
  }
}

const CAPABILITIES = [
  {
    name: 'CAP_SYS_ADMIN',
    bit: 21,
    for: 'attaching loop devices; opening block devices without other rights to them',
    follows: 'use image files, or loop devices that root has attached, and give this user rights to them',
  },
  {
    name: 'CAP_IPC_LOCK',
    bit: 14,
    for: 'locked memory without a limit',
    follows: 'the locked memory limit holds: see there',
  },
  {
    name: 'CAP_SYS_NICE',
    bit: 23,
    for: 'I/O priority class realtime',
    follows: 'nothing of this version needs it',
  },
  {
    name: 'CAP_PERFMON',
    bit: 38,
    for: 'a program in the kernel that reads its block layer, by which stacks in the kernel are followed',
    follows: 'nothing is mapped by hint: see kernel stacks',
  },
  {
    name: 'CAP_BPF',
    bit: 39,
    for: 'loading that program',
    follows: 'nothing is mapped by hint: see kernel stacks',
  },
] as const;

function effectiveCapabilities(): bigint {
  const hex = /^CapEff:\s*([0-9a-f]+)$/m.exec(textOf('/proc/self/status') ?? '')?.[1];
  return hex === undefined ? 0n : BigInt(`0x${hex}`);
}

const has = (capabilities: bigint, bit: number) => ((capabilities >> BigInt(bit)) & 1n) === 1n;

function capability(of: (typeof CAPABILITIES)[number], capabilities: bigint): MachineFact {
  const present = has(capabilities, of.bit);
  return {
    name: of.name,
    state: present ? 'present' : 'absent',
    found: present ? 'this process has it' : 'this process has it not',
    for: of.for,
    follows: present ? '' : of.follows,
  };
}

const ENOUGH = 64 * 2 ** 20; // bytes: rings and buffers of a thread or two

function lockedMemory(capabilities: bigint): MachineFact {
  const soft = /^Max locked memory\s+(\S+)/m.exec(textOf('/proc/self/limits') ?? '')?.[1] ?? 'unknown';
  const unlimited = soft === 'unlimited' || has(capabilities, 14);
  const enough = unlimited || Number(soft) >= ENOUGH;
  return {
    name: 'locked memory',
    state: enough ? 'present' : 'limited',
    found: `limit ${soft === 'unlimited' ? soft : `${soft} bytes`}${has(capabilities, 14) ? ', which CAP_IPC_LOCK lifts' : ''}`,
    for: 'registered buffers: 32 MiB for each I/O thread, unless host.bufferBytes says otherwise',
    follows: enough ? '' : 'buffers may not be registered. Raise it: ulimit -l, or LimitMEMLOCK= of a systemd unit',
  };
}

function loopDevices(capabilities: bigint): MachineFact {
  const refused = canOpen('/dev/loop-control', constants.R_OK | constants.W_OK);
  const present = refused === undefined && has(capabilities, 21);
  return {
    name: 'loop devices',
    state: present ? 'present' : 'absent',
    found: refused
      ? `/dev/loop-control: ${refused}`
      : `/dev/loop-control can be opened${present ? '' : ', without CAP_SYS_ADMIN'}`,
    for: 'attachLoop, stratamap demo on loop devices',
    follows: present ? '' : 'image files serve in their place; modprobe loop, or run as root',
  };
}

/** A tagged read on scratch loop devices is asked for, and looked for in the trace. */
function observer(): MachineFact {
  const { status, why } = native.tryKernel();
  const state = status === 0 ? 'present' : status === -os.constants.errno.ENOSYS ? 'limited' : 'absent';
  return {
    name: 'kernel stacks',
    state,
    found:
      status === 0 ? 'a tag came through a loop device to the device beneath, and the block layer told of both' : why,
    for: 'association hint: disks of volumes of type kernel, through file systems and loop devices',
    follows:
      state === 'absent' ? 'volumes of type kernel work, and all other associations; nothing is mapped by hint' : '',
  };
}

function hugePages(): MachineFact {
  const setting = textOf('/sys/kernel/mm/transparent_hugepage/enabled');
  const mode = /\[(\w+)\]/.exec(setting ?? '')?.[1];
  const present = mode === 'always' || mode === 'madvise';
  return {
    name: 'large pages',
    state: present ? 'present' : 'absent',
    found: mode ? `transparent_hugepage/enabled is ${mode}` : 'the kernel has no transparent huge pages',
    for: 'large maps: fewer waits for memory',
    follows: present
      ? ''
      : 'maps of many extents are slower: echo madvise > /sys/kernel/mm/transparent_hugepage/enabled',
  };
}

function tls(): MachineFact {
  const missing = native.tlsMissing();
  return {
    name: 'TLS',
    state: missing ? 'absent' : 'present',
    found: missing || 'GnuTLS is loaded',
    for: 'NBD beyond this machine',
    follows: missing && 'NBD is served on unix sockets, and on TCP of the loopback alone',
  };
}
