// What `probe.completions()` gives: an iterator over batches, subscribed from that call on until its consumer ends it,
// the probe is detached, or nobody can reach it any more.
import { setTimeout as delay } from 'node:timers/promises';
import { CompletionBatch } from './completions.js';
import type { Names } from './map.js';
import { native, type ProbeHandle } from './native.js';

/** Words of one batch at most: above the longest record. */
const BATCH_WORDS = 65536;
/** While completions come, a consumer that has taken all of them looks again after so many ms, and asks to be woken only
 * where it finds none: being woken for each would cost the I/O thread more than the I/O. */
const GATHER = 1;
/** Words of a buffer that is worth that: of several times what comes meanwhile, at a million a second. */
const GATHERING = 2 ** 17;

/** A consumer's place at a probe. It does not know the consumer, who may so be found to be garbage. */
export class Subscription {
  readonly handle: ProbeHandle;
  readonly words: number;
  #over = false;

  /** `words`: room for what has not been taken yet, a power of two. */
  constructor(handle: ProbeHandle, words: number) {
    native.probeListen(handle, words);
    this.handle = handle;
    this.words = words;
  }

  get over(): boolean {
    return this.#over;
  }

  end(): void {
    if (this.#over) return;
    this.#over = true;
    native.probeUnlisten(this.handle); // wakes a consumer that waits
  }
}

const dropped = new FinalizationRegistry<Subscription>((subscription) => subscription.end());

type Result = IteratorResult<CompletionBatch, undefined>;

/** Completions in batches. A batch and its cursor are reused: they hold until the next batch is asked for. */
export class Completions implements AsyncIterableIterator<CompletionBatch> {
  readonly #subscription: Subscription;
  readonly #detached: () => boolean;
  readonly #words = new Float64Array(BATCH_WORDS);
  readonly #batch: CompletionBatch;
  #flowing = false;
  #last: Promise<Result | undefined> = Promise.resolve(undefined);

  /** @internal */
  constructor(subscription: Subscription, names: Names, detached: () => boolean) {
    this.#subscription = subscription;
    this.#detached = detached;
    this.#batch = new CompletionBatch(this.#words, names);
    dropped.register(this, subscription, this);
  }

  /** Waits for completions. Done when the probe is detached and everything has been taken, or after `return`. */
  next(): Promise<Result> {
    const next = this.#last.then(() => this.#take()); // one after the other, for they share the batch
    this.#last = next;
    return next;
  }

  /** Ends it, also where it was never begun; a `next` that waits is done. Makes room for another consumer. */
  async return(): Promise<IteratorReturnResult<undefined>> {
    this.#end();
    return { done: true, value: undefined };
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#end();
  }

  async #take(): Promise<Result> {
    const { handle } = this.#subscription;
    while (!this.#subscription.over) {
      const last = this.#detached();
      const count = native.probeDrain(handle, this.#words);
      if (count > 0) {
        CompletionBatch.fill(this.#batch, count);
        this.#flowing = this.#subscription.words >= GATHERING;
        return { done: false, value: this.#batch };
      }
      if (last) {
        this.#end();
      } else if (this.#flowing) {
        this.#flowing = false;
        await delay(GATHER);
      } else {
        await native.probeWait(handle);
      }
    }
    return { done: true, value: undefined };
  }

  #end(): void {
    dropped.unregister(this);
    this.#subscription.end();
  }
}
