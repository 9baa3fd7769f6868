import { expect, test } from 'vitest';
import { formatBytes, parseSize } from '../../../lib/cli/size.js';

test.each([
  ['64M', 64 * 2 ** 20],
  ['64MiB', 64 * 2 ** 20],
  ['1g', 2 ** 30],
  ['16kb', 16384],
  ['2T', 2 ** 41],
  ['4096', 4096],
  [' 8M ', 8 * 2 ** 20],
])('%s is a size', (text, bytes) => expect(parseSize(text)).toBe(bytes));

test.each(['', 'M', '-1M', '1.5M', '64X', '64 M', '0x10', '1e6'])('%j is none', (text) => {
  expect(() => parseSize(text)).toThrow(/is not a size: write/);
});

test('a size beyond the safe integers is refused', () => {
  expect(() => parseSize('9000000T')).toThrow(/too large/);
});

test.each([
  [0, '0 B'],
  [1023, '1023 B'],
  [1024, '1 KiB'],
  [1536, '1.5 KiB'],
  [64 * 2 ** 20, '64 MiB'],
  [2 ** 40, '1 TiB'],
  [2 ** 52, '4096 TiB'],
])('%d bytes are shown as %s', (bytes, text) => expect(formatBytes(bytes)).toBe(text));
