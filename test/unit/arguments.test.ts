import { describe, expect, test } from 'vitest';
import * as check from '../../lib/arguments.js';

const refusals: [string, () => unknown, 'TypeError' | 'RangeError', string][] = [
  ['an integer that is a string', () => check.integer('1', 'x'), 'TypeError', 'ERR_INVALID_ARG_TYPE'],
  ['an integer that is a bigint', () => check.integer(1n, 'x'), 'TypeError', 'ERR_INVALID_ARG_TYPE'],
  ['an integer that is undefined', () => check.integer(undefined, 'x'), 'TypeError', 'ERR_INVALID_ARG_TYPE'],
  ['a fraction', () => check.integer(0.5, 'x'), 'RangeError', 'ERR_OUT_OF_RANGE'],
  ['NaN', () => check.integer(Number.NaN, 'x'), 'RangeError', 'ERR_OUT_OF_RANGE'],
  ['infinity', () => check.integer(Number.POSITIVE_INFINITY, 'x'), 'RangeError', 'ERR_OUT_OF_RANGE'],
  ['an unsafe integer', () => check.integer(2 ** 53, 'x'), 'RangeError', 'ERR_OUT_OF_RANGE'],
  ['a negative integer', () => check.integer(-1, 'x'), 'RangeError', 'ERR_OUT_OF_RANGE'],
  ['an integer above the most', () => check.integer(9, 'x', 0, 8), 'RangeError', 'ERR_OUT_OF_RANGE'],
  ['a number that is NaN', () => check.number(Number.NaN, 'x', 0, 1), 'RangeError', 'ERR_OUT_OF_RANGE'],
  ['a number below the least', () => check.number(-0.1, 'x', 0, 1), 'RangeError', 'ERR_OUT_OF_RANGE'],
  ['a range that ends beyond what is safe', () => check.range(2 ** 53 - 1, 1), 'RangeError', 'ERR_OUT_OF_RANGE'],
  ['options that are null', () => check.object(null as never, 'x'), 'TypeError', 'ERR_INVALID_ARG_TYPE'],
  ['options that are a number', () => check.object(5 as never, 'x'), 'TypeError', 'ERR_INVALID_ARG_TYPE'],
  ['a string that is an object', () => check.string({}, 'x'), 'TypeError', 'ERR_INVALID_ARG_TYPE'],
  ['a string with a zero byte', () => check.string('a\0b', 'x'), 'RangeError', 'ERR_OUT_OF_RANGE'],
  ['a boolean that is 1', () => check.boolean(1, 'x'), 'TypeError', 'ERR_INVALID_ARG_TYPE'],
  ['a choice that there is not', () => check.oneOf('c', 'x', ['a', 'b']), 'TypeError', 'ERR_INVALID_ARG_VALUE'],
  ['an empty name', () => check.name('', 'x'), 'RangeError', 'ERR_STRATAMAP_NAME'],
  ['a name of 64 bytes', () => check.name('n'.repeat(64), 'x'), 'RangeError', 'ERR_STRATAMAP_NAME'],
  ['a name of 32 characters and 64 bytes', () => check.name('é'.repeat(32), 'x'), 'RangeError', 'ERR_STRATAMAP_NAME'],
  ['a name with a control character', () => check.name('a\n', 'x'), 'RangeError', 'ERR_STRATAMAP_NAME'],
  ['a view that is an array', () => check.view([1] as never, 'x'), 'TypeError', 'ERR_INVALID_ARG_TYPE'],
  [
    'a view that is an ArrayBuffer',
    () => check.view(new ArrayBuffer(8) as never, 'x'),
    'TypeError',
    'ERR_INVALID_ARG_TYPE',
  ],
  ['an empty view', () => check.view(new Uint8Array(0), 'x'), 'TypeError', 'ERR_STRATAMAP_BUFFER'],
  ['a signal that is none', () => check.signal({} as never), 'TypeError', 'ERR_INVALID_ARG_TYPE'],
];

test.each(refusals)('%s is refused', (_what, call, name, code) => {
  expect(call).toThrowError(expect.objectContaining({ name, code }));
});

describe('what is right is returned', () => {
  test('integers to the last safe one', () => {
    expect(check.integer(0, 'x')).toBe(0);
    expect(check.integer(Number.MAX_SAFE_INTEGER, 'x')).toBe(Number.MAX_SAFE_INTEGER);
    expect(() => check.range(2 ** 53 - 2, 1)).not.toThrow();
  });
  test('names to the last byte', () => {
    expect(check.name('n'.repeat(63), 'x')).toHaveLength(63);
    expect(check.name('vm/1 é', 'x')).toBe('vm/1 é');
  });
  test('views of every kind', () => {
    for (const view of [new Uint8Array(1), Buffer.alloc(1), new DataView(new ArrayBuffer(1)), new Float64Array(1)]) {
      expect(check.view(view, 'x')).toBe(view);
    }
  });
});

test('a detached view is refused as a buffer, not as a type', () => {
  const view = new Uint8Array(8);
  structuredClone(view.buffer, { transfer: [view.buffer] });
  expect(() => check.view(view, 'x')).toThrowError(expect.objectContaining({ code: 'ERR_STRATAMAP_BUFFER' }));
});
