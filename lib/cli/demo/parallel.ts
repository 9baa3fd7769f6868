/** Calls `work` for the items in order, `depth` at a time. After the first failure it begins nothing, and rejects when
 * all that was begun has ended: nothing is left running behind. */
export async function parallel<T>(items: Iterable<T>, depth: number, work: (item: T, slot: number) => Promise<void>) {
  const iterator = items[Symbol.iterator]();
  let failed = false;
  const slots = Array.from({ length: depth }, async (_, slot) => {
    try {
      for (let next = iterator.next(); !failed && !next.done; next = iterator.next()) await work(next.value, slot);
    } catch (error) {
      failed = true;
      throw error;
    }
  });
  for (const result of await Promise.allSettled(slots)) if (result.status === 'rejected') throw result.reason;
}
