// Virtual disks served to real NBD clients by TLS.
import { execFile } from 'node:child_process';
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { attachLoop, type Disk, type NbdServer } from 'stratamap';
import { expect, onTestFinished } from 'vitest';
import { Authority } from '../support/certificates.js';
import { tmpDir, tmpFile } from '../support/files.js';
import { hasLoop, needsProgram } from '../support/machine.js';
import { failureOf, MiB, openStack, pattern } from '../support/stack.js';

const run = promisify(execFile);
const withInfo = needsProgram('NBD by TLS', 'certtool', 'nbdinfo', 'nbdcopy');
const withQemu = needsProgram('NBD by TLS for QEMU', 'certtool', 'qemu-io', 'qemu-img');

const SIZE = 48 * MiB;

/** The URI of a client that has these certificates. */
function uriOf(server: NbdServer, disk: Disk, certificates: string): string {
  const uri = server.uri(disk);
  return `${uri}${uri.includes('?') ? '&' : '?'}tls-certificates=${certificates}`;
}

// On loop devices where they can be had.
async function served(type: string) {
  const paths: string[] = [];
  for (let i = 0; i < (type === 'stripe' ? 2 : 1); ++i) {
    const file = tmpFile(96 * MiB);
    if (!hasLoop) {
      paths.push(file);
      continue;
    }
    const loop = await attachLoop(file, { autoclear: true });
    onTestFinished(() => loop.detach());
    paths.push(loop.path);
  }
  return openStack({ type, paths, diskBytes: SIZE });
}

for (const type of ['extent', 'log', 'stripe']) {
  withInfo(`nbdcopy there and back, volume ${type}: what comes back is what went, and lies on the disk`, async () => {
    const { host, disk } = await served(type);
    const authority = await Authority.make();
    const tls = { ca: authority.ca, ...(await authority.server()) };
    const client = await authority.client();
    const image = path.join(tmpDir(), 'image');
    const data = pattern(SIZE);
    writeFileSync(image, data);
    for (const where of [{ host: 'localhost', port: 0 }, { socket: path.join(tmpDir(), 'tls.sock') }]) {
      const server = await host.serveNbd({ ...where, tls });
      expect(server.uri(disk)).toMatch('socket' in where ? /^nbds\+unix:/ : /^nbds:/);
      const uri = uriOf(server, disk, client);
      await run('nbdcopy', ['--connections=4', '--flush', image, uri]);
      await run('nbdcopy', ['--connections=4', uri, `${image}.back`]);
      expect(readFileSync(`${image}.back`).equals(data)).toBe(true);
      expect(Buffer.from(await disk.read(8 * MiB, MiB)).equals(data.subarray(8 * MiB, 9 * MiB))).toBe(true);
      await server.close();
      await disk.discard(0, SIZE);
    }
  });
}

withQemu('qemu-io and qemu-img by TLS', async () => {
  const { host, disk } = await openStack({ diskBytes: SIZE });
  const authority = await Authority.make();
  const server = await host.serveNbd({
    host: 'localhost',
    port: 0,
    tls: { ca: authority.ca, ...(await authority.server()) },
  });
  const object = ['--object', `tls-creds-x509,id=tls0,endpoint=client,dir=${await authority.client()}`, '--image-opts'];
  const remote = `driver=raw,file.driver=nbd,file.host=localhost,file.port=${server.port},file.export=vm-1/vda,file.tls-creds=tls0`;
  const image = path.join(tmpDir(), 'image');
  writeFileSync(image, pattern(SIZE, 3));
  const local = `driver=raw,file.filename=${image}`;
  await run('qemu-img', ['convert', ...object, '-n', '--target-image-opts', local, remote]);
  await run('qemu-img', ['compare', ...object, local, remote]);
  await run('qemu-io', [...object, '-c', 'write -f -P 7 1M 3M', '-c', 'read -P 7 1M 3M', '-c', 'flush', remote]);
  expect(new Set(await disk.read(MiB, 3 * MiB))).toEqual(new Set([7]));
  expect(await server.counters()).toMatchObject({ violations: 0, stalled: 0, tlsFailed: 0 });
});

withInfo('who speaks no TLS, has no certificate or a stranger’s, does not get in; who does, does', async () => {
  const { host, disk } = await openStack();
  const [authority, strangers] = await Promise.all([Authority.make(), Authority.make()]);
  const identity = await authority.server();
  const server = await host.serveNbd({ host: 'localhost', port: 0, tls: { ca: authority.ca, ...identity } });
  const asks = (uri: string) => run('nbdinfo', ['--size', uri]);
  // The client may have ended before the server has counted it.
  const failures = (count: number) => expect.poll(async () => (await server.counters()).tlsFailed).toBe(count);
  const plain = await failureOf(asks(server.uri(disk).replace('nbds:', 'nbd:')));
  expect(plain.stderr).toMatch(/requires TLS/i);
  await failures(0);

  const nobody = await authority.client(false);
  await failureOf(asks(uriOf(server, disk, nobody)));
  await failures(1);
  const stranger = await strangers.client();
  const unknown = await failureOf(asks(uriOf(server, disk, stranger)));
  expect(unknown.stderr).toMatch(/certificate verification/);
  await failures(2);
  copyFileSync(authority.ca, path.join(stranger, 'ca-cert.pem')); // it takes the server for good, the server it not
  await failureOf(asks(uriOf(server, disk, stranger)));
  await failures(3);

  const { stdout } = await asks(uriOf(server, disk, await authority.client()));
  expect(Number(stdout)).toBe(disk.size);
  const everybody = await host.serveNbd({ host: '0.0.0.0', port: 0, tls: { ...identity, verifyPeer: false } });
  const uri = uriOf(everybody, disk, nobody).replace('0.0.0.0', 'localhost');
  expect(Number((await asks(uri)).stdout)).toBe(disk.size);
});

withInfo('certificates that are no use are refused, and nothing is left of the server', async () => {
  const { host } = await openStack();
  const [authority, strangers] = await Promise.all([Authority.make(), Authority.make()]);
  const good = { ca: authority.ca, ...(await authority.server()) };
  const serve = (tls: object) => host.serveNbd({ socket: path.join(authority.folder, 'sock'), tls: tls as never });
  for (const tls of [1, {}, { ...good, ca: undefined }, { ...good, key: '' }, { ...good, verifyPeer: 'no' }]) {
    expect(await failureOf(serve(tls as object)), JSON.stringify(tls)).toMatchObject({ name: 'TypeError' });
  }
  const missing = await failureOf(serve({ ...good, cert: '/there/is/none' }));
  expect(missing).toMatchObject({ code: 'ENOENT', layer: 'nbd' });
  expect(missing.message).toContain('/there/is/none');
  const { key } = await strangers.server();
  const other = await failureOf(serve({ ...good, key }));
  expect(other).toMatchObject({ code: 'ERR_STRATAMAP_TLS', layer: 'nbd' });
  expect(other.message).toContain(`(${key}) is not that of ${good.cert}`);
  await (await serve(good)).close();
});
