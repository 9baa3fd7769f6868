// Commands that connect to a running `stratamap serve`, ask it something, and print the answer.
import { Command, Option } from 'commander';
import { type ControlClient, connectControl, type ProbeRequest } from '../index.js';
import { failWith } from './table.js';

const SOCKET = '/run/stratamap/control.sock';

/** What a command prints: an object for --json, or text. */
export interface Answer {
  json: unknown;
  text: string;
}

interface Flags extends ProbeRequest {
  socket: string;
  json?: true;
}

export type Ask<Arguments extends unknown[]> = (
  client: ControlClient,
  flags: Flags,
  ...args: Arguments
) => Promise<Answer>;

/** A command that connects, asks and prints. */
export function asking<Arguments extends unknown[]>(name: string, description: string, ask: Ask<Arguments>): Command {
  const command = new Command(name)
    .description(description)
    .addOption(new Option('--socket <path>', 'the control socket').env('STRATAMAP_SOCKET').default(SOCKET))
    .option('--json', 'print JSON and nothing else')
    .showHelpAfterError(`(see stratamap ${name} --help)`);
  return command.action(async (...given: unknown[]) => {
    const args = given.slice(0, -2) as Arguments; // behind them come the options, and the command
    const flags = command.opts<Flags>();
    try {
      await using client = await connectControl(flags.socket);
      const answer = await ask(client, flags, ...args);
      process.stdout.write(flags.json ? `${JSON.stringify(answer.json, null, 1)}\n` : answer.text);
    } catch (error) {
      failWith(name, error);
    }
  });
}
