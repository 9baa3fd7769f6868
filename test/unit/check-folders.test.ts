import { spawnSync } from 'node:child_process';
import { appendFileSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { checkout, copySources } from '../support/checkout.js';

function check(root: string) {
  const { status, stdout } = spawnSync(path.join(checkout, 'scripts/check-folders.mjs'), [root], { encoding: 'utf8' });
  return { status, stdout };
}

test('the checkout keeps to the folder table', () => {
  expect(check(checkout)).toEqual({ status: 0, stdout: 'check-folders: no violation\n' });
});

describe('in a doctored copy', () => {
  const volumes = path.join(checkout, 'native/host/volumes');
  const volume = `native/host/volumes/${readdirSync(volumes).find((name) => name.endsWith('.cc'))}`;
  const doctored: [file: string, line: string, complaint: string][] = [
    [volume, '#include "map/address_map.h"', 'native/host/volumes/ may not use native/map/'],
    [volume, '#include "engine/io_thread.h"', 'native/host/volumes/ may not use native/host/engine/'],
    [volume, '#include "../../map/ledger.h"', 'native/host/volumes/ may not use native/map/'],
    ['native/host/host.h', '#include "intercept/probe.h"', 'native/host/ may not use native/intercept/'],
    ['native/host/host.h', '#include <liburing.h>', 'which only native/sys/ may'],
    ['native/host/host.h', '#include <napi.h>', 'which only native/binding/ may'],
    ['native/host/engine/io_thread.h', '#include "host.h"', 'native/host/engine/ may not use native/host/'],
    ['native/map/ledger.h', '#include <stratamap/request.h>', 'native/map/ may not use native/include/stratamap/'],
    ['test/oracle/doctored.cc', '#include "correlate/evidence.h"', 'test/oracle/ may not use native/correlate/'],
    ['lib/index.ts', "import './cli/main.js';", 'nothing may use lib/cli/'],
    ['lib/index.ts', "require('node-gyp-build');", 'lib/native.ts alone loads the addon'],
    ['lib/cli/main.ts', "import { native } from '../native.js';", 'lib/cli/ may use only what lib/index.ts exports'],
    ['native/include/stratamap/volume.h', 'using sm_alias = int;', 'does not compile alone as c11'],
    ['native/include/stratamap/volume.h', 'struct class { int x; };', 'does not compile alone as c++20'],
    ['native/map/forgotten.cc', '', 'not in native/sources.json'],
  ];
  let found: ReturnType<typeof check>;

  beforeAll(() => {
    const copy = mkdtempSync(path.join(tmpdir(), 'stratamap-'));
    try {
      copySources(copy);
      for (const [file, line] of doctored) appendFileSync(path.join(copy, file), `\n${line}\n`);
      found = check(copy);
    } finally {
      rmSync(copy, { recursive: true });
    }
  });

  test.each(doctored)('%s: «%s» is a violation', (file, line, complaint) => {
    const about = found.stdout.split('\n').filter((text) => text.startsWith(file) && text.includes(complaint));
    const included = /["'<](.*)[>"']/.exec(line)?.[1] ?? '';
    expect(about.join('\n'), found.stdout).toContain(included);
    expect(about).not.toEqual([]);
  });

  test('it fails', () => expect(found.status).toBe(1));
});
