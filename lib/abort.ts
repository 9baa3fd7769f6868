// Operations that an AbortSignal ends: one listener for each signal, however many operations it may end.
import { AbortError } from './errors.js';

interface Listener {
  readonly tokens: Set<number>;
  readonly abort: () => void;
}

const listeners = new WeakMap<AbortSignal, Listener>();
let last = 0;

function listen(signal: AbortSignal, token: number, end: (token: number) => void): void {
  let listener = listeners.get(signal);
  if (listener === undefined) {
    const tokens = new Set<number>();
    listener = { tokens, abort: () => tokens.forEach(end) };
    listeners.set(signal, listener);
    signal.addEventListener('abort', listener.abort, { once: true });
  }
  listener.tokens.add(token);
}

function forget(signal: AbortSignal, token: number): void {
  const listener = listeners.get(signal);
  if (listener === undefined || !listener.tokens.delete(token) || listener.tokens.size > 0) return;
  signal.removeEventListener('abort', listener.abort);
  listeners.delete(signal);
}

/**
 * Begins an operation that `end(token)` can end early, and rejects with an AbortError where the signal has ended it.
 * Every operation must be given the same `end`.
 */
export async function abortable<T>(
  signal: AbortSignal,
  begin: (token: number) => Promise<T>,
  end: (token: number) => void,
): Promise<T> {
  if (signal.aborted) throw new AbortError(signal.reason);
  last = last === 2 ** 32 - 1 ? 1 : last + 1;
  const token = last;
  listen(signal, token, end);
  try {
    return await begin(token);
  } catch (error) {
    throw error instanceof AbortError ? new AbortError(signal.reason) : error;
  } finally {
    forget(signal, token);
  }
}
