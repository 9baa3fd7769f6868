// The capability table: complete, as foretold, and the same in README.md.
import { execFileSync } from 'node:child_process';
import path from 'node:path';
import { associations, capabilities } from 'stratamap';
import { expect, test } from 'vitest';
import { checkout } from '../support/checkout.js';

const cells = capabilities();
const VOLUMES = [
  'anonymizing',
  'copying',
  'dedup',
  'deferring',
  'deferring, early',
  'encrypting',
  'extent clone',
  'extent fresh',
  'journalling',
  'journalling, early',
  'kernel clone',
  'kernel fresh',
  'log clone',
  'log fresh',
  'log, cleaning',
  'mirroring',
  'mirroring, early',
  'nbd clone',
  'nbd fresh',
  'permuting clone',
  'permuting fresh',
  'rmw',
  'rmw, copied',
  'stripe clone',
  'stripe fresh',
];

test('every association and correlation stands in it for every volume, once', () => {
  const wanted = Object.entries(associations()).flatMap(([name, { correlations, kernel }]) =>
    kernel ? [] : correlations.map((correlation) => `${name}/${correlation}`),
  );
  const volumes = [...new Set(cells.map(({ volume }) => volume))];
  expect(volumes.sort()).toEqual(VOLUMES);
  for (const volume of volumes) {
    const here = cells.filter((cell) => cell.volume === volume);
    expect(here.map(({ association, correlation }) => `${association}/${correlation}`)).toEqual(wanted);
  }
});

test('recall is what was foretold, and nothing is wrong', () => {
  for (const { writes, reads, compared, wrong, nsPerRequest } of cells) {
    expect(nsPerRequest).toBeGreaterThanOrEqual(0);
    expect(wrong).toBe(0);
    if (writes.mapped > 0) expect(compared).toBeGreaterThan(0);
    for (const { expected, bytes, mapped, moving, small } of [writes, reads]) {
      expect(moving).toBeLessThanOrEqual(mapped);
      expect(bytes).toBeGreaterThan(small);
      const foretold = { all: bytes, whole: bytes - small, none: 0, some: mapped };
      expect(mapped).toBe(foretold[expected]);
    }
  }
});

test('what was written and is not mapped has a reason', () => {
  for (const { writes, unmapped } of cells) {
    const left = Object.values(unmapped).reduce((sum, bytes) => sum + bytes, 0);
    if (writes.expected !== 'some') expect(left).toBe(writes.bytes - writes.mapped);
  }
});

test('README.md shows what the table says', () => {
  execFileSync(process.execPath, [path.join(checkout, 'scripts/capabilities.mjs')], { stdio: 'pipe' });
});

test('the command prints it, for people and as JSON', () => {
  const run = (...flags: string[]) =>
    execFileSync(process.execPath, [path.join(checkout, 'dist/cli/main.js'), 'associations', ...flags], {
      encoding: 'utf8',
    });
  expect(JSON.parse(run('--json'))).toEqual({ associations: associations(), capabilities: cells });
  const text = run();
  for (const name of Object.keys(associations())) expect(text).toContain(name);
});
