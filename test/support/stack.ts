// A whole stack for one test, on plain files, closed when the test ends.
import { type Device, type Disk, type Host, type HostOptions, openHost, type Volume } from 'stratamap';
import { onTestFinished } from 'vitest';
import { tmpFile } from './files.js';

export const MiB = 2 ** 20;

export interface StackOptions {
  type?: string;
  /** Default: as many as the type needs. */
  devices?: number;
  driver?: 'uring' | 'posix' | 'recording';
  /** Of each device. Default 64 MiB. */
  bytes?: number;
  diskBytes?: number;
  /** In place of files of `bytes`. */
  paths?: string[];
  format?: Record<string, string | number | boolean>;
  host?: HostOptions;
}

export interface Stack {
  host: Host;
  devices: Device[];
  volume: Volume;
  disk: Disk;
  paths: string[];
}

export async function testHost(options: HostOptions = {}): Promise<Host> {
  const host = await openHost(options);
  onTestFinished(() => host.close());
  return host;
}

export async function openStack(options: StackOptions = {}): Promise<Stack> {
  const { type = 'extent', driver = 'uring', bytes = 64 * MiB, diskBytes = 16 * MiB } = options;
  const count = options.devices ?? (type === 'stripe' ? 2 : 1);
  const paths = options.paths ?? Array.from({ length: count }, () => tmpFile(bytes));
  const host = await testHost(options.host);
  const devices: Device[] = [];
  for (const [i, path] of paths.entries()) devices.push(await host.openDevice({ name: `d${i}`, path, driver }));
  await host.formatVolume({ type, devices, options: options.format ?? {} });
  const volume = await host.openVolume({ name: 'v0', type, devices });
  const disk = await volume.createDisk({ vm: 'vm-1', name: 'vda', size: diskBytes });
  return { host, devices, volume, disk, paths };
}

/** Bytes that differ everywhere, and from those of another seed. */
export function pattern(bytes: number, seed = 1): Buffer {
  const buffer = Buffer.alloc(bytes);
  let state = (seed * 0x9e3779b1) >>> 0 || 1;
  for (let at = 0; at + 4 <= bytes; at += 4) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    buffer.writeUInt32LE(state >>> 0, at);
  }
  return buffer;
}

/** The error that a promise rejects with; it must. */
export async function failureOf(promise: Promise<unknown>): Promise<Error & Record<string, unknown>> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!(error instanceof Error)) throw new Error(`it did not fail, or not with an Error: ${String(error)}`);
  return error as Error & Record<string, unknown>;
}
