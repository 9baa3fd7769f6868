// `stratamap serve`: a configuration, served until a signal ends it.
import { once } from 'node:events';
import { Command } from 'commander';
import { readServeConfig, type Service, serve as serveConfig } from '../index.js';
import { failWith } from './table.js';

interface Flags {
  check?: true;
  json?: true;
}

const NOTICES = 10_000; // ms
const SIGNALS = ['SIGHUP', 'SIGINT', 'SIGTERM'] as const;

export function serveCommand(): Command {
  return new Command('serve')
    .description('opens the devices, volumes and disks of a configuration, and serves them by NBD')
    .argument('<host.yaml>', 'the configuration')
    .option('--check', 'read and check the configuration, and touch nothing else')
    .option('--json', 'print the line that says what is served as a JSON object')
    .showHelpAfterError('(see stratamap serve --help)')
    .action((file: string, flags: Flags) => run(file, flags).catch((error) => failWith('serve', error)))
    .addHelpText(
      'after',
      `
Once everything is open it prints one line to stdout. SIGTERM, SIGINT or SIGHUP ends it: requests that it has taken are
answered, disks, volumes and map are flushed and closed, and it exits with 0. A second signal ends it at once; what was
flushed before is kept then, as after a crash.

An example of a configuration, and of a systemd unit, is in the package's folder examples/.`,
    );
}

async function run(file: string, { check, json }: Flags): Promise<void> {
  const config = await readServeConfig(file);
  if (check) {
    process.stdout.write(json ? '{"valid":true}\n' : `${file} is valid\n`);
    return;
  }
  const signal = firstSignal();
  try {
    await using service = await serveConfig(config, { signal: signal.aborted });
    if (signal.aborted.aborted) return;
    const tell = noticesOf(service);
    tell();
    // It also keeps the process, where there are no exports.
    const telling = setInterval(tell, NOTICES);
    process.stdout.write(`${json ? JSON.stringify(readyOf(service)) : textOf(service)}\n`);
    await once(signal.aborted, 'abort');
    clearInterval(telling);
    tell();
  } catch (error) {
    if (!signal.aborted.aborted || (error as Error).name !== 'AbortError') throw error;
  } finally {
    signal.forget();
  }
}

/** Prints, each time, the notices that have come since. */
function noticesOf(service: Service): () => void {
  const told = new Set<string>();
  return () => {
    for (const notice of service.notices) {
      if (told.has(notice)) continue;
      told.add(notice);
      console.error(`stratamap serve: ${notice}`);
    }
  };
}

/** Aborted by the first signal; the second then does what it does to any process. */
function firstSignal(): { aborted: AbortSignal; forget(): void } {
  const first = new AbortController();
  const forget = () => {
    for (const name of SIGNALS) process.off(name, handler);
  };
  const handler = () => {
    forget();
    first.abort();
  };
  for (const name of SIGNALS) process.on(name, handler);
  return { aborted: first.signal, forget };
}

function readyOf(service: Service) {
  const control = service.controlSocket ?? null;
  return { ready: true, pid: process.pid, disks: service.disks(), devices: service.devices(), control };
}

function textOf(service: Service): string {
  const disks = service.disks();
  const served = [...disks, ...service.devices()].flatMap(({ uris }) => uris);
  const control = service.controlSocket ? `; control socket ${service.controlSocket}` : '';
  return `ready: ${disks.length} ${disks.length === 1 ? 'disk' : 'disks'}, ${served.join(' ') || 'not served'}${control}`;
}
