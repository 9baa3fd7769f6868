// What has to be undone, in reverse order, however the demo ends.

export class Cleanup {
  readonly #steps: { what: string; undo: () => unknown }[] = [];

  /** `undo` runs at the end; `what` completes "cannot …" if it fails. */
  add(what: string, undo: () => unknown): void {
    this.#steps.push({ what, undo });
  }

  /** Undoes everything, whatever fails. Returns what failed. */
  async run(): Promise<string[]> {
    const failures: string[] = [];
    for (let step = this.#steps.pop(); step; step = this.#steps.pop()) {
      try {
        await step.undo();
      } catch (error) {
        failures.push(`cannot ${step.what}: ${error instanceof Error ? error.message : error}`);
      }
    }
    return failures;
  }
}
