// The devices' pictures as one SVG, for browsers: each cell tells on hover what it holds.

import { formatBytes } from '../size.js';
import type { DevicePicture } from './picture.js';

export interface SvgDisk {
  name: string;
  /** Bytes of it that are mapped. */
  mapped: number;
}

export interface SvgOptions {
  title: string;
  subtitle: string;
  disks: readonly SvgDisk[];
  pictures: readonly DevicePicture[];
  /** One line each, below the pictures. */
  notes: readonly string[];
}

/** Cells in a row, and the most that a picture should have. */
export const SVG_COLUMNS = 128;
export const SVG_CELLS = SVG_COLUMNS * 32;

// Okabe and Ito's colours, which people with any colour vision tell apart.
const COLOURS = ['#0072b2', '#e69f00', '#009e73', '#cc79a7'];
const PITCH = 8;
const LEFT = 92;
const MARGIN = 28;
const WIDTH = LEFT + SVG_COLUMNS * PITCH + MARGIN;

export function renderSvg({ title, subtitle, disks, pictures, notes }: SvgOptions): string {
  const body: string[] = [];
  let y = 44;
  body.push(text(MARGIN, y, title, 'h1'), text(MARGIN, y + 24, subtitle, 'dim'));
  y += 58;
  let x = MARGIN;
  for (const [index, disk] of disks.entries()) {
    const label = `${disk.name}, ${formatBytes(disk.mapped)} mapped`;
    body.push(`<rect class="d${index}" x="${x}" y="${y - 11}" width="13" height="13" rx="2"/>`, text(x + 20, y, label));
    x += 44 + label.length * 7.2;
  }
  body.push(`<rect class="free" x="${x}" y="${y - 11}" width="13" height="13" rx="2"/>`);
  body.push(text(x + 20, y, 'free, or the volume’s own; paler: the cell is mapped in part', 'dim'));
  y += 14;
  for (const picture of pictures) {
    y += 34;
    const caption = `${formatBytes(picture.size)}, each cell ${formatBytes(picture.cellBytes)}`;
    body.push(text(LEFT, y, picture.device, 'h2'), text(WIDTH - MARGIN, y, caption, 'dim end'));
    y += 12;
    body.push(...cellsOf(picture, disks, y));
    y += Math.ceil(picture.cells.length / SVG_COLUMNS) * PITCH;
  }
  y += 16;
  for (const note of notes) {
    y += 21;
    body.push(text(MARGIN, y, note));
  }
  const height = y + 26;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img">
<title>${escapeXml(title)}</title>
<style>
text { font: 13px system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif; fill: #1b2733; }
.h1 { font-size: 22px; font-weight: 600; } .h2 { font-size: 15px; font-weight: 600; }
.dim { fill: #5b6b7a; } .end { text-anchor: end; } .small { font-size: 10px; fill: #5b6b7a; text-anchor: end; }
.free { fill: #e9edf1; } .stale { fill: #b3261e; }
${disks.map((_, index) => `.d${index} { fill: ${COLOURS[index % COLOURS.length]}; }`).join(' ')}
.q1 { fill-opacity: .3; } .q2 { fill-opacity: .5; } .q3 { fill-opacity: .75; }
.c:hover { stroke: #1b2733; stroke-width: 1.5; }
</style>
<defs><rect id="c" width="${PITCH - 1}" height="${PITCH - 1}" rx="1"/></defs>
<rect width="100%" height="100%" fill="#fff"/>
${body.join('\n')}
</svg>
`;
}

function cellsOf(picture: DevicePicture, disks: readonly SvgDisk[], top: number): string[] {
  const lines: string[] = [];
  for (const [index, cell] of picture.cells.entries()) {
    const column = index % SVG_COLUMNS;
    const row = Math.floor(index / SVG_COLUMNS);
    const x = LEFT + column * PITCH;
    const y = top + row * PITCH;
    const offset = index * picture.cellBytes;
    if (column === 0 && row % 2 === 0) lines.push(text(LEFT - 8, y + PITCH - 1, formatBytes(offset), 'small'));
    const where = `${picture.device} at ${formatBytes(offset)}`;
    let what = 'free, or the volume’s own';
    let style = 'free';
    if (cell.stale) {
      what = 'stale';
      style = 'stale';
    } else if (cell.owner >= 0) {
      what = `${disks[cell.owner]!.name} from ${formatBytes(cell.diskOffset)}, ${Math.round(cell.share * 100)} %`;
      style = `d${cell.owner}${cell.share < 0.995 ? ` q${Math.min(3, 1 + Math.floor(cell.share * 3))}` : ''}`;
    }
    lines.push(
      `<use href="#c" class="c ${style}" x="${x}" y="${y}"><title>${escapeXml(`${where}: ${what}`)}</title></use>`,
    );
  }
  return lines;
}

function text(x: number, y: number, content: string, style?: string): string {
  return `<text x="${x}" y="${y}"${style ? ` class="${style}"` : ''}>${escapeXml(content)}</text>`;
}

function escapeXml(content: string): string {
  return content.replace(/[&<>"]/g, (sign) => `&#${sign.charCodeAt(0)};`);
}
