// The shape of the configuration. Every message says what to write.
import { z } from 'zod';
import { type Association, associations, type Tagging } from '../probe.js';
import type { ServeConfig } from './config.js';

const ASSOCIATIONS = Object.keys(associations()) as Association[];
const TAGGING: Tagging[] = ['adaptive', 'always'];
const CORRELATIONS = [...new Set(Object.values(associations()).flatMap(({ correlations }) => correlations))];

type Issue = Parameters<z.core.$ZodErrorMap>[0];

function shown(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 60 ? `${text.slice(0, 60)}…` : text;
}

/** The message of any issue of a value. */
function wanted(what: string) {
  return (issue: Issue): string =>
    issue.input === undefined ? `is missing: write ${what}` : `is ${shown(issue.input)}: write ${what}`;
}

const text = (what: string) => z.string({ error: wanted(what) }).min(1, { error: wanted(what) });
const flag = (what: string) => z.boolean({ error: wanted(`true or false: ${what}`) });
const oneOf = <const T extends string[]>(...values: T) => {
  const list = values.map((value) => `'${value}'`);
  return z.enum(values, { error: wanted(`${list.slice(0, -1).join(', ')} or ${list.at(-1)}`) });
};
function integer(what: string, least: number, most: number) {
  const error = wanted(`${what}, ${least} to ${most}`);
  return z.int({ error }).min(least, { error }).max(most, { error });
}
function positive(what: string) {
  const error = wanted(`${what}, a number above 0`);
  return z.number({ error }).positive({ error });
}
const list = <T extends z.ZodType>(each: T, what: string) =>
  z.array(each, { error: wanted(what) }).min(1, { error: wanted(what) });

/** A mapping that has these keys and no other. */
function keys<T extends z.ZodRawShape>(shape: T) {
  const known = Object.keys(shape).join(', ');
  return z.strictObject(shape, {
    error: (issue) =>
      issue.code === 'unrecognized_keys'
        ? `is not known here: use ${known}, or take it out`
        : wanted(`a mapping with some of the keys ${known}`)(issue),
  });
}

const nameOf = (what: string) => {
  const error = () => `is no name of a ${what}: write 1 to 63 bytes without control characters`;
  return z.string({ error }).refine((value) => /^\P{Cc}+$/u.test(value) && Buffer.byteLength(value) <= 63, { error });
};
/** A mapping from names to the same thing each. */
const named = <T extends z.ZodType>(what: string, key: z.ZodType<string, string>, each: T) =>
  z.record(key, each, {
    error: (issue) =>
      issue.code === 'invalid_key'
        ? (issue.issues[0]?.message ?? `is no name of a ${what}`)
        : wanted(`a mapping that has a key for each ${what}`)(issue),
  });

const UNITS = ['', 'K', 'M', 'G', 'T'];
const SIZE = /^(\d+) ?([KMGT]?)(?:iB|B)?$/;
/** Bytes: a number, or text as 10GiB. */
function size(what: string) {
  const error = wanted(`${what} as a whole number above 0, of bytes or with KiB, MiB, GiB or TiB behind it`);
  const parsed = (value: number | string): number => {
    const [, digits, unit = ''] = SIZE.exec(String(value)) ?? [];
    return Number(digits) * 1024 ** UNITS.indexOf(unit);
  };
  return z
    .union([z.number(), z.string()], { error })
    .refine((value) => Number.isSafeInteger(parsed(value)) && parsed(value) > 0, { error })
    .transform(parsed);
}

const diskName = z.string().refine((value) => /^[^/]+\/[^/]+$/.test(value) && value.split('/').every(isName), {
  error: () => 'is no name of a disk: write VM/DISK, each 1 to 63 bytes without control characters',
});
function isName(value: string): boolean {
  return nameOf('disk').safeParse(value).success;
}

const device = keys({
  path: text('the path of a block device or an image file, as /dev/loop0').optional(),
  uri: text('what an NBD server serves, as nbd+unix:///EXPORT?socket=PATH or nbd://localhost:PORT/EXPORT').optional(),
  wait: integer('how long to wait for that server, in seconds', 0, 3600).optional(),
  driver: oneOf('uring', 'posix').optional(),
  shared: flag('whether others may use the device at the same time').optional(),
  readOnly: flag('whether nothing is written to it').default(false),
  direct: flag('whether I/O goes past the page cache').optional(),
});

const volume = keys({
  type: text('extent, log, stripe, nbd, kernel, or the path of a shared object'),
  devices: list(text('the name of a device'), 'a list of the names of its devices, in order').optional(),
  options: named(
    'setting',
    z.string(),
    z.union([z.string(), z.number(), z.boolean()], { error: wanted('a text, a number, true or false') }),
  ).default({}),
  create: flag('whether to format devices that are empty').default(false),
});

const disk = keys({
  volume: text('the name of its volume'),
  size: size('its size').optional(),
  create: flag('whether to create it where the volume has none of that name').default(false),
});

const file = (what: string) => text(`the path of ${what}, a PEM file`);

const server = keys({
  socket: text('the path of a unix socket').optional(),
  host: text('an address or name of this machine').optional(),
  port: integer('a TCP port', 1, 65535).optional(),
  disks: list(text('VM/DISK'), 'a list of disks as VM/DISK, or leave it out for all').optional(),
  devices: list(text('the name of a device'), 'a list of the names of devices').optional(),
  shared: flag('whether to serve devices that a volume uses').optional(),
  readOnly: flag('whether clients may only read').default(false),
  tls: keys({
    ca: file('the trusted authorities’ certificates').optional(),
    cert: file('the server’s certificate'),
    key: file('the server’s private key'),
    verifyPeer: flag('whether clients must show a certificate').optional(),
  }).optional(),
});

const limit = keys({
  disk: text('VM/DISK'),
  iops: positive('operations per second').optional(),
  bytesPerSecond: size('bytes per second').optional(),
  burst: positive('seconds of its rates that are saved').optional(),
});

export const schema: z.ZodType<Omit<ServeConfig, 'file'>> = keys({
  host: keys({
    threads: integer('a number of I/O threads', 1, 256).optional(),
    requests: integer('a number of requests', 1, 2 ** 24).optional(),
    bufferBytes: size('the buffers of each thread').optional(),
  }).default({}),
  devices: named('device', nameOf('device'), device).default({}),
  volumes: named('volume', nameOf('volume'), volume),
  disks: named('disk', diskName, disk),
  exports: list(server, 'a list of servers, each with a socket or a host').default([]),
  map: keys({
    path: text('the path of the file that keeps the map').optional(),
    interval: integer('how often it is written, in ms', 10, 3_600_000).optional(),
  }).default({}),
  probe: keys({
    association: oneOf(...ASSOCIATIONS).default('serial'),
    correlation: oneOf(...CORRELATIONS).default('descend'),
    capacity: integer('how many requests are followed at once', 64, 2 ** 22).optional(),
    tagging: oneOf(...TAGGING).optional(),
    maxAge: integer('what is tagged anew when it was not for so long, in ms', 1, 1_000_000_000).optional(),
    levels: list(integer('a level of the best-effort class', 0, 7), 'a list of levels').optional(),
  }).optional(),
  policies: list(keys({ limit }), 'a list of policies, each a key limit').default([]),
  control: keys({ socket: text('the path of the control socket') }).optional(),
});
