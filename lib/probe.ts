// The probe: ties what virtual disks are asked to what devices are asked.
import * as check from './arguments.js';
import { CompletionBatch } from './completions.js';
import { StratamapError } from './errors.js';
import { Handle } from './handle.js';
import { type AddressMap, mapHandle, mapNames, type Names } from './map.js';
import { type HostHandle, native, type ProbeHandle } from './native.js';

/** How a context is found again from a request below: see design.md's associations. */
export type Association = 'serial' | 'tag';
/** When: looked up on the way down. */
export type Correlation = 'descend';

export interface ProbeOptions {
  /** A map is fed by one probe at a time. */
  map: AddressMap;
  /** Default `serial`. */
  association?: Association | undefined;
  /** Default `descend`. */
  correlation?: Correlation | undefined;
  /** Contexts in flight, and pieces of evidence: 64 to 2^22. Default 65536. */
  capacity?: number | undefined;
}

export interface ProbeStats {
  /** Requests above, with a context. */
  recorded: number;
  /** Requests above that went on without one. */
  unrecorded: number;
  /** Requests below for which there was no room. */
  evidenceLost: number;
  /** Requests given up whole, because too many parts of them were in doubt. */
  taintOverflow: number;
  /** How often everything became stale and learning began anew, because something was lost. */
  losses: number;
  /** Completions that nobody took in time. */
  eventsDropped: number;
}

export interface CompletionOptions {
  /** Room for completions that have not been taken yet, bytes. Default 8 MiB; a completion takes 128 or so. */
  bufferBytes?: number | undefined;
}

/** Words of one batch at most: above the longest record. */
const BATCH_WORDS = 65536;
const fed = new WeakSet<AddressMap>();

class Probe extends Handle {
  readonly #handle: ProbeHandle;
  readonly #names: Names;
  readonly #map: AddressMap;
  readonly association: Association;
  readonly correlation: Correlation;
  #timeout = 10_000;
  #complete = true;
  #detached = false;
  #listening = false;

  constructor(handle: ProbeHandle, map: AddressMap, association: Association, correlation: Correlation) {
    super();
    this.#handle = handle;
    this.#map = map;
    this.#names = mapNames(map);
    this.association = association;
    this.correlation = correlation;
  }

  /** Whether what passes now teaches: not before everything has ended that was in flight at attach. */
  get learning(): boolean {
    return native.probeState(this.#handle).learning;
  }

  get stats(): ProbeStats {
    const { learning: _, ...stats } = native.probeState(this.#handle);
    return stats;
  }

  /**
   * What the disks complete from this call on, in batches. A batch and its cursor are reused: they hold until the next
   * batch is asked for. Ends when the probe is detached and everything has been taken. Completions that are not taken in
   * time are dropped, and counted in `stats.eventsDropped`. One consumer at a time.
   */
  completions(options: CompletionOptions = {}): AsyncGenerator<CompletionBatch, void, undefined> {
    this.use();
    const bufferBytes = check.object(options, 'options').bufferBytes ?? 2 ** 23;
    check.integer(bufferBytes, 'bufferBytes', 2 ** 16, 2 ** 31);
    if (this.#listening) {
      throw new StratamapError('completions() has a consumer already: end it first', 'ERR_STRATAMAP_BUSY', {
        layer: 'probe',
      });
    }
    native.probeListen(this.#handle, 2 ** Math.floor(Math.log2(bufferBytes / 8)));
    this.#listening = true;
    return this.#drain();
  }

  /**
   * Takes the probe out, with I/O in flight; everything in the map becomes stale. Resolves to true when nothing runs
   * inside it any more, or to false after `timeout` ms, the probe passing everything through.
   */
  async detach(options: { timeout?: number | undefined } = {}): Promise<boolean> {
    const { timeout = this.#timeout } = check.object(options, 'options');
    this.#timeout = check.number(timeout, 'timeout', 0, 1e9);
    await this.close();
    return this.#complete;
  }

  protected override describe() {
    return { layer: 'probe', what: 'the probe' };
  }

  protected override async closeNative(): Promise<void> {
    this.#complete = await native.detachProbe(this.#handle, Math.round(this.#timeout * 1e6));
    this.#detached = true;
    fed.delete(this.#map);
  }

  async *#drain(): AsyncGenerator<CompletionBatch, void, undefined> {
    const words = new Float64Array(BATCH_WORDS);
    const batch = new CompletionBatch(words, this.#names);
    try {
      for (;;) {
        const last = this.#detached;
        const count = native.probeDrain(this.#handle, words);
        if (count > 0) {
          CompletionBatch.fill(batch, count);
          yield batch;
        } else if (last) {
          return;
        } else {
          await native.probeWait(this.#handle);
        }
      }
    } finally {
      native.probeUnlisten(this.#handle);
      this.#listening = false;
    }
  }
}

export type { Probe };

function unsupported(what: string, value: string, allowed: readonly string[]): StratamapError {
  return new StratamapError(
    `there is no ${what} ${JSON.stringify(value)}: use one of ${allowed.join(', ')}`,
    'ERR_STRATAMAP_UNSUPPORTED',
    { layer: 'probe' },
  );
}

export async function attachProbe(host: HostHandle, options: ProbeOptions): Promise<Probe> {
  const { map, association = 'serial', correlation = 'descend', capacity = 65536 } = check.object(options, 'options');
  const handle = mapHandle(map);
  const known = native.associations();
  const name = check.string(association, 'association');
  const found = Object.hasOwn(known, name) ? known[name] : undefined;
  if (found === undefined) throw unsupported('association', association, Object.keys(known));
  if (!found.correlations.includes(check.string(correlation, 'correlation'))) {
    throw unsupported(`correlation for association ${association} that is called`, correlation, found.correlations);
  }
  check.integer(capacity, 'capacity', 64, 2 ** 22);
  if (fed.has(map)) {
    throw new StratamapError(
      'the map is fed by a probe already: detach that, or open another map',
      'ERR_STRATAMAP_BUSY',
      {
        layer: 'probe',
      },
    );
  }
  fed.add(map);
  try {
    return new Probe(
      await native.attachProbe(host, handle, association, correlation, capacity),
      map,
      association,
      correlation,
    );
  } catch (error) {
    fed.delete(map);
    throw error;
  }
}
