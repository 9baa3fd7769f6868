#!/usr/bin/env node
// Loads the addon that cmake-js has built below the given folder, without liburing, and does one I/O through it.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';

process.env.STRATAMAP_PREBUILD = path.resolve(process.argv[2]); // where node-gyp-build looks first
const require = createRequire(import.meta.url);
const { openHost } = require('../dist/index.js');
const loaded = Object.keys(require.cache).filter((file) => file.endsWith('.node'));
assert.deepEqual(loaded, [path.join(process.env.STRATAMAP_PREBUILD, 'build/Release/stratamap_native.node')]);

const folder = mkdtempSync(path.join(tmpdir(), 'stratamap-cmake-js-'));
try {
  const file = path.join(folder, 'disk.img');
  writeFileSync(file, '');
  truncateSync(file, 64 * 2 ** 20);
  const host = await openHost({ threads: 1 });
  assert.match(host.notices.join('\n'), /liburing/);
  const device = await host.openDevice({ name: 'd0', path: file });
  assert.equal(device.driver, 'posix');
  await host.formatVolume({ type: 'extent', devices: [device] });
  const volume = await host.openVolume({ name: 'v0', type: 'extent', devices: [device] });
  const disk = await volume.createDisk({ vm: 'vm-1', name: 'vda', size: 2 ** 20 });
  await disk.write(4096, Buffer.alloc(4096, 7));
  assert.deepEqual(Buffer.from(await disk.read(4096, 4096)), Buffer.alloc(4096, 7));
  await host.close();
} finally {
  rmSync(folder, { recursive: true });
}
console.log('cmake-js: the addon loads and works');
