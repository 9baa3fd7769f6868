// The other end of the control socket.
import net from 'node:net';
import { JSONRPCClient, JSONRPCErrorException } from 'json-rpc-2.0';
import * as check from '../arguments.js';
import { AbortError, StratamapError } from '../errors.js';
import type { Extent, Owner } from '../map.js';
import type { VerifyOptions } from '../verify/index.js';
import { joined as joinedVerification, type Verification } from '../verify/result.js';
import type { ControlMethods, LedgerAnswer, ProbeState } from './control_methods.js';
import { linesOf, writeLine } from './lines.js';
import type { ProbeRequest, ServedDisk } from './service.js';

const LONGEST = 2 ** 26; // bytes of an answer

type Name = keyof ControlMethods;
type Answer<Method extends Name> = Awaited<ReturnType<ControlMethods[Method]>>;

/** Adjacent parts that are one: answers come in windows. */
function joined<T extends { length: number }>(parts: T[], continues: (before: T, part: T) => boolean): T[] {
  const all: T[] = [];
  for (const part of parts) {
    const before = all.at(-1);
    if (before && continues(before, part)) before.length += part.length;
    else all.push({ ...part });
  }
  return all;
}

const sameKind = (a: Extent | Owner, b: Extent | Owner) =>
  a.state === b.state && a.moving === b.moving && a.shared === b.shared;

const extentContinues = (a: Extent, b: Extent) =>
  a.diskOffset + a.length === b.diskOffset &&
  sameKind(a, b) &&
  a.places.length === b.places.length &&
  a.places.every(
    ({ device, offset }, i) => b.places[i]?.device === device && b.places[i]?.offset === offset + a.length,
  );

const ownerContinues = (a: Owner, b: Owner) =>
  a.offset + a.length === b.offset &&
  sameKind(a, b) &&
  a.vm === b.vm &&
  a.disk === b.disk &&
  a.diskOffset + a.length === b.diskOffset;

/** A connection to a `stratamap serve` that runs. */
export class ControlClient {
  readonly #socket: net.Socket;
  readonly #rpc: JSONRPCClient;
  #ended = false;

  constructor(socket: net.Socket) {
    this.#socket = socket;
    this.#rpc = new JSONRPCClient((request) => writeLine(socket, request));
    void this.#receive();
  }

  async #receive(): Promise<void> {
    try {
      for await (const line of linesOf(this.#socket, LONGEST)) this.#rpc.receive(JSON.parse(line));
    } catch {
      // What waits for an answer is told below.
    }
    this.#ended = true;
    this.#socket.destroy();
    this.#rpc.rejectAllPendingRequests('the connection has ended: is it still running?');
  }

  async #ask<Method extends Name>(
    method: Method,
    params: Parameters<ControlMethods[Method]>[0],
  ): Promise<Answer<Method>> {
    try {
      return await this.#rpc.request(method, params);
    } catch (error) {
      const { message, data } = error as JSONRPCErrorException;
      const { code, layer = 'control' } = (error instanceof JSONRPCErrorException && data) || {};
      throw new StratamapError(message, code ?? (this.#ended ? 'ECONNRESET' : 'EINVAL'), { layer });
    }
  }

  disks(): Promise<ServedDisk[]> {
    return this.#ask('disks', {});
  }

  /** As AddressMap.locate. `disk` is VM/DISK. */
  async locate(disk: string, offset: number, length: number): Promise<Extent[]> {
    const parts: Extent[] = [];
    for (let at = offset; at < offset + length; ) {
      const { extents, end } = await this.#ask('locate', { disk, offset: at, length: offset + length - at });
      parts.push(...extents);
      at = end;
    }
    return joined(parts, extentContinues);
  }

  /** As AddressMap.owners. */
  async owners(device: string, offset: number, length: number): Promise<Owner[]> {
    const parts: Owner[] = [];
    for (let at = offset; at < offset + length; ) {
      const { owners, end } = await this.#ask('owners', { device, offset: at, length: offset + length - at });
      parts.push(...owners);
      at = end;
    }
    return joined(parts, ownerContinues);
  }

  /** As AddressMap.extents. */
  async *extents(disk: string): AsyncGenerator<Extent, void, undefined> {
    for (let from: number | null = 0; from !== null; ) {
      const { extents, next }: Answer<'extents'> = await this.#ask('extents', { disk, from });
      yield* extents;
      from = next;
    }
  }

  ledger(): Promise<LedgerAnswer> {
    return this.#ask('ledger', {});
  }

  /** As verify, of a disk that is served and is a file, by parts: `signal` ends it after that which is under way. */
  async verify(
    disk: string,
    { signal, onProgress }: Pick<VerifyOptions, 'signal' | 'onProgress'> = {},
  ): Promise<Verification> {
    check.signal(signal);
    const size = (await this.disks()).find(({ vm, name }) => `${vm}/${name}` === disk)?.size ?? 1;
    let whole: Verification | undefined;
    for (let at = 0; at < size; ) {
      if (signal?.aborted) throw new AbortError(signal.reason);
      const { verification, end } = await this.#ask('verify', { disk, offset: at, length: size - at });
      whole = joinedVerification(whole, verification);
      at = end;
      onProgress?.(at, size);
    }
    return whole as Verification;
  }

  probe(): Promise<ProbeState> {
    return this.#ask('probe.state', {});
  }

  /** On all devices and disks. What is not given is as configured. */
  attachProbe(options: ProbeRequest = {}): Promise<ProbeState> {
    return this.#ask('probe.attach', options);
  }

  /** Everything in the map is stale then. */
  detachProbe(): Promise<ProbeState> {
    return this.#ask('probe.detach', {});
  }

  async close(): Promise<void> {
    this.#socket.destroy();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

export function connectControl(path: string): Promise<ControlClient> {
  return new Promise((resolve, reject) => {
    const socket = net.connect(path);
    socket.once('connect', () => {
      socket.removeAllListeners('error');
      socket.on('error', () => {}); // its end is told to what waits
      resolve(new ControlClient(socket));
    });
    socket.once('error', ({ code = 'EIO', message, errno }: NodeJS.ErrnoException) => {
      const why =
        code === 'ENOENT' || code === 'ECONNREFUSED'
          ? `nobody listens on ${path}: start stratamap serve with control: { socket: … }, or give its --socket`
          : `cannot connect to ${path}: ${message}`;
      reject(new StratamapError(why, code, { layer: 'control', errno }));
    });
  });
}
