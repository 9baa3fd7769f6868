// Interposers: what is put into the dispatch tables of devices, with I/O in flight.
import os from 'node:os';
import * as check from './arguments.js';
import { enlist, memberOf } from './chain.js';
import { OPERATIONS, type Operation } from './completions.js';
import { type Device, deviceHandles } from './device.js';
import { wrongType } from './errors.js';
import { Handle } from './handle.js';
import { type DiskReference, namesOf } from './map.js';
import { type HostHandle, type InterposerHandle, native } from './native.js';
import type { Probe } from './probe.js';

/** Which requests to a device: all that are not given. */
export interface RequestMatch {
  /** Default: every operation. */
  ops?: readonly Operation[] | undefined;
  /** The range of the device that a request has to touch, bytes. A flush has none: it is matched by `ops` alone. */
  offset?: number | undefined;
  length?: number | undefined;
}

interface CommonInterposerOptions {
  /** Default: all devices of the host, those that are opened later among them. */
  devices?: readonly Device[] | undefined;
  /** How many of a device's interposers stand above it; 0, the default, is the top: it sees requests first. */
  position?: number | undefined;
}

/** Holds each matching request back before it goes on down. */
export interface DelayOptions extends CommonInterposerOptions, RequestMatch {
  type: 'delay';
  /** Default `constant`. */
  distribution?: 'constant' | 'uniform' | 'exponential' | undefined;
  /** ns: of `constant` and `exponential`. */
  mean?: number | undefined;
  /** ns: of `uniform`. */
  least?: number | undefined;
  /** ns: of `uniform`. */
  most?: number | undefined;
  /** Default 1. */
  seed?: number | undefined;
}

export interface FaultRule extends RequestMatch {
  /**
   * `error`, the default: fails with `error`, a read after the device has been read, all else without having reached it.
   * `short`: its first blocks reach the device, at least one and not all, then it fails with EIO. `torn`, of writes: some
   * of its blocks reach the device, at least one does not, then it fails with EIO. Blocks are the device's. Of those two
   * at most 64 are under way at once, for each device and I/O thread: nothing of any more reaches the device.
   */
  kind?: 'error' | 'short' | 'torn' | undefined;
  /** The errno by name. Default EIO. */
  error?: string | undefined;
  /** Of each matching request, 0 to 1; or */
  probability?: number | undefined;
  /** every so many of them. One of the two is given. */
  every?: number | undefined;
}

/** Makes requests fail. The first rule that strikes decides. */
export interface FaultOptions extends CommonInterposerOptions {
  type: 'fault';
  /** 1 to 64. */
  rules: readonly FaultRule[];
  /** The same seed strikes the same requests in their order. Default 1. */
  seed?: number | undefined;
}

/** Rates of physical I/O. At least one is given. */
export interface LimitRates {
  /** Operations per second: of every kind, whatever its length. */
  iops?: number | undefined;
  /** Of reads and writes: a discard or a writing of zeroes costs one operation and no bytes. */
  bytesPerSecond?: number | undefined;
  /** Seconds of its rates that are saved while they are not used. Default 0.1. */
  burst?: number | undefined;
}

/**
 * Holds the physical I/O of one virtual disk to a rate. It acts only on requests that the probe attributes to that disk
 * when they are issued: the probe must correlate by `descend`, and not by `content`. All else passes at once.
 */
export interface LimitOptions extends CommonInterposerOptions, LimitRates {
  type: 'limit';
  probe: Probe;
  disk: DiskReference;
}

/** Counts what passes. */
export interface CountOptions extends CommonInterposerOptions {
  type: 'count';
}

/** What is not given stays as it is; 0 or null for a rate: it is not limited any more. */
export interface LimitUpdate {
  iops?: number | null | undefined;
  bytesPerSecond?: number | null | undefined;
  burst?: number | undefined;
}

export type InterposerOptions = DelayOptions | FaultOptions | LimitOptions | CountOptions;
export type InterposerType = InterposerOptions['type'];

export interface DelayCounters {
  /** Requests that were held back, those that still are among them. */
  held: number;
  /** Held back now. */
  waiting: number;
  /** Passed at once. */
  passed: number;
}

export interface FaultCounters {
  /** Requests that the rule was asked about: it matches them, and no rule before it has struck. */
  matched: number;
  /** On which it struck. */
  operations: number;
  bytes: number;
}

/** `held`, `waiting` and `passed` are of the disk. */
export interface LimitCounters extends DelayCounters {
  /** Requests of others: passed at once. */
  foreign: number;
  /** Requests that were held back and found to be another disk's when they went on: always 0. */
  foreignHeld: number;
}

export interface OperationCounters {
  /** As submitted. */
  operations: number;
  bytes: number;
  /** As completed. */
  succeeded: number;
  succeededBytes: number;
  failed: number;
  failedBytes: number;
  /** Submitted, and not seen to complete for want of room in the request. */
  unseen: number;
}

export type CountersOf<Type extends InterposerType> = Type extends 'delay'
  ? DelayCounters
  : Type extends 'fault'
    ? FaultCounters[]
    : Type extends 'limit'
      ? LimitCounters
      : Record<Operation, OperationCounters>;

const TYPES = ['delay', 'fault', 'limit', 'count'] as const satisfies readonly InterposerType[];
const DISTRIBUTIONS = ['constant', 'uniform', 'exponential'] as const;
const KINDS = ['error', 'short', 'torn'] as const;
const LONGEST = 1e15; // ns
const DETACH_TIMEOUT = 10_000; // ms

/** What of it the addon counts, in its order; for `fault` by rule, for `count` by operation, beginning with none. */
const FIELDS = {
  delay: ['held', 'waiting', 'passed'],
  fault: ['matched', 'operations', 'bytes'],
  limit: ['held', 'waiting', 'passed', 'foreign', 'foreignHeld'],
  count: ['operations', 'bytes', 'succeeded', 'succeededBytes', 'failed', 'failedBytes', 'unseen'],
} as const satisfies Record<InterposerType, readonly string[]>;

class Interposer<Type extends InterposerType = InterposerType> extends Handle {
  readonly #handle: InterposerHandle;
  readonly type: Type;
  #rates: LimitUpdate;
  #timeout = DETACH_TIMEOUT;
  #complete = true;

  constructor(handle: InterposerHandle, type: Type, rates: LimitUpdate) {
    super();
    this.#rates = rates;
    this.#handle = handle;
    this.type = type;
    enlist(this, { handle, probe: false });
  }

  /** What it did since it was put in, on all its devices together; of `fault`, for each rule. Also after its end. */
  counters(): CountersOf<Type> {
    const words = native.interposerCounters(this.#handle);
    const fields = FIELDS[this.type];
    const rows: Record<string, number>[] = [];
    for (let at = 0; at < words.length; at += fields.length) {
      rows.push(Object.fromEntries(fields.map((name, i) => [name, words[at + i] as number])));
    }
    if (this.type === 'fault') return rows as never;
    if (this.type !== 'count') return rows[0] as never;
    return Object.fromEntries(rows.map((row, op) => [OPERATIONS[op], row]).slice(1)) as never;
  }

  /**
   * New rates of a `limit`, for what waits as well. What is not given stays as it is; 0 or null removes a rate. What has
   * gone through and is more than the old rates allow so far is paid for at the new ones.
   */
  async update(this: Interposer<'limit'>, rates: LimitUpdate): Promise<void> {
    this.use();
    if (this.type !== 'limit') throw wrongType(`a ${this.type} has no rates to update`, 'ERR_INVALID_ARG_VALUE');
    const given = Object.entries(check.object(rates, 'rates')).filter(([, value]) => value !== undefined);
    const merged = { ...this.#rates, ...Object.fromEntries(given) };
    const words = Float64Array.from(ratesOf(merged));
    this.#rates = merged;
    return native.updateLimit(this.#handle, words);
  }

  /**
   * Takes it out of its devices, with I/O in flight; what it holds back goes on at once. Resolves to true when nothing
   * runs inside it any more, or to false after `timeout` ms, everything passing through.
   */
  async detach(options: { timeout?: number | undefined } = {}): Promise<boolean> {
    const { timeout = this.#timeout } = check.object(options, 'options');
    this.#timeout = check.number(timeout, 'timeout', 0, 1e9);
    await this.close();
    return this.#complete;
  }

  /** It holds back what others wait for. */
  protected override get rank(): number {
    return -1;
  }

  protected override describe() {
    return { layer: 'interposer', what: `the ${this.type}` };
  }

  protected override async closeNative(): Promise<void> {
    // In short waits: it may wait for what another holds back, whose own detach waits for a thread.
    const end = performance.now() + this.#timeout;
    let left = this.#timeout;
    do {
      this.#complete = await native.detachInterposer(this.#handle, Math.round(Math.min(left, 20) * 1e6));
      left = end - performance.now();
    } while (!this.#complete && left > 0);
  }
}

export type { Interposer };

function matchOf({ ops, offset = 0, length }: RequestMatch, what: string): number[] {
  let bits = 2 ** 32 - 1;
  if (ops !== undefined) {
    if (!Array.isArray(ops) || ops.length === 0) throw wrongType(`${what}ops must be an array of operations`);
    const names = OPERATIONS.slice(1) as Operation[];
    bits = ops.reduce((sum, op) => sum | (1 << OPERATIONS.indexOf(check.oneOf(op, `${what}ops`, names))), 0);
  }
  check.integer(offset, `${what}offset`);
  if (length === undefined) return [bits, offset, Number.MAX_SAFE_INTEGER];
  check.integer(length, `${what}length`, 1);
  return [bits, offset, check.integer(offset + length, `${what}offset + length`)];
}

function delayOf(options: DelayOptions): number[] {
  const { distribution = 'constant', mean, least, most, seed = 1 } = options;
  check.oneOf(distribution, 'distribution', DISTRIBUTIONS);
  const uniform = distribution === 'uniform';
  if (uniform ? mean !== undefined : least !== undefined || most !== undefined) {
    const takes = uniform ? 'least and most' : 'a mean';
    throw wrongType(`a delay of distribution ${distribution} takes ${takes}`, 'ERR_INVALID_ARG_VALUE');
  }
  const times = uniform
    ? [check.integer(least ?? 0, 'least', 0, LONGEST), check.integer(most, 'most', least ?? 0, LONGEST), 0]
    : [0, 0, check.integer(mean, 'mean', 0, LONGEST)];
  return [...matchOf(options, ''), DISTRIBUTIONS.indexOf(distribution), ...times, check.integer(seed, 'seed')];
}

function ruleOf(rule: FaultRule, i: number): number[] {
  const what = `rules[${i}].`;
  const { kind = 'error', error, probability, every, ops } = check.object(rule, `rules[${i}]`);
  check.oneOf(kind, `${what}kind`, KINDS);
  if ((probability === undefined) === (every === undefined)) {
    throw wrongType(`rules[${i}] must have a probability or an every, and not both`, 'ERR_INVALID_ARG_VALUE');
  }
  if (probability !== undefined) check.number(probability, `${what}probability`, 0, 1);
  if (every !== undefined) check.integer(every, `${what}every`, 1);
  if (kind !== 'error' && error !== undefined && error !== 'EIO') {
    throw wrongType(`${what}error is of kind 'error' alone: what is ${kind} fails with EIO`, 'ERR_INVALID_ARG_VALUE');
  }
  const numbers: Record<string, number> = os.constants.errno;
  const name = check.string(error ?? 'EIO', `${what}error`);
  if (!Object.hasOwn(numbers, name)) {
    throw wrongType(`${what}error is ${JSON.stringify(name)}: use an errno's name, as EIO`, 'ERR_INVALID_ARG_VALUE');
  }
  const match = matchOf(rule, what);
  if (kind === 'torn' && ops?.some((op) => op !== 'write')) {
    throw wrongType(`${what}ops: only a write is torn`, 'ERR_INVALID_ARG_VALUE');
  }
  return [...match, probability ?? 0, every ?? 0, KINDS.indexOf(kind), numbers[name] as number];
}

function faultOf({ rules, seed = 1 }: FaultOptions): number[] {
  if (!Array.isArray(rules)) throw wrongType('rules must be an array');
  check.integer(rules.length, 'rules.length', 1, 64);
  return [check.integer(seed, 'seed'), ...rules.flatMap(ruleOf)];
}

const [LEAST, MOST] = [1e-3, 1e15]; // of a rate

function ratesOf({ iops, bytesPerSecond, burst = 0.1 }: LimitUpdate): number[] {
  if (iops !== 0) check.number(iops ?? LEAST, 'iops', LEAST, MOST);
  if (bytesPerSecond !== 0) check.number(bytesPerSecond ?? LEAST, 'bytesPerSecond', LEAST, MOST);
  return [iops ?? 0, bytesPerSecond ?? 0, Math.round(check.number(burst, 'burst', 0, 86_400) * 1e9)];
}

function wordsOf(options: InterposerOptions): number[] {
  if (options.type === 'delay') return delayOf(options);
  if (options.type === 'fault') return faultOf(options);
  if (options.type !== 'limit') return [];
  const { iops, bytesPerSecond } = options;
  if (iops === undefined && bytesPerSecond === undefined) {
    throw wrongType('a limit must have iops or bytesPerSecond', 'ERR_INVALID_ARG_VALUE');
  }
  if (iops !== undefined) check.number(iops, 'iops', LEAST, MOST);
  if (bytesPerSecond !== undefined) check.number(bytesPerSecond, 'bytesPerSecond', LEAST, MOST);
  return ratesOf(options);
}

/** The options of a type. */
export type OptionsOf<Type extends InterposerType> = Extract<InterposerOptions, { type: Type }>;

export async function interpose<Type extends InterposerType>(
  host: HostHandle,
  given: OptionsOf<Type>,
): Promise<Interposer<Type>> {
  const options: InterposerOptions = check.object(given, 'options');
  const { type, devices, position = 0 } = options;
  const number = TYPES.indexOf(check.oneOf(type, 'type', TYPES));
  const words = Float64Array.from(wordsOf(options));
  check.integer(position, 'position');
  const on = devices === undefined ? null : deviceHandles(devices);
  const limit = options.type === 'limit' ? options : undefined;
  const member = memberOf(limit?.probe);
  if (limit && !member?.probe) throw wrongType('probe must be what host.attachProbe gave');
  const { vm, name } = limit ? namesOf(limit.disk) : { vm: '', name: '' };
  const handle = member?.probe ? member.handle : null;
  const { iops, bytesPerSecond, burst } = limit ?? {};
  const put = await native.interpose(host, number, words, on, position, handle, vm, name);
  return new Interposer(put, type as Type, { iops, bytesPerSecond, burst });
}
