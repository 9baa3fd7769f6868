// The probe: ties what virtual disks are asked to what devices are asked.
import * as check from './arguments.js';
import { enlist } from './chain.js';
import { Completions, Subscription } from './completion_iterator.js';
import { StratamapError, wrongType } from './errors.js';
import { Handle } from './handle.js';
import { type AddressMap, mapHandle, mapNames, type Names } from './map.js';
import { type HostHandle, native, type ProbeHandle } from './native.js';

/**
 * How a request above is found again from one below. By what a clone carries of its parent: the context itself in unused
 * fields (`inline`) or in the room behind the request (`extended`), a `pointer` to it, the host's `serial` number, a
 * `tag` that we add. By the payload's memory `address`, as long as it is not copied. By the payload itself, `content`:
 * it survives copying, and what is found so is `shared`. (US 8,886,867; `content` goes beyond it.) Through the kernel's
 * own stack, by a `hint` in the I/O priority: of the disks of volumes of type `kernel`; needs root, or CAP_BPF and
 * CAP_PERFMON.
 */
export type Association = 'inline' | 'extended' | 'pointer' | 'serial' | 'address' | 'tag' | 'content' | 'hint';
/**
 * When: `descend`, looked up when the request below is issued; `meet`, when it completes; `ascend`, collected when the
 * request above completes, nothing being recorded before but the callback.
 */
export type Correlation = 'descend' | 'ascend' | 'meet';

export interface AssociationInfo {
  /** What of a request it needs to survive the volume. */
  carrier: string;
  correlations: Correlation[];
  /** Whether it goes through the kernel's stack, beneath this process. */
  kernel: boolean;
}

/** The associations that there are, and the correlations that each allows. */
export function associations(): Record<Association, AssociationInfo> {
  return native.associations() as Record<Association, AssociationInfo>;
}

export interface ProbeOptions {
  /** A map is fed by one probe at a time. */
  map: AddressMap;
  /** Default `serial`. */
  association?: Association | undefined;
  /** Default `descend`. */
  correlation?: Correlation | undefined;
  /** Contexts recorded at once; in `ascend`, requests below that wait for theirs: 64 to 2^22. Default 65536. */
  capacity?: number | undefined;
  /**
   * Of `hint`: `adaptive` tags only what the map does not know for certain, so that the kernel goes on merging the rest;
   * `always`, every request. Default `adaptive`.
   */
  tagging?: Tagging | undefined;
  /** Of `adaptive`: what was not tagged for so long is, ms. 1 to 1e9, default 600000. */
  maxAge?: number | undefined;
  /**
   * Of `hint`: the levels of the best-effort class, 0 to 7, whose hints serve as tags, up to 1015 in each. Others than
   * 4, the default, change how bfq and mq-deadline schedule. Default [4].
   */
  levels?: readonly number[] | undefined;
}

export type Tagging = 'always' | 'adaptive';

export interface KernelStats {
  /** Requests whose pieces added up, on every device. */
  composed: number;
  /** Requests with a device on which bytes were missing, … */
  missing: number;
  /** … or on which there were more bytes than asked for, … */
  excess: number;
  /** … or on which a piece lay across two requests of the device above, … */
  crossing: number;
  /** … or that several threads had passed on from there, in an order that is not known. */
  unordered: number;
  /** Pieces of another operation, or on another device, than their request's. */
  foreign: number;
  /** Requests without a tag that went where the map said. */
  predicted: number;
  /** Requests without a tag that cannot be said to have gone there. */
  astray: number;
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
  /** Of `hint`: how the kernel's I/O of requests added up. */
  kernel: KernelStats;
  /** Completions that nobody took in time. */
  eventsDropped: number;
}

export interface CompletionOptions {
  /** Room for completions that have not been taken yet, bytes. Default 8 MiB; a completion takes 128 or so. */
  bufferBytes?: number | undefined;
}

const DETACH_TIMEOUT = 10_000; // ms

/** The maps that a probe feeds. */
const fed = new WeakSet<AddressMap>();

/** A probe that nobody can reach any more is detached; then its map may be fed by another. */
const dropped = new FinalizationRegistry<{ handle: ProbeHandle; map: AddressMap }>(({ handle, map }) => {
  const freed = () => void fed.delete(map);
  detachNative(handle, DETACH_TIMEOUT).then(freed, freed);
});

const detachNative = (handle: ProbeHandle, timeout: number) => native.detachProbe(handle, Math.round(timeout * 1e6));

class Probe extends Handle {
  readonly #handle: ProbeHandle;
  readonly #names: Names;
  readonly #map: AddressMap;
  readonly association: Association;
  readonly correlation: Correlation;
  #timeout = DETACH_TIMEOUT;
  #complete = true;
  #detached = false;
  #subscription: Subscription | undefined;

  constructor(handle: ProbeHandle, map: AddressMap, association: Association, correlation: Correlation) {
    super();
    this.#handle = handle;
    this.#map = map;
    this.#names = mapNames(map);
    this.association = association;
    this.correlation = correlation;
    enlist(this, { handle, probe: true });
    dropped.register(this, { handle, map }, this);
  }

  /** Whether what passes now teaches: not before everything has ended that was in flight at attach. */
  get learning(): boolean {
    return native.probeState(this.#handle).learning;
  }

  get stats(): ProbeStats {
    const { learning: _, ...stats } = native.probeState(this.#handle);
    return stats;
  }

  /** What the user should know: that some disk or device is not mapped, and why. One sentence each. */
  get notices(): string[] {
    return native.probeNotices(this.#handle);
  }

  /**
   * What the disks complete from this call on, in batches: what comes after a pause at once, then what came in each
   * millisecond or two. A batch and its cursor are reused: they hold until the next batch is asked for. Ends when the
   * probe is detached and everything has been taken. Completions that are not taken in time are dropped, and counted in
   * `stats.eventsDropped`. One consumer at a time: it makes room for the next when it leaves its `for await`, or calls
   * `return`.
   */
  completions(options: CompletionOptions = {}): Completions {
    this.use();
    const bufferBytes = check.object(options, 'options').bufferBytes ?? 2 ** 23;
    check.integer(bufferBytes, 'bufferBytes', 2 ** 16, 2 ** 31);
    if (this.#subscription?.over === false) {
      throw new StratamapError('completions() has a consumer already: end it first', 'ERR_STRATAMAP_BUSY', {
        layer: 'probe',
      });
    }
    this.#subscription = new Subscription(this.#handle, 2 ** Math.floor(Math.log2(bufferBytes / 8)));
    return new Completions(this.#subscription, this.#names, () => this.#detached);
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
    try {
      this.#complete = await detachNative(this.#handle, this.#timeout);
    } catch (error) {
      this.#subscription?.end(); // nobody else wakes its consumer
      throw error;
    } finally {
      // Also where detaching has failed: it stops to learn before anything that can fail.
      this.#detached = true;
      fed.delete(this.#map);
      dropped.unregister(this);
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
  const { tagging = 'adaptive', maxAge = 600_000, levels = [4] } = options;
  const handle = mapHandle(map);
  const known = native.associations();
  const name = check.string(association, 'association');
  const found = Object.hasOwn(known, name) ? known[name] : undefined;
  if (found === undefined) throw unsupported('association', association, Object.keys(known));
  if (!found.correlations.includes(check.string(correlation, 'correlation'))) {
    throw unsupported(`correlation for association ${association} that is called`, correlation, found.correlations);
  }
  check.integer(capacity, 'capacity', 64, 2 ** 22);
  for (const key of ['tagging', 'maxAge', 'levels'] as const) {
    if (association !== 'hint' && options[key] !== undefined)
      throw wrongType(`${key} is for association hint alone`, 'ERR_INVALID_ARG_VALUE');
  }
  check.oneOf(tagging, 'tagging', ['always', 'adaptive']);
  check.number(maxAge, 'maxAge', 1, 1e9);
  if (!Array.isArray(levels) || levels.length === 0 || new Set(levels).size !== levels.length)
    throw wrongType('levels must be an array of at least one level, each once');
  for (const level of levels) check.integer(level, 'levels', 0, 7);
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
      await native.attachProbe(
        host,
        handle,
        association,
        correlation,
        capacity,
        levels,
        tagging === 'always' ? 0 : Math.round(maxAge * 1e6),
      ),
      map,
      association,
      correlation,
    );
  } catch (error) {
    fed.delete(map);
    throw error;
  }
}
