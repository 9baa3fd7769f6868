// `stratamap doctor`.
import { execFile } from 'node:child_process';
import path from 'node:path';
import { promisify } from 'node:util';
import { type MachineReport, openHost } from 'stratamap';
import { expect, test } from 'vitest';
import { checkout } from '../support/checkout.js';
import { hasLoop, needsProgram } from '../support/machine.js';
import { stratamap } from '../support/serve.js';

const run = promisify(execFile);
const withSetpriv = needsProgram('stratamap doctor without capabilities', 'setpriv');

const factOf = ({ facts }: MachineReport, name: string) => facts.find((each) => each.name === name);

test('doctor tells what this machine has', async () => {
  const { code, stdout } = await stratamap(['doctor', '--json']);
  expect(code).toBe(0);
  const report = JSON.parse(stdout) as MachineReport;
  expect(factOf(report, 'loop devices')?.state).toBe(hasLoop ? 'present' : 'absent');
  const host = await openHost();
  const refused = host.notices.some((notice) => notice.startsWith('io_uring'));
  await host.close();
  expect(factOf(report, 'io_uring')?.state).toBe(refused ? 'absent' : 'present');
  for (const { name, state, found, for: what, follows } of report.facts) {
    expect(found, name).not.toBe('');
    expect(what, name).not.toBe('');
    if (state !== 'present') expect(follows, name).not.toBe('');
  }
  const text = (await stratamap(['doctor'])).stdout;
  for (const { found } of report.facts) expect(text).toContain(found);
});

withSetpriv('doctor tells what a process without capabilities lacks', async () => {
  const command = [process.execPath, path.join(checkout, 'dist/cli/main.js'), 'doctor', '--json'];
  // Who is not root has none to drop.
  const [program, ...args] = process.geteuid?.() === 0 ? ['setpriv', '--bounding-set=-all', ...command] : command;
  const { stdout } = await run(program as string, args);
  const report = JSON.parse(stdout) as MachineReport;
  for (const name of ['CAP_SYS_ADMIN', 'CAP_IPC_LOCK', 'CAP_PERFMON', 'CAP_BPF', 'loop devices']) {
    expect(factOf(report, name), name).toMatchObject({ state: 'absent', follows: expect.stringMatching(/./) });
  }
});
