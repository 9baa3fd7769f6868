// What the shape of the configuration cannot say: names that mean something, and what goes together.
import path from 'node:path';
import { associations } from '../probe.js';
import type { Found, ServeConfig, VolumeConfig } from './config.js';

type Config = Omit<ServeConfig, 'file'>;

const PORT = 10809; // of NBD
const MOST_POLICIES = 5; // each is an interposer of every device, which takes six
const FORMATTED = ['extent', 'log', 'stripe'];
const BUILT_IN = [...FORMATTED, 'nbd', 'kernel'];

export function checkReferences(config: Config): Found[] {
  return [
    ...devicesOf(config),
    ...volumesOf(config),
    ...disksOf(config),
    ...exportsOf(config),
    ...socketsOf(config),
    ...probeOf(config),
    ...policiesOf(config),
  ];
}

/** What is said of a name that means nothing. */
function unknown(kind: string, name: string, known: object): string {
  const names = Object.keys(known);
  const list = names.length > 0 ? `use one of ${names.join(', ')}, or` : 'none is;';
  return `is ${JSON.stringify(name)}, which is not under ${kind}: ${list} add it there`;
}

/** The second and every further one of those that are the same. */
function repeated<T>(
  entries: readonly T[],
  same: (entry: T) => string | undefined,
  tell: (entry: T, first: T) => Found,
) {
  const first = new Map<string, T>();
  return entries.flatMap((entry) => {
    const key = same(entry);
    if (key === undefined) return [];
    const before = first.get(key);
    if (before === undefined) first.set(key, entry);
    return before === undefined ? [] : [tell(entry, before)];
  });
}

function devicesOf({ devices }: Config): Found[] {
  const kinds = Object.entries(devices).flatMap(([name, { path: file, uri }]) =>
    (file === undefined) === (uri === undefined)
      ? [
          {
            path: ['devices', name],
            message: `has ${uri ? 'both path and uri' : 'neither path nor uri'}: give one of them`,
          },
        ]
      : [],
  );
  const idle = Object.entries(devices).flatMap(([name, device]) => {
    const ignored = device.uri === undefined ? (['wait'] as const) : (['driver', 'shared', 'direct'] as const);
    return ignored
      .filter((key) => device[key] !== undefined)
      .map((key) => ({
        path: ['devices', name, key],
        message: `means nothing to a device that is given by its ${device.uri === undefined ? 'path' : 'uri'}: take it out`,
        key: true,
      }));
  });
  const relative = Object.entries(devices).flatMap(([name, { uri }]) => {
    const socket = uri && URL.canParse(uri) && new URL(uri).searchParams.get('socket');
    if (!socket || socket.startsWith('/')) return [];
    return [{ path: ['devices', name, 'uri'], message: `has the socket ${socket}: write its path from / on` }];
  });
  const twice = repeated(
    Object.entries(devices),
    ([, device]) => device.path && path.resolve('/', device.path),
    ([name, device], [first]) => ({
      path: ['devices', name, 'path'],
      message: `is ${JSON.stringify(device.path)}, which device ${first} has already: give each device once`,
    }),
  );
  return [...kinds, ...idle, ...relative, ...twice];
}

function volumesOf({ volumes, devices }: Config): Found[] {
  const used = Object.entries(volumes).flatMap(([volume, { devices: names = [] }]) =>
    names.map((name, i) => ({ volume, name, i })),
  );
  const absent = used
    .filter(({ name }) => !Object.hasOwn(devices, name))
    .map(({ volume, name, i }) => ({
      path: ['volumes', volume, 'devices', i],
      message: unknown('devices', name, devices),
    }));
  const twice = repeated(
    used,
    ({ name }) => name,
    ({ volume, name, i }, first) => ({
      path: ['volumes', volume, 'devices', i],
      message: `is ${JSON.stringify(name)}, which volume ${first.volume} has already: give it to one volume, once`,
    }),
  );
  const types = Object.entries(volumes).flatMap(([volume, config]) => {
    const { type, create, devices: names } = config;
    if (type === 'kernel')
      return directoryOf(config).map(({ path, ...found }) => ({ path: ['volumes', volume, ...path], ...found }));
    if (!BUILT_IN.includes(type) && !type.endsWith('.so')) {
      const message = `is ${JSON.stringify(type)}: write ${BUILT_IN.join(', ')}, or the path of a shared object, which ends in .so`;
      return [{ path: ['volumes', volume, 'type'], message }];
    }
    if (names === undefined && !type.endsWith('.so')) {
      const message = 'is missing: write a list of the names of its devices, in order';
      return [{ path: ['volumes', volume, 'devices'], message }];
    }
    const far = names?.find((name) => devices[name]?.uri !== undefined);
    if (create && far !== undefined) {
      const message = `is true, but whether ${far}, which an NBD server serves, is empty is not looked at: take it out`;
      return [{ path: ['volumes', volume, 'create'], message }];
    }
    if (!create || FORMATTED.includes(type)) return [];
    const message = `is true, but what an empty device is to ${type} is not known: take it out, and format it by host.formatVolume`;
    return [{ path: ['volumes', volume, 'create'], message }];
  });
  return [...absent, ...twice, ...types];
}

/** What is wrong with a volume of type kernel. */
function directoryOf({ devices, create, options: { directory } }: VolumeConfig): Found[] {
  const found: Found[] = [];
  if (devices) {
    found.push({ path: ['devices'], message: 'means nothing to a directory of images: take it out', key: true });
  }
  if (create) found.push({ path: ['create'], message: 'is true, but a directory is not formatted: take it out' });
  if (typeof directory !== 'string' || directory === '') {
    const is = directory === undefined ? 'is missing' : `is ${JSON.stringify(directory)}`;
    const message = `${is}: write the path of a directory on a mounted file system`;
    found.push({ path: ['options', 'directory'], message });
  }
  return found;
}

function disksOf({ disks, volumes }: Config): Found[] {
  return Object.entries(disks).flatMap(([disk, { volume, size, create }]) => [
    ...(Object.hasOwn(volumes, volume)
      ? []
      : [{ path: ['disks', disk, 'volume'], message: unknown('volumes', volume, volumes) }]),
    ...(create && size === undefined
      ? [{ path: ['disks', disk, 'size'], message: 'is missing: write its size, with which it is created, as 10GiB' }]
      : []),
  ]);
}

function exportsOf({ exports, disks, devices, volumes }: Config): Found[] {
  const userOf = (device: string) => Object.keys(volumes).find((name) => volumes[name]?.devices?.includes(device));
  return exports.flatMap(({ socket, host, port, disks: names = [], devices: raw = [], shared, tls }, i) => {
    const found: Found[] = [];
    const at = (message: string, ...more: PropertyKey[]) => found.push({ path: ['exports', i, ...more], message });
    if ((socket === undefined) === (host === undefined)) {
      at(`has ${socket === undefined ? 'neither socket nor host' : 'both socket and host'}: give one of them`);
    }
    if (port !== undefined && host === undefined) at('belongs to a host: take it out, or give a host', 'port');
    for (const [k, name] of names.entries()) {
      if (!Object.hasOwn(disks, name)) at(unknown('disks', name, disks), 'disks', k);
      else if (names.indexOf(name) !== k) at(`is ${JSON.stringify(name)} a second time: take it out`, 'disks', k);
    }
    for (const [k, name] of raw.entries()) {
      const user = userOf(name);
      if (!Object.hasOwn(devices, name)) at(unknown('devices', name, devices), 'devices', k);
      else if (raw.indexOf(name) !== k) at(`is ${JSON.stringify(name)} a second time: take it out`, 'devices', k);
      else if (user !== undefined && !shared) {
        const how = 'take it out, or write shared: true where its clients may overwrite what the volume has there';
        at(`is ${JSON.stringify(name)}, which volume ${user} uses: ${how}`, 'devices', k);
      }
    }
    if (tls !== undefined && tls.ca === undefined && tls.verifyPeer !== false) {
      at('is missing: write the path of the trusted authorities’ certificates, or verifyPeer: false', 'tls', 'ca');
    }
    return found;
  });
}

function socketsOf({ exports, control }: Config): Found[] {
  const sockets = [
    ...exports.map(({ socket, host, port }, i) => ({
      where: host === undefined ? socket && path.resolve('/', socket) : `${host}:${port ?? PORT}`,
      name: `exports[${i}]`,
      path: ['exports', i, host === undefined ? 'socket' : port === undefined ? 'host' : 'port'],
    })),
    ...(control ? [{ where: path.resolve('/', control.socket), name: 'control', path: ['control', 'socket'] }] : []),
  ];
  return repeated(
    sockets,
    ({ where }) => where,
    (socket, first) => ({ path: socket.path, message: `is that of ${first.name} too: give each one of its own` }),
  );
}

function probeOf({ probe }: Config): Found[] {
  if (probe === undefined) return [];
  const { correlations } = associations()[probe.association];
  if (correlations.includes(probe.correlation)) return [];
  return [
    {
      path: ['probe', 'correlation'],
      message: `is ${probe.correlation}, which association ${probe.association} does not allow: write ${correlations.join(' or ')}`,
    },
  ];
}

function policiesOf({ policies, probe, disks }: Config): Found[] {
  return policies.flatMap(({ limit }, i) => {
    const found: Found[] = [];
    if (i >= MOST_POLICIES) {
      const message = `is one too many: a device takes ${MOST_POLICIES} beside the probe; take it out`;
      found.push({ path: ['policies', i], message });
    }
    const at = (message: string, ...more: PropertyKey[]) =>
      found.push({ path: ['policies', i, 'limit', ...more], message });
    if (!Object.hasOwn(disks, limit.disk)) at(unknown('disks', limit.disk, disks), 'disk');
    if (limit.iops === undefined && limit.bytesPerSecond === undefined) {
      at('limits nothing: give iops, bytesPerSecond, or both');
    }
    if (probe === undefined) at('needs a probe, by which it knows the disk’s I/O: add probe: {}');
    else if (probe.correlation !== 'descend' || probe.association === 'content') {
      at('needs a probe that correlates by descend, and not by content: change probe, or take the limit out');
    }
    return found;
  });
}
