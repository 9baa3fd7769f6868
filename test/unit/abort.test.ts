import { expect, test } from 'vitest';
import { abortable } from '../../lib/abort.js';
import { AbortError } from '../../lib/errors.js';

/** Operations that end when they are told to. */
function operations() {
  const rejects = new Map<number, (error: Error) => void>();
  const ended: number[] = [];
  return {
    ended,
    begin: (token: number) => new Promise<string>((_, reject) => rejects.set(token, reject)),
    end: (token: number) => {
      ended.push(token);
      rejects.get(token)?.(new AbortError());
    },
  };
}

function countListeners(signal: AbortSignal): () => number {
  let count = 0;
  const add = signal.addEventListener.bind(signal);
  const remove = signal.removeEventListener.bind(signal);
  signal.addEventListener = (...args: Parameters<typeof add>) => {
    ++count;
    add(...args);
  };
  signal.removeEventListener = (...args: Parameters<typeof remove>) => {
    --count;
    remove(...args);
  };
  return () => count;
}

test('one signal ends all of its operations, by one listener', async () => {
  const { begin, end, ended } = operations();
  const controller = new AbortController();
  const count = countListeners(controller.signal);
  const running = Array.from({ length: 20 }, () => abortable(controller.signal, begin, end).catch((error) => error));
  expect(count()).toBe(1);
  controller.abort('why');
  for (const error of await Promise.all(running)) expect(error).toMatchObject({ name: 'AbortError', cause: 'why' });
  expect(new Set(ended).size).toBe(20);
});

test('what has ended is not ended again, and leaves no listener', async () => {
  const { end, ended } = operations();
  const controller = new AbortController();
  const count = countListeners(controller.signal);
  expect(await abortable(controller.signal, async () => 'done', end)).toBe('done');
  await expect(abortable(controller.signal, () => Promise.reject(new Error('EIO')), end)).rejects.toThrow('EIO');
  expect(count()).toBe(0);
  controller.abort();
  expect(ended).toEqual([]);
});

test('a signal that was aborted before begins nothing', async () => {
  let begun = false;
  const begin = async () => {
    begun = true;
  };
  await expect(abortable(AbortSignal.abort('early'), begin, () => {})).rejects.toMatchObject({ cause: 'early' });
  expect(begun).toBe(false);
});
