// `stratamap serve`: a configuration, served until a signal ends it.
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
    await using service = await serveConfig(config);
    const tell = noticesOf(service);
    tell();
    // It also keeps the process, where there are no exports.
    const telling = setInterval(tell, NOTICES);
    process.stdout.write(`${json ? JSON.stringify(readyOf(service)) : textOf(service)}\n`);
    await signal.came;
    clearInterval(telling);
    tell();
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

/** Waits for the first signal; the second then does what it does to any process. */
function firstSignal(): { came: Promise<void>; forget(): void } {
  let first = () => {};
  const came = new Promise<void>((resolve) => (first = resolve));
  const forget = () => {
    for (const name of SIGNALS) process.off(name, handler);
  };
  const handler = () => {
    forget();
    first();
  };
  for (const name of SIGNALS) process.on(name, handler);
  return { came, forget };
}

function readyOf(service: Service) {
  return { ready: true, pid: process.pid, disks: service.disks(), control: service.controlSocket ?? null };
}

function textOf(service: Service): string {
  const disks = service.disks();
  const served = disks.flatMap(({ uris }) => uris);
  const control = service.controlSocket ? `; control socket ${service.controlSocket}` : '';
  return `ready: ${disks.length} ${disks.length === 1 ? 'disk' : 'disks'}, ${served.join(' ') || 'not served'}${control}`;
}
