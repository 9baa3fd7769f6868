import { expect, test } from 'vitest';
import { cellBytesFor, drawDevice, renderPicture } from '../../../../lib/cli/demo/picture.js';
import { renderSvg } from '../../../../lib/cli/demo/svg.js';

const on = (device: string, offset: number, length: number, diskOffset: number, state = 'mapped') => ({
  diskOffset,
  length,
  state,
  places: [{ device, offset }],
});

// Cells of 100 bytes. Disk 0 has all of cell 0 and 30 of cell 2; disk 1 has 60 of cell 2; cell 3 is stale.
const extents = [
  [on('a', 0, 100, 700), on('a', 200, 30, 0), on('b', 100, 100, 300)],
  [on('a', 230, 60, 50), on('a', 300, 100, 500, 'stale')],
];

test('a cell belongs to the disk that has most of it', () => {
  const { cells } = drawDevice('a', 450, 100, extents);
  expect(cells).toEqual([
    { owner: 0, share: 1, stale: false, diskOffset: 700 },
    { owner: -1, share: 0, stale: false, diskOffset: -1 },
    { owner: 1, share: 0.6, stale: false, diskOffset: 50 },
    { owner: -1, share: 0, stale: true, diskOffset: -1 },
    { owner: -1, share: 0, stale: false, diskOffset: -1 },
  ]);
});

test('an extent over several cells is in all of them, the last, short cell too', () => {
  const { cells } = drawDevice('a', 250, 100, [[on('a', 50, 200, 1000)]]);
  expect(cells.map(({ share, diskOffset }) => [share, diskOffset])).toEqual([
    [0.5, 1000],
    [1, 1050],
    [1, 1150],
  ]);
});

test('mirrored bytes are drawn at each of their places', () => {
  const mirrored = {
    diskOffset: 0,
    length: 100,
    state: 'mapped',
    places: [on('a', 0, 0, 0), on('b', 100, 0, 0)].flatMap((x) => x.places),
  };
  expect(drawDevice('a', 200, 100, [[mirrored]]).cells.map(({ owner }) => owner)).toEqual([0, -1]);
  expect(drawDevice('b', 200, 100, [[mirrored]]).cells.map(({ owner }) => owner)).toEqual([-1, 0]);
});

test('the picture in letters says it all without colours', () => {
  const picture = drawDevice('a', 450, 100, [...extents, [on('a', 400, 10, 0)]]);
  expect(renderPicture(picture, ['w', 'd', 'm'], 3)).toEqual(['  0 B │W·D', '300 B │?m']);
});

test('paint gets each sign with its owner', () => {
  const painted = renderPicture(
    drawDevice('a', 450, 100, extents),
    ['w', 'd'],
    5,
    (sign, owner, full) => `${sign}${owner}${full ? '+' : ''} `,
  );
  expect(painted).toEqual(['0 B │W0+ ·-1 D1+ ?-1 ·-1 ']);
});

test('cells grow by powers of two until they are few enough', () => {
  expect(cellBytesFor(1000, 10, 100)).toBe(10);
  expect(cellBytesFor(1001, 10, 100)).toBe(20);
  expect(cellBytesFor(2 ** 30, 65536, 2048)).toBe(524288);
});

test('the SVG has a cell with a tooltip for each cell, and escapes what it is given', () => {
  const svg = renderSvg({
    title: 'a < b & "c"',
    subtitle: 'sub',
    disks: [
      { name: 'web/vda', mapped: 130 },
      { name: 'db/vda', mapped: 60 },
    ],
    pictures: [drawDevice('a', 450, 100, extents), drawDevice('b', 450, 100, extents)],
    notes: ['a note'],
  });
  expect(svg).toContain('<title>a &#60; b &#38; &#34;c&#34;</title>');
  expect(svg.match(/<use /g)).toHaveLength(10);
  expect(svg).toContain('class="c d0" x="92"');
  expect(svg).toContain('<title>a at 0 B: web/vda from 700 B, 100 %</title>');
  expect(svg).toContain('<title>a at 200 B: db/vda from 50 B, 60 %</title>');
  expect(svg).toContain('<title>a at 300 B: stale</title>');
  expect(svg).toContain('<title>b at 100 B: web/vda from 300 B, 100 %</title>');
  expect(svg).toContain('>a note</text>');
  // Every element is closed: tags pair up.
  const open: string[] = [];
  for (const [, close, name, self] of svg.matchAll(/<(\/?)([a-z]+)[^>]*?(\/?)>/g)) {
    if (close) expect(open.pop()).toBe(name);
    else if (!self) open.push(name!);
  }
  expect(open).toEqual([]);
});
