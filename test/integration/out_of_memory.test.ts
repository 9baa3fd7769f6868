// Calls that run out of memory half-way: they fail, and leave nothing behind. A preloaded library lets the addon's n-th
// large allocation fail; n is in a file, so that a test can set it.
import { execFileSync, spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { expect } from 'vitest';
import { checkout } from '../support/checkout.js';
import { tmpDir } from '../support/files.js';
import { needsProgram } from '../support/machine.js';

/** Of the allocations that may fail, bytes: those of the probe's tables, and of what a map has for each disk and device. */
const SMALLEST = 8192;
const DEVICES = ['d0', 'd1'];
const VMS = ['a', 'b'];

const FAILING_NEW = `
  #include <dlfcn.h>
  #include <fcntl.h>
  #include <new>
  #include <stdlib.h>
  #include <string.h>
  #include <sys/mman.h>
  static int *left() {
    static int *at = static_cast<int *>(
        mmap(nullptr, sizeof(int), PROT_READ | PROT_WRITE, MAP_SHARED, open(getenv("SM_FAILING_NEW"), O_RDWR), 0));
    return at;
  }
  static bool ours(void *caller) {
    Dl_info info;
    return dladdr(caller, &info) && strstr(info.dli_fname, ".node");
  }
  void *operator new(size_t size) {
    if (size >= ${SMALLEST} && __atomic_load_n(left(), __ATOMIC_ACQUIRE) > 0 && ours(__builtin_return_address(0)) &&
        __atomic_sub_fetch(left(), 1, __ATOMIC_ACQ_REL) == 0) {
      throw std::bad_alloc();
    }
    void *memory = malloc(size ? size : 1);
    if (!memory) throw std::bad_alloc();
    return memory;
  }
  void operator delete(void *memory) noexcept { free(memory); }
  void operator delete(void *memory, size_t) noexcept { free(memory); }`;

needsProgram('failing allocations', 'c++')('attachProbe that runs out of memory leaves no probe behind', () => {
  const folder = tmpDir();
  const file = (name: string, content: string | Buffer = '') => {
    writeFileSync(path.join(folder, name), content);
    return path.join(folder, name);
  };
  const library = file('failing_new.so');
  execFileSync('c++', ['-shared', '-fPIC', '-O1', '-o', library, file('failing_new.cc', FAILING_NEW)]);
  const left = file('left', Buffer.alloc(4));
  const script = file(
    'child.cjs',
    `const { openHost, openMap } = require(${JSON.stringify(path.join(checkout, 'dist/index.js'))});
    const { openSync, writeSync } = require('node:fs');
    const fd = openSync(${JSON.stringify(left)}, 'r+');
    const failAt = (n) => writeSync(fd, Int32Array.of(n), 0, 4, 0);
    (async () => {
      const host = await openHost();
      const devices = [];
      for (const name of ${JSON.stringify(DEVICES)}) {
        devices.push(await host.openDevice({ name, driver: 'null', size: 2 ** 26 }));
      }
      await host.formatVolume({ type: 'stripe', devices });
      const volume = await host.openVolume({ name: 'v0', type: 'stripe', devices });
      const disks = [];
      for (const vm of ${JSON.stringify(VMS)}) disks.push(await volume.createDisk({ vm, name: 'vda', size: 2 ** 20 }));
      for (let failed = 0; ; ++failed) {
        const map = await openMap();
        failAt(failed + 1);
        const probe = await host.attachProbe({ map, capacity: 64 }).catch((error) => error);
        failAt(0);
        while (probe.learning === false) await new Promise((resolve) => setTimeout(resolve, 1));
        for (const disk of disks) await disk.write(0, Buffer.alloc(2 ** 20));
        console.log(probe.code ?? 'attached', map.locate('a/vda', 0, 4096)[0].state);
        if (probe.code === undefined) break;
        await (await host.attachProbe({ map: await openMap(), capacity: 64 })).detach();
      }
      await host.close();
    })();`,
  );
  const { status, signal, stdout, stderr } = spawnSync(process.execPath, [script], {
    encoding: 'utf8',
    // What is freed is overwritten, so that its use shows.
    env: {
      ...process.env,
      ...{ LD_PRELOAD: library, SM_FAILING_NEW: left, MALLOC_PERTURB_: '165' },
      ...{ FORCE_COLOR: undefined, NO_COLOR: undefined },
    },
    timeout: 60_000,
    killSignal: 'SIGKILL',
  });
  expect({ status, signal, stderr }).toEqual({ status: 0, signal: null, stderr: '' });
  const lines = stdout.trimEnd().split('\n');
  expect(lines.pop()).toBe('attached mapped');
  expect(lines.length).toBeGreaterThan(DEVICES.length + VMS.length);
  expect(new Set(lines)).toEqual(new Set(['ENOMEM unknown']));
});
