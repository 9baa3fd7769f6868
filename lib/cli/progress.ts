// What is under way, on stderr, where somebody watches; and how long each phase took.
import { Presets, SingleBar } from 'cli-progress';

export interface Timing {
  phase: string;
  seconds: number;
}

export class Progress {
  readonly timings: Timing[] = [];
  readonly #visible: boolean;

  constructor(visible: boolean) {
    this.#visible = visible && process.stderr.isTTY === true;
  }

  /** Runs one phase of `total` steps; `work` calls its argument for each step, or for several. */
  async phase<T>(name: string, total: number, work: (step: (steps?: number) => void) => Promise<T>): Promise<T> {
    const started = performance.now();
    const bar = this.#visible ? startBar(name, total) : undefined;
    try {
      return await work((steps = 1) => void bar?.increment(steps));
    } finally {
      bar?.stop();
      this.timings.push({ phase: name, seconds: (performance.now() - started) / 1000 });
    }
  }
}

function startBar(name: string, total: number): SingleBar {
  const format = `  ${name.padEnd(34)} {bar} {percentage}%`;
  const bar = new SingleBar(
    { format, barsize: 30, stream: process.stderr, clearOnComplete: true, hideCursor: true, gracefulExit: false },
    Presets.shades_classic,
  );
  bar.start(total, 0);
  return bar;
}
