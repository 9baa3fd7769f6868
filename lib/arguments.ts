// Checks of arguments, before anything is touched. Each returns what it has checked.
import { outOfRange, wrongType } from './errors.js';

function shown(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value.length > 60 ? `${value.slice(0, 60)}…` : value);
  if (typeof value === 'object' && value !== null) return `an instance of ${value.constructor?.name ?? 'Object'}`;
  return typeof value === 'bigint' ? `${value}n` : String(value);
}

/** An object of options. */
export function object<T extends object>(value: T, what: string): T {
  if (typeof value !== 'object' || value === null) throw wrongType(`${what} must be an object, not ${shown(value)}`);
  return value;
}

export function string(value: unknown, what: string): string {
  if (typeof value !== 'string') throw wrongType(`${what} must be a string, not ${shown(value)}`);
  if (value.includes('\0')) throw outOfRange(`${what} must not hold a zero byte`);
  return value;
}

/** The name of a VM, disk, device or volume. */
export function name(value: unknown, what: string): string {
  if (typeof value !== 'string') throw wrongType(`${what} must be a string, not ${shown(value)}`);
  const bytes = Buffer.byteLength(value);
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is refused
  if (bytes < 1 || bytes > 63 || /[\x00-\x1f\x7f]/.test(value)) {
    throw outOfRange(`${what} is ${shown(value)}: use 1 to 63 bytes without control characters`, 'ERR_STRATAMAP_NAME');
  }
  return value;
}

export function boolean(value: unknown, what: string): boolean {
  if (typeof value !== 'boolean') throw wrongType(`${what} must be a boolean, not ${shown(value)}`);
  return value;
}

export function oneOf<T extends string>(value: unknown, what: string, allowed: readonly T[]): T {
  const text = string(value, what);
  if (!(allowed as readonly string[]).includes(text)) {
    throw wrongType(`${what} is ${shown(text)}: use one of ${allowed.join(', ')}`, 'ERR_INVALID_ARG_VALUE');
  }
  return text as T;
}

/** A number that is not NaN, least <= value <= most. */
export function number(value: unknown, what: string, least: number, most: number): number {
  if (typeof value !== 'number') throw wrongType(`${what} must be a number, not ${shown(value)}`);
  if (!(value >= least && value <= most)) throw outOfRange(`${what} is ${value}: use ${least} to ${most}`);
  return value;
}

/** A safe integer, least <= value <= most. */
export function integer(value: unknown, what: string, least = 0, most = Number.MAX_SAFE_INTEGER): number {
  if (typeof value !== 'number') throw wrongType(`${what} must be a number, not ${shown(value)}`);
  if (!Number.isSafeInteger(value)) throw outOfRange(`${what} is ${value}, which is not a safe integer`);
  if (value < least || value > most) throw outOfRange(`${what} is ${value}: use ${least} to ${most}`);
  return value;
}

/** Any ArrayBufferView that holds something. */
export function view<T extends NodeJS.ArrayBufferView>(value: T, what: string): T {
  if (!ArrayBuffer.isView(value))
    throw wrongType(`${what} must be a Buffer, TypedArray or DataView, not ${shown(value)}`);
  if (value.byteLength === 0) throw wrongType(`${what} is empty or detached`, 'ERR_STRATAMAP_BUFFER');
  return value;
}

export function signal(value: AbortSignal | undefined): AbortSignal | undefined {
  if (value !== undefined && !(value instanceof AbortSignal)) {
    throw wrongType(`signal must be an AbortSignal, not ${shown(value)}`);
  }
  return value;
}

/** A range of an address space of which only the largest possible end is known. */
export function range(offset: unknown, length: unknown): void {
  integer(offset, 'offset');
  integer(length, 'length');
  integer((offset as number) + (length as number), 'offset + length');
}
