// Messages on a stream: a line of JSON each.
import type { Socket } from 'node:net';

export class TooLong extends Error {}

/**
 * The lines that come, without their ends. Throws TooLong where one has more than `most` bytes. The stream is read no
 * faster than lines are taken.
 */
export async function* linesOf(socket: Socket, most: number): AsyncGenerator<string, void, undefined> {
  let parts: Buffer[] = [];
  let length = 0;
  const chunks: AsyncIterable<Buffer> = socket.iterator({ destroyOnReturn: false }); // who reads may have to answer
  for await (const chunk of chunks) {
    let from = 0;
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, from)) {
      parts.push(chunk.subarray(from, end));
      length += end - from;
      if (length > most) throw new TooLong();
      yield Buffer.concat(parts).toString();
      parts = [];
      length = 0;
      from = end + 1;
    }
    parts.push(chunk.subarray(from));
    length += chunk.length - from;
    if (length > most) throw new TooLong();
  }
}

/** Resolves when the system has taken it: a slow reader holds its writer back. */
export function writeLine(socket: Socket, message: unknown): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.write(`${JSON.stringify(message)}\n`, (error) => (error ? reject(error) : resolve()));
  });
}
