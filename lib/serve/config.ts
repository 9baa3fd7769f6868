// The configuration of `stratamap serve`: read, checked, and every mistake told with its place.
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { type Document, isMap, isScalar, isSeq, LineCounter, type Node, parseDocument, visit } from 'yaml';
import { StratamapError } from '../errors.js';
import type { NbdTls } from '../nbd.js';
import type { Association, Correlation } from '../probe.js';
import { checkReferences } from './references.js';
import { schema } from './schema.js';

/** A block device or image file by its `path`, or by its `uri` what an NBD server serves. */
export interface DeviceConfig {
  path?: string | undefined;
  uri?: string | undefined;
  /** Seconds for which an NBD server that is not there yet is waited for. Default 10. */
  wait?: number | undefined;
  /** Default: as `host.openDevice`. Of devices with a path, as `shared` and `direct`. */
  driver?: 'uring' | 'posix' | undefined;
  shared?: boolean | undefined;
  readOnly: boolean;
  direct?: boolean | undefined;
}

export interface VolumeConfig {
  type: string;
  /** In the order in which they were formatted; not of a volume that takes none. */
  devices?: string[] | undefined;
  options: Record<string, string | number | boolean>;
  /** Format devices that are empty: see openVolume. */
  create: boolean;
}

export interface DiskConfig {
  volume: string;
  /** Bytes. Needed to create it; a disk that there is must have it. */
  size?: number | undefined;
  create: boolean;
}

/** An NBD server: on a unix socket, or on a TCP port. */
export interface ExportConfig {
  socket?: string | undefined;
  host?: string | undefined;
  port?: number | undefined;
  /** As VM/DISK. Default: all; none where there are devices. */
  disks?: string[] | undefined;
  /** Served by their names, past their dispatch tables. */
  devices?: string[] | undefined;
  /** Also those that a volume uses. Default false. */
  shared?: boolean | undefined;
  readOnly: boolean;
  tls?: NbdTls | undefined;
}

export interface LimitConfig {
  disk: string;
  iops?: number | undefined;
  bytesPerSecond?: number | undefined;
  burst?: number | undefined;
}

/** Paths are absolute: those of the file that are not are meant from its folder. */
export interface ServeConfig {
  file: string;
  host: { threads?: number | undefined; requests?: number | undefined; bufferBytes?: number | undefined };
  devices: Record<string, DeviceConfig>;
  volumes: Record<string, VolumeConfig>;
  /** By VM/DISK. */
  disks: Record<string, DiskConfig>;
  exports: ExportConfig[];
  map: { path?: string | undefined; interval?: number | undefined };
  /** Attached from the beginning, if there is one. */
  probe?: { association: Association; correlation: Correlation; capacity?: number | undefined } | undefined;
  policies: { limit: LimitConfig }[];
  control?: { socket: string } | undefined;
}

/** A mistake: where it is, and what to write. Lines and columns count from 1. */
export interface ConfigProblem {
  line: number;
  column: number;
  /** volumes.v0.devices[0] */
  path: string;
  message: string;
}

/** What is wrong with a configuration: all of it. The message has a line for each problem. */
export class ConfigError extends StratamapError {
  constructor(
    readonly file: string,
    readonly problems: readonly ConfigProblem[],
  ) {
    const line = ({ line, column, path: at, message }: ConfigProblem) =>
      `${file}:${line}:${column}: ${at === '' ? '' : `${at} `}${message}`;
    super(problems.map(line).join('\n'), 'ERR_STRATAMAP_CONFIG', { layer: 'serve' });
  }
}

/** A problem that has no place yet. `key`: it is about the key, not about what stands behind it. */
export interface Found {
  path: readonly PropertyKey[];
  message: string;
  key?: boolean;
}

const LARGEST = 2 ** 20; // bytes of a file

/** Reads and checks a file. Rejects with a ConfigError that has every mistake in it. */
export async function readServeConfig(file: string): Promise<ServeConfig> {
  let content: string;
  try {
    content = await readFile(file, 'utf8');
  } catch (error) {
    const { message, code = 'EIO', errno } = error as NodeJS.ErrnoException;
    throw new StratamapError(`the configuration cannot be read: ${message}`, code, { layer: 'serve', errno });
  }
  return parseServeConfig(content, file);
}

/** The same of what a file holds. */
export function parseServeConfig(content: string, file: string): ServeConfig {
  const lines = new LineCounter();
  const at = (offset: number) => {
    const { line, col } = lines.linePos(offset);
    return { line: Math.max(line, 1), column: Math.max(col, 1) };
  };
  if (content.length > LARGEST) {
    throw new ConfigError(file, [{ line: 1, column: 1, path: '', message: `is longer than ${LARGEST} bytes` }]);
  }
  const document = parseDocument(content, { lineCounter: lines, prettyErrors: false, stringKeys: true });
  const broken = [...document.errors, ...document.warnings];
  if (broken.length > 0) {
    throw new ConfigError(
      file,
      broken.map(({ pos, message }) => ({ ...at(pos[0]), path: '', message: `is no valid YAML: ${message}` })),
    );
  }
  const place = ({ path, message, key = false }: Found): ConfigProblem => ({
    ...at(offsetOf(document, path, key)),
    path: nameOf(path),
    message,
  });
  const strange = strangeNodes(document);
  if (strange.length > 0) {
    throw new ConfigError(
      file,
      strange.map(({ offset, ...problem }) => ({ ...at(offset), ...problem })),
    );
  }
  const parsed = schema.safeParse(contentOf(document, file) ?? {});
  const found = parsed.success ? checkReferences(parsed.data) : parsed.error.issues.flatMap(toFound);
  if (found.length > 0 || !parsed.success) {
    const problems = found.map(place);
    throw new ConfigError(
      file,
      problems.sort((a, b) => a.line - b.line || a.column - b.column),
    );
  }
  return { file, ...withPaths(parsed.data, path.dirname(path.resolve(file))) };
}

type SchemaIssue = NonNullable<ReturnType<typeof schema.safeParse>['error']>['issues'][number];

function toFound(issue: SchemaIssue): Found[] {
  const { path, message } = issue;
  if (issue.code === 'unrecognized_keys')
    return issue.keys.map((key) => ({ path: [...path, key], message, key: true }));
  return [{ path, message, key: issue.code === 'invalid_key' }];
}

/** Nodes of which there is no value: aliases of nothing, and a key that an object cannot have as any other. */
function strangeNodes(document: Document.Parsed): { offset: number; path: string; message: string }[] {
  const found: ReturnType<typeof strangeNodes> = [];
  visit(document, {
    Alias(_, alias) {
      if (alias.resolve(document)) return;
      const message = 'is an alias of an anchor that does not come before it: write the value itself';
      found.push({ offset: rangeOf(alias) ?? 0, path: `*${alias.source}`, message });
    },
    Pair(_, { key }) {
      if (!isScalar(key) || key.value !== '__proto__') return;
      found.push({ offset: rangeOf(key) ?? 0, path: '__proto__', message: 'is no name: use another' });
    },
  });
  return found;
}

function contentOf(document: Document.Parsed, file: string): unknown {
  try {
    return document.toJS({ maxAliasCount: 100 });
  } catch (error) {
    throw new ConfigError(file, [
      { line: 1, column: 1, path: '', message: `cannot be read: ${(error as Error).message}` },
    ]);
  }
}

function nameOf(path: readonly PropertyKey[]): string {
  return path.reduce<string>((name, each) => {
    if (typeof each === 'number') return `${name}[${each}]`;
    const key = /^\P{Cc}*$/u.test(String(each)) ? String(each) : JSON.stringify(each);
    return name === '' ? key : `${name}.${key}`;
  }, '');
}

/** Where it stands; of what is not there, where it would belong. */
function offsetOf(document: Document.Parsed, path: readonly PropertyKey[], ofKey: boolean): number {
  let node: unknown = document.contents;
  let offset = rangeOf(node) ?? 0;
  for (const [i, segment] of path.entries()) {
    if (isMap(node)) {
      const pair = node.items.find(({ key }) => isScalar(key) && String(key.value) === String(segment));
      if (pair === undefined) return offset;
      const key = rangeOf(pair.key) ?? offset;
      offset = ofKey && i === path.length - 1 ? key : (rangeOf(pair.value) ?? key);
      // A mapping begins at its first key: its own key says better what is meant.
      if (isMap(pair.value) && i < path.length) offset = key;
      node = pair.value;
    } else if (isSeq(node)) {
      node = node.items[Number(segment)];
      offset = rangeOf(node) ?? offset;
    } else {
      return offset;
    }
  }
  return offset;
}

function rangeOf(node: unknown): number | undefined {
  return (node as Node | null | undefined)?.range?.[0];
}

function withPaths(config: Omit<ServeConfig, 'file'>, folder: string): Omit<ServeConfig, 'file'> {
  const from = <T extends string | undefined>(name: T) =>
    (name === undefined ? undefined : path.resolve(folder, name)) as T;
  const each = <T>(record: Record<string, T>, f: (value: T) => T) =>
    Object.fromEntries(Object.entries(record).map(([name, value]) => [name, f(value)]));
  return {
    ...config,
    devices: each(config.devices, (device) => ({ ...device, path: from(device.path) })),
    volumes: each(config.volumes, (volume) => ({
      ...volume,
      type: volume.type.endsWith('.so') ? from(volume.type) : volume.type,
      options:
        volume.type === 'kernel'
          ? { ...volume.options, directory: from(String(volume.options.directory)) }
          : volume.options,
    })),
    exports: config.exports.map(({ tls, ...server }) => ({
      ...server,
      socket: from(server.socket),
      ...(tls && { tls: { ...tls, ca: from(tls.ca), cert: from(tls.cert), key: from(tls.key) } }),
    })),
    map: { ...config.map, path: from(config.map.path) },
    control: config.control && { socket: from(config.control.socket) },
  };
}
