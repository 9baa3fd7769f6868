// Configurations: what is read from good ones, and every mistake with its place.
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { readServeConfig } from 'stratamap';
import { expect, test } from 'vitest';
import { checkout } from '../../support/checkout.js';
import { tmpDir } from '../../support/files.js';
import { failureOf } from '../../support/stack.js';

async function read(content: string) {
  const file = path.join(tmpDir(), 'host.yaml');
  writeFileSync(file, content);
  return { config: await readServeConfig(file), folder: path.dirname(file) };
}

async function problemsOf(content: string): Promise<string[]> {
  const error = await failureOf(read(content));
  expect(error).toMatchObject({ code: 'ERR_STRATAMAP_CONFIG', layer: 'serve' });
  const problems = error.problems as { line: number; column: number; path: string; message: string }[];
  const lines = problems.map(({ line, column, path: at, message }) => `${line}:${column} ${at} ${message}`);
  expect(error.message.split('\n')).toHaveLength(lines.length);
  for (const [i, line] of error.message.split('\n').entries()) {
    const { line: row, column, message } = problems[i] as (typeof problems)[number];
    expect(line).toContain(`${error.file}:${row}:${column}: `);
    expect(line).toContain(message);
  }
  return lines;
}

const LEAST = `
devices: { d0: { path: a.img } }
volumes: { v0: { type: extent, devices: [d0] } }
disks: { vm-1/vda: { volume: v0 } }
`;

test('what is left out has its default, and paths are meant from the folder of the file', async () => {
  const { config, folder } = await read(LEAST);
  expect(config).toEqual({
    file: path.join(folder, 'host.yaml'),
    host: {},
    devices: {
      d0: { path: path.join(folder, 'a.img'), readOnly: false },
    },
    volumes: { v0: { type: 'extent', devices: ['d0'], options: {}, create: false } },
    disks: { 'vm-1/vda': { volume: 'v0', create: false } },
    exports: [],
    map: { path: undefined },
    policies: [],
    control: undefined,
  });
});

test('a directory of images takes no devices, and is meant from the folder of the file', async () => {
  const { config, folder } = await read(`
volumes: { v0: { type: kernel, options: { directory: images, allocate: full } } }
disks: { vm-1/vda: { volume: v0 } }`);
  expect(config.devices).toEqual({});
  expect(config.volumes).toEqual({
    v0: { type: 'kernel', options: { directory: path.join(folder, 'images'), allocate: 'full' }, create: false },
  });
});

test('everything, as in the example', async () => {
  const config = await readServeConfig(path.join(checkout, 'examples/host.yaml'));
  expect(config).toMatchObject({
    host: { threads: 1, bufferBytes: 2 ** 25 },
    disks: { 'vm-2/vda': { size: 10 * 2 ** 30, create: true } },
    exports: [{ socket: '/run/stratamap/nbd.sock' }, { host: '127.0.0.1', port: 10809, readOnly: true }],
    map: { path: '/var/lib/stratamap/map', interval: 1000 },
    policies: [{ limit: { disk: 'vm-2/vda', bytesPerSecond: 2 ** 26, burst: 0.1 } }],
  });
});

test.each([
  ['4096', 4096],
  ['64KiB', 65536],
  ['64 K', 65536],
  ['2M', 2 ** 21],
  ['3TB', 3 * 2 ** 40],
])('size %s', async (size, bytes) => {
  const { config } = await read(LEAST.replace('volume: v0', `volume: v0, size: ${size}`));
  expect(config.disks['vm-1/vda']?.size).toBe(bytes);
});

const DISK = 'disks: { vm-1/vda: { volume: v0 } }';
/** What is put in the place of what, or behind everything; and the problems. */
const MISTAKES: [name: string, from: string, to: string, problems: string[]][] = [
  ['nothing at all', LEAST, '', ['1:1 volumes is missing', '1:1 disks is missing']],
  ['a list', LEAST, '- 1', ['1:1  is [1]: write a mapping with some of the keys host, devices']],
  ['no YAML', LEAST, '\na: [1\nb: 2', ['3:1  is no valid YAML']],
  [
    'a key twice',
    'd0: { path: a.img }',
    'd0: { path: a }, d0: { path: b }',
    ['2:29  is no valid YAML: Map keys must be'],
  ],
  ['an anchor that is none', 'path: a.img', 'path: *a', ['2:24 *a is an alias of an anchor that does not']],
  ['an unknown key', DISK, `${DISK}\nexport: 1`, ['5:1 export is not known here: use host, devices, volumes']],
  [
    'an unknown key within',
    'path: a.img',
    'path: a.img, drive: uring',
    ['2:31 devices.d0.drive is not known here: use path,'],
  ],
  ['a missing key', 'path: a.img', '', ['2:12 devices.d0 has neither path nor uri: give one of them']],
  ['two places', 'path: a.img', 'path: a.img, uri: b', ['devices.d0 has both path and uri: give one of them']],
  [
    'what another server has is not formatted',
    'path: a.img } }\nvolumes: { v0: { type: extent,',
    'uri: b } }\nvolumes: { v0: { type: extent, create: true,',
    ['volumes.v0.create is true, but whether d0, which an NBD server serves, is empty is not looked at'],
  ],
  [
    'what means nothing there',
    'd0: { path: a.img }',
    'd0: { path: a.img, wait: 5 }, d1: { uri: "nbd://localhost/a", direct: false, driver: posix }',
    [
      'devices.d0.wait means nothing to a device that is given by its path',
      'devices.d1.direct means nothing to a device that is given by its uri',
      'devices.d1.driver means nothing',
    ],
  ],
  [
    'a socket of another server that would depend on the working directory',
    'd0: { path: a.img }',
    'd0: { path: a.img }, d1: { uri: "nbd+unix:///x?socket=a.sock" }',
    ['devices.d1.uri has the socket a.sock: write its path from / on'],
  ],
  [
    'more limits than a device takes',
    DISK,
    `${DISK}\nprobe: {}\npolicies: [${Array(7).fill('{ limit: { disk: vm-1/vda, iops: 5 } }').join()}]`,
    ['policies[5] is one too many: a device takes 5', 'policies[6] is one too many'],
  ],
  [
    'a served device that is none',
    DISK,
    `${DISK}\nexports: [{ socket: a, devices: [d7] }]`,
    ['exports[0].devices[0] is "d7", which is not under devices'],
  ],
  [
    'a served device that a volume uses',
    DISK,
    `${DISK}\nexports: [{ socket: a, devices: [d0] }, { socket: b, devices: [d0], shared: true }]`,
    ['exports[0].devices[0] is "d0", which volume v0 uses: take it out, or write shared: true'],
  ],
  ['a wrong type', 'path: a.img', 'path: 5', ['2:24 devices.d0.path is 5: write the path of']],
  ['an empty path', 'path: a.img', 'path: ""', ['2:24 devices.d0.path is "": write the path of']],
  ['nothing behind a key', 'path: a.img', 'path:', ['devices.d0.path is null: write']],
  ['a wrong driver', 'path: a.img', 'path: a, driver: null', ["devices.d0.driver is null: write 'uring' or 'posix'"]],
  ['a wrong flag', 'path: a.img', 'path: a, shared: yes', ['devices.d0.shared is "yes": write true or false']],
  ['a wrong name', 'd0: {', '"a\\nb": {', ['2:12 devices."a\\nb" is no name of a device: write 1 to 63 bytes']],
  ['a name that is no name', 'd0: {', '__proto__: {', ['2:12 __proto__ is no name: use another']],
  [
    'a wrong type of volume',
    'type: extent',
    'type: exten',
    ['3:24 volumes.v0.type is "exten": write extent, log, stripe'],
  ],
  ['no devices', '[d0]', '[]', ['volumes.v0.devices is []: write a list of the names']],
  ['devices left out', ', devices: [d0]', '', ['3:12 volumes.v0.devices is missing: write a list of the names']],
  [
    'devices of a directory',
    'type: extent',
    'type: kernel, create: true, options: { directory: a }',
    ['volumes.v0.create is true, but a directory is not', 'volumes.v0.devices means nothing to a directory of images'],
  ],
  [
    'no directory',
    'type: extent, devices: [d0]',
    'type: kernel',
    ['volumes.v0.options.directory is missing: write the path of a directory'],
  ],
  [
    'a directory that is none',
    'type: extent, devices: [d0]',
    'type: kernel, options: { directory: 5 }',
    ['volumes.v0.options.directory is 5: write the path of a directory'],
  ],
  [
    'a device that is none',
    '[d0]',
    '[d0, d7]',
    ['3:46 volumes.v0.devices[1] is "d7", which is not under devices: use one of d0'],
  ],
  ['a device twice', '[d0]', '[d0, d0]', ['volumes.v0.devices[1] is "d0", which volume v0 has already']],
  [
    'a path twice',
    'd0: { path: a.img }',
    'd0: { path: a.img }, d1: { path: ./a.img }',
    ['devices.d1.path is "./a.img", which device d0'],
  ],
  [
    'a volume that is made of what is unknown',
    'type: extent',
    'type: a.so, create: true',
    ['volumes.v0.create is true, but'],
  ],
  [
    'an option that is a list',
    'type: extent',
    'type: extent, options: { a: [] }',
    ['volumes.v0.options.a is []: write a text, a number'],
  ],
  ['a disk without its VM', 'vm-1/vda', 'vda', ['4:10 disks.vda is no name of a disk: write VM/DISK']],
  [
    'a volume that is none',
    'volume: v0',
    'volume: v1',
    ['4:30 disks.vm-1/vda.volume is "v1", which is not under volumes'],
  ],
  [
    'a disk to make without a size',
    'volume: v0',
    'volume: v0, create: true',
    ['disks.vm-1/vda.size is missing: write its size'],
  ],
  [
    'a size that is none',
    'volume: v0',
    'volume: v0, size: 5X',
    ['disks.vm-1/vda.size is "5X": write its size as a whole number'],
  ],
  ['a size of nothing', 'volume: v0', 'volume: v0, size: 0', ['disks.vm-1/vda.size is 0: write']],
  ['too large a size', 'volume: v0', 'volume: v0, size: 9000000T', ['disks.vm-1/vda.size is "9000000T": write']],
  [
    'a server that is nowhere',
    DISK,
    `${DISK}\nexports: [{ readOnly: true }]`,
    ['5:11 exports[0] has neither socket nor host'],
  ],
  [
    'a server in two places',
    DISK,
    `${DISK}\nexports: [{ socket: a, host: b }]`,
    ['5:11 exports[0] has both socket and host'],
  ],
  [
    'a port without a host',
    DISK,
    `${DISK}\nexports: [{ socket: a, port: 5 }]`,
    ['5:30 exports[0].port belongs to a host'],
  ],
  [
    'a port that is none',
    DISK,
    `${DISK}\nexports: [{ host: a, port: 65536 }]`,
    ['exports[0].port is 65536: write a TCP port, 1 to 65535'],
  ],
  [
    'an exported disk that is none',
    DISK,
    `${DISK}\nexports: [{ socket: a, disks: [vm-1/vdb] }]`,
    ['exports[0].disks[0] is "vm-1/vdb", which is not under disks'],
  ],
  [
    'TLS without its key',
    DISK,
    `${DISK}\nexports: [{ host: a, tls: { ca: a, cert: b } }]`,
    ['exports[0].tls.key is missing: write the path of the server’s private key'],
  ],
  [
    'TLS that asks clients for certificates of nobody',
    DISK,
    `${DISK}\nexports: [{ host: a, tls: { cert: b, key: c } }]`,
    ['exports[0].tls.ca is missing: write the path of the trusted authorities’ certificates, or verifyPeer: false'],
  ],
  [
    'one socket for two',
    DISK,
    `${DISK}\nexports: [{ socket: a }]\ncontrol: { socket: ./a }`,
    ['6:20 control.socket is that of exports[0] too'],
  ],
  [
    'one port for two',
    DISK,
    `${DISK}\nexports: [{ host: a }, { host: a, port: 10809 }]`,
    ['exports[1].port is that of exports[0] too'],
  ],
  [
    'a correlation that is not allowed',
    DISK,
    `${DISK}\nprobe: { association: content, correlation: down }`,
    ["probe.correlation is \"down\": write 'descend', 'ascend' or 'meet'"],
  ],
  [
    'a limit of nothing',
    DISK,
    `${DISK}\nprobe: {}\npolicies: [{ limit: { disk: vm-1/vda } }]`,
    ['policies[0].limit limits nothing'],
  ],
  [
    'a limit without a probe',
    DISK,
    `${DISK}\npolicies: [{ limit: { disk: vm-1/vda, iops: 5 } }]`,
    ['policies[0].limit needs a probe'],
  ],
  [
    'a limit by content',
    DISK,
    `${DISK}\nprobe: { association: content }\npolicies: [{ limit: { disk: vm-1/vda, iops: 5 } }]`,
    ['needs a probe that correlates by descend'],
  ],
  [
    'a limit of a disk that is none',
    DISK,
    `${DISK}\nprobe: {}\npolicies: [{ limit: { disk: a/b, iops: 0.5 } }]`,
    ['policies[0].limit.disk is "a/b", which is not'],
  ],
  [
    'too often',
    DISK,
    `${DISK}\nmap: { interval: 5 }`,
    ['map.interval is 5: write how often it is written, in ms, 10 to 3600000'],
  ],
  [
    'many at once',
    LEAST,
    'devices: 5\nvolumes: []\nfoo: 1',
    ['1:10 devices is 5', '2:10 volumes is []', '3:1 foo is not known', '1:1 disks is missing'],
  ],
];

test.each(MISTAKES)('%s', async (_, from, to, expected) => {
  expect(LEAST).toContain(from);
  const problems = await problemsOf(LEAST.replace(from, to));
  expect(problems, problems.join('\n')).toHaveLength(expected.length);
  for (const each of expected) expect(problems.join('\n')).toContain(each);
});

test('a file that is not there, or is far too long', async () => {
  expect(await failureOf(readServeConfig(path.join(tmpDir(), 'none')))).toMatchObject({
    code: 'ENOENT',
    layer: 'serve',
  });
  expect(await problemsOf(`${LEAST}#${'x'.repeat(2 ** 20)}`)).toEqual([expect.stringContaining('is longer than')]);
  const bomb = `${LEAST}a0: &a0 [1]\n${Array.from({ length: 9 }, (_, i) => `a${i + 1}: &a${i + 1} [${`*a${i}, `.repeat(9)}]\n`).join('')}`;
  expect((await failureOf(read(bomb))).message).toMatch(/alias/i);
});

test('the systemd unit starts what there is', () => {
  const unit = readFileSync(path.join(checkout, 'examples/stratamap.service'), 'utf8');
  expect(unit).toMatch(/^ExecStart=.*stratamap serve --json \/etc\/stratamap\/host.yaml$/m);
});
