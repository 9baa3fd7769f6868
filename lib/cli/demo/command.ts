// `stratamap demo`: options, signals, exit codes.
import { closeSync, existsSync, mkdirSync, openSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
import { Progress } from '../progress.js';
import { formatBytes, parseSize } from '../size.js';
import { jsonOf, svgOf, textOf } from './report.js';
import { type DemoOptions, runDemo } from './run.js';

interface Flags extends Omit<DemoOptions, 'files' | 'keep'> {
  files?: true;
  keep?: true;
  json?: true;
  svg?: string | false;
}

const MIB = 2 ** 20;
const SMALLEST = 8 * MIB;
const LARGEST = 64 * 1024 * MIB;
const WIDTH = 110; // columns, where stdout is not a terminal
const MOST_FAILURES = 20;
const SIGNALS = { SIGHUP: 1, SIGINT: 2, SIGTERM: 15 } as const;

class Interrupted extends Error {
  constructor(readonly number: number) {
    super('interrupted');
  }
}

export function demoCommand(): Command {
  return new Command('demo')
    .description('three VMs’ disks on an opaque volume on two loop devices; the map, proven byte by byte')
    .addOption(new Option('--volume <type>', 'the opaque layer').choices(['extent', 'stripe']).default('extent'))
    .addOption(new Option('--size <size>', 'of each disk').argParser(sizeArgument).default(64 * MIB, '64M'))
    .option('--seed <number>', 'the same seed gives the same requests and data', seedArgument, 1)
    .option('--json', 'print one JSON object and nothing else')
    .option('--svg <file>', 'write the picture there (default: out/demo-TYPE.svg)')
    .option('--no-svg', 'write no picture')
    .option('--files', 'use plain files, even where loop devices can be had')
    .option('--folder <folder>', 'for temporary files', tmpdir())
    .option('--keep', 'leave the temporary files, and say where')
    .showHelpAfterError('(see stratamap demo --help)')
    .action(demo)
    .addHelpText('after', '\nExits with 1 if a byte differs, recall is below 1, or anything else fails.');
}

function sizeArgument(text: string): number {
  let size: number;
  try {
    size = parseSize(text);
  } catch (error) {
    throw new InvalidArgumentError((error as Error).message);
  }
  if (size < SMALLEST || size > LARGEST || size % MIB !== 0) {
    throw new InvalidArgumentError(`give a multiple of 1M, from ${formatBytes(SMALLEST)} to ${formatBytes(LARGEST)}`);
  }
  return size;
}

function seedArgument(text: string): number {
  const seed = Number(text);
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(seed)) throw new InvalidArgumentError('give a whole number');
  return seed;
}

async function demo(flags: Flags): Promise<void> {
  const interrupt = new AbortController();
  const handlers = Object.entries(SIGNALS).map(([name, number]) => {
    // Once: a second one ends the process at once, and the kernel then detaches the loop devices.
    const handler = () => interrupt.abort(new Interrupted(number));
    process.once(name, handler);
    return () => process.off(name, handler);
  });
  try {
    await show(flags, interrupt.signal);
  } catch (error) {
    process.exitCode = 1;
    if (interrupt.signal.aborted) {
      process.exitCode = 128 + (interrupt.signal.reason as Interrupted).number;
      console.error(`stratamap demo: interrupted; everything is cleaned up${flags.keep ? ' but the files' : ''}`);
    } else {
      console.error(`stratamap demo: ${error instanceof Error ? error.message : error}`);
    }
  } finally {
    for (const remove of handlers) remove();
  }
}

/** Where the picture goes, found to be writable before anything else is done. */
function svgFile(wanted: string | false | undefined, volume: string): string | undefined {
  if (wanted === false) return undefined;
  if (wanted) {
    try {
      return writable(wanted);
    } catch (error) {
      throw new Error(`cannot write the picture: ${(error as Error).message}. Give another --svg, or --no-svg`);
    }
  }
  const name = `demo-${volume}.svg`;
  try {
    if (!existsSync('out')) mkdirSync('out');
    return writable(path.join('out', name));
  } catch {
    return writable(path.join(tmpdir(), `stratamap-${name}`));
  }
}

function writable(file: string): string {
  closeSync(openSync(file, 'a'));
  return file;
}

async function show(flags: Flags, signal: AbortSignal): Promise<void> {
  const { json = false, svg: wanted, files = false, keep = false, ...options } = flags;
  const svg = svgFile(wanted, options.volume);
  const result = await runDemo({ ...options, files, keep }, new Progress(!json), signal);
  if (svg) writeFileSync(svg, svgOf(result));
  process.stdout.write(json ? `${jsonOf(result, svg)}\n` : textOf(result, svg, process.stdout.columns ?? WIDTH));
  if (result.failures.length === 0) return;
  process.exitCode = 1;
  const more = result.failures.length - MOST_FAILURES;
  for (const failure of result.failures.slice(0, MOST_FAILURES)) console.error(`stratamap demo: ${failure}`);
  if (more > 0) console.error(`stratamap demo: and ${more} more like these`);
}
