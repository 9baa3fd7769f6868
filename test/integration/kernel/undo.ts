// What a stack has set up, and how it is undone: by a shell of its own, which waits for the end of its input. So the same
// commands run however the test ends, and also where its process is killed.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Writable } from 'node:stream';

const WAITER = `
trap '' HUP INT TERM
undo=
while IFS= read -r line; do
  undo="$line
$undo"
done
printf %s "$undo" | {
  failed=0
  while IFS= read -r line; do
    tries=100
    until said=$(sh -c "$line" 2>&1); do
      tries=$((tries - 1))
      if [ $tries -eq 0 ]; then echo "cannot undo: $line: $said" >&2; failed=1; break; fi
      sleep 0.05
    done
  done
  exit $failed
}`;

const quoted = (word: string) => `'${word.replaceAll("'", "'\\''")}'`;

export class Undo {
  readonly #shell: ChildProcess;
  readonly #ended: Promise<unknown[]>;
  #said = '';

  constructor() {
    // Detached: a signal to the test's process group is none to it.
    this.#shell = spawn('sh', ['-c', WAITER], { stdio: ['pipe', 'ignore', 'pipe'], detached: true });
    this.#shell.stderr?.on('data', (data) => {
      this.#said += data;
    });
    this.#ended = once(this.#shell, 'close');
  }

  /** A command that undoes something, tried again while it fails, for five seconds. The last added runs first. */
  add(...command: string[]): void {
    (this.#shell.stdin as Writable).write(`${command.map(quoted).join(' ')}\n`);
  }

  /** Undoes everything. Rejects with what could not be undone, when the rest has been. */
  async run(): Promise<void> {
    (this.#shell.stdin as Writable).end();
    const [code] = await this.#ended;
    if (code !== 0) throw new Error(this.#said || `the shell that undoes ended with ${code}`);
  }
}
