// What every handle has in common: it is closed once, with everything that was opened from it, and then refuses.
import { closed, type ErrorDetails, StratamapError } from './errors.js';

export abstract class Handle {
  #closing: Promise<void> | undefined;
  readonly #children = new Set<Handle>();
  readonly #opening = new Set<Promise<unknown>>();
  #parent: Handle | undefined;

  /** For the message: 'the host', 'device d0'. */
  protected abstract describe(): { layer: string; what: string; details?: ErrorDetails };
  protected abstract closeNative(): Promise<void>;
  /** Children are closed in ascending order of this; those below 0 before what was asked for has ended, too. */
  protected get rank(): number {
    return 0;
  }

  /** Whether the handle was closed, or is being closed. */
  get closed(): boolean {
    return this.#closing !== undefined;
  }

  /**
   * Closes the handle, after everything that was opened from it. What was asked of it before ends first. A second call
   * is the same as the first. Where it is refused because something is in use (`ERR_STRATAMAP_BUSY`), the handle stays
   * open.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Throws where the handle is closed. */
  protected use(): void {
    if (this.#closing === undefined) return;
    const { layer, what, details } = this.describe();
    throw closed(layer, what, details);
  }

  /** A child that is being opened: it is closed with this handle, also if this one is closed in the meantime. */
  protected async adopt<T extends Handle>(opening: Promise<T>): Promise<T> {
    this.#opening.add(opening);
    try {
      const child = await opening;
      (child as Handle).#parent = this;
      this.#children.add(child);
      return child;
    } finally {
      this.#opening.delete(opening);
    }
  }

  async #close(): Promise<void> {
    const failures: unknown[] = [];
    const closeChildren = async (below: number) => {
      const children = [...this.#children].filter(({ rank }) => rank < below).sort((a, b) => a.rank - b.rank);
      const closeOne = (child: Handle) => child.close().catch((error: unknown) => failures.push(error));
      // What one of those below 0 waits for may be held back by another.
      if (below === 0) await Promise.all(children.map(closeOne));
      else for (const child of children) await closeOne(child);
    };
    for (await closeChildren(0); this.#opening.size > 0; await closeChildren(0)) {
      await Promise.race([...this.#opening].map((each) => each.catch(() => {})));
    }
    await closeChildren(Number.POSITIVE_INFINITY);
    await this.closeNative().catch((error: unknown) => {
      if (error instanceof StratamapError && error.code === 'ERR_STRATAMAP_BUSY') this.#closing = undefined;
      failures.push(error);
    });
    if (this.closed && this.#parent !== undefined) this.#parent.#children.delete(this);
    if (failures.length > 0) throw failures[0];
  }
}
