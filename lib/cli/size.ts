// Sizes as people write and read them. K, M, G and T are powers of 1024, with or without `iB` or `B`.

const UNITS = ['', 'K', 'M', 'G', 'T'];

/** Bytes. A RangeError says what is wrong with `text`. */
export function parseSize(text: string): number {
  const match = /^(\d+)([KMGT]?)(?:i?B)?$/i.exec(text.trim());
  if (!match) throw new RangeError(`'${text}' is not a size: write a whole number with K, M or G behind it, as in 64M`);
  const bytes = Number(match[1]) * 1024 ** UNITS.indexOf(match[2]!.toUpperCase());
  if (!Number.isSafeInteger(bytes)) throw new RangeError(`'${text}' is too large`);
  return bytes;
}

/** As `12 KiB` or `1.5 MiB`: at most one decimal. */
export function formatBytes(bytes: number): string {
  const unit = Math.min(UNITS.length - 1, bytes < 1024 ? 0 : Math.floor(Math.log2(bytes) / 10));
  const value = Number((bytes / 1024 ** unit).toFixed(1));
  return `${value} ${unit === 0 ? 'B' : `${UNITS[unit]}iB`}`;
}
