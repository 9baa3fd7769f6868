// The NBD server with the probe attached, beside nbdkit's file plugin, qemu-nbd and qemu-storage-daemon: each serves a
// file of its own in memory, all of it written before; QEMU by io_uring, its fastest way there. By fio's nbd engine, whose
// client bounds the throughput, and by a leaner client of ours (native/bench/nbd_client.cc), which shows where a server's
// own bound lies.
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { emptyFile, folderInMemory, isInstalled, options, outputOf, Report, runFio } from './harness.mjs';

const MiB = 2 ** 20;
const DISK = 128 * MiB;
const { quick, only, json } = options();
const seconds = quick ? 0.2 : 0.7;
const report = new Report('nbd', quick ? 2 : 7, only);
const folder = folderInMemory();
const bench = path.resolve(import.meta.dirname, '../../out/plain/bench');
const tick = 1e9 / Number(spawnSync('getconf', ['CLK_TCK'], { encoding: 'utf8' }).stdout);

const PEERS = [
  {
    name: 'nbdkit, file plugin',
    install: 'apt-get install nbdkit',
    command: (socket, file) => ['nbdkit', '--foreground', '--unix', socket, 'file', file],
  },
  {
    name: 'qemu-nbd',
    install: 'apt-get install qemu-utils',
    command: (socket, file) => [
      'qemu-nbd',
      '--format=raw',
      '--aio=io_uring',
      `--socket=${socket}`,
      '--persistent',
      '--shared=64',
      file,
    ],
  },
  {
    name: 'qemu-storage-daemon',
    install: 'apt-get install qemu-system-common',
    command: (socket, file) => [
      'qemu-storage-daemon',
      '--blockdev',
      `driver=file,node-name=file,aio=io_uring,filename=${file}`,
      '--blockdev',
      'driver=raw,node-name=disk,file=file',
      '--nbd-server',
      `addr.type=unix,addr.path=${socket},max-connections=64`,
      '--export',
      'type=nbd,id=export,node-name=disk,writable=on',
    ],
    exportName: 'disk',
  },
];

// --- servers
const running = [];
process.once('exit', () => {
  for (const { child } of running) child.kill('SIGKILL');
});
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(1));

async function start(name, [program, ...words], socket, exportName = '') {
  const child = spawn(program, words, { stdio: ['ignore', 'ignore', 'inherit'] });
  running.push({ child });
  for (let i = 0; !existsSync(socket); ++i) {
    if (child.exitCode !== null || i > 500)
      throw new Error(`${name} did not begin to serve: ${[program, ...words].join(' ')}`);
    await delay(10);
  }
  await delay(100);
  const server = { name, pid: child.pid, socket, exportName };
  lean(server, 'write', 1, 8, ['--block', String(MiB)]); // what was never written would be read from nowhere
  return server;
}

/** CPU time that a process has spent so far, ns; that of its io_uring's workers is among it. */
function cpuOf(pid) {
  const words = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ');
  return (Number(words[11]) + Number(words[12])) * tick;
}

// --- clients
function fio(server, pattern, depth) {
  const uri = `nbd+unix:///${server.exportName}?socket=${server.socket}`;
  return runFio(pattern, seconds, { ioengine: 'nbd', uri, size: DISK, iodepth: depth });
}

function lean(server, pattern, connections, depth, more = []) {
  const words = { unix: server.socket, export: server.exportName, pattern, connections, depth, seconds };
  return outputOf(
    path.join(bench, 'bench_nbd_client'),
    Object.entries(words)
      .flatMap(([key, value]) => [`--${key}`, String(value)])
      .concat(more),
  );
}

function measured(server, client) {
  const before = cpuOf(server.pid);
  const { operations, ns } = client(server);
  const cpu = cpuOf(server.pid) - before;
  return {
    IOPS: (operations / ns) * 1e9,
    'CPU of the server': cpu / operations,
    'processors it kept busy': cpu / ns,
  };
}

const MEASURES = [
  { name: 'IOPS', unit: 'IOPS' },
  { name: 'CPU of the server', unit: 'ns an I/O' },
  { name: 'processors it kept busy', unit: '' },
];

// The first row is the best of the peers in each round, in IOPS and in CPU, though they be two: what ours is compared with.
function contenders(client, goals) {
  const found = new Map();
  const best = () => {
    for (const peer of peers) found.set(peer, measured(peer, client));
    const all = [...found.values()];
    const fastest = all.reduce((one, other) => (other.IOPS > one.IOPS ? other : one));
    return { ...fastest, 'CPU of the server': Math.min(...all.map((figures) => figures['CPU of the server'])) };
  };
  const mine = { name: ours.name, round: () => measured(ours, client) };
  if (peers.length === 0) return [mine];
  return [
    { name: 'best peer', round: best },
    ...peers.map((peer) => ({ name: peer.name, round: () => found.get(peer) })),
    { ...mine, goals },
  ];
}

const least = (is) => ({ ratio: 'least', is });
const most = (is) => ({ ratio: 'most', is });

// --- the benchmark
const mineAt = path.join(folder, 'ours.sock');
const device = emptyFile(folder, 'ours', 2 * DISK);
const words = ['--device', device, '--size', DISK, '--unix', mineAt, '--probe'].map(String);
const ours = await start('stratamap, probe attached', [path.join(bench, 'bench_nbd_serve'), ...words], mineAt);
const peers = [];
for (const { name, install, command, exportName } of PEERS) {
  const id = name.split(',')[0];
  if (!isInstalled(id)) {
    report.skip(name, install);
    continue;
  }
  const socket = path.join(folder, `${id}.sock`);
  peers.push(await start(name, command(socket, emptyFile(folder, id, DISK)), socket, exportName));
}
const hasFio = isInstalled('fio') && spawnSync('fio', ['--enghelp=nbd']).status === 0;
if (!hasFio) report.skip('fio with its nbd engine', 'apt-get install fio');

for (const pattern of ['randread', 'randwrite']) {
  for (const depth of hasFio ? [1, 32, 128] : []) {
    const goals = depth === 1 ? { IOPS: least(0.98) } : { IOPS: least(1.1), 'CPU of the server': most(0.5) };
    await report.run({
      name: `fio, ${pattern}, depth ${depth}`,
      measures: MEASURES,
      contenders: contenders((server) => fio(server, pattern, depth), goals),
    });
  }
  for (const [connections, depth] of [
    [1, 1],
    [1, 128],
    [16, 32],
  ]) {
    await report.run({
      name: `lean client, ${pattern}, ${connections} × depth ${depth}`,
      measures: MEASURES,
      contenders: contenders((server) => lean(server, pattern, connections, depth)),
    });
  }
}

for (const { child } of running) {
  if (child.exitCode !== null || child.signalCode !== null) continue;
  const ended = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGTERM');
  await ended;
}
for (const line of report.missed()) console.log(`goal missed: ${line}`);
report.write(json);
