// An NBD client that does no more than tests need: one export, simple replies, any number of requests at once.
import { once } from 'node:events';
import net from 'node:net';

const OPTION = Buffer.from('IHAVEOPT');
const OPTION_REPLY = 0x3e889045565a9n;
const GO = 7;
const ACK = 1;
const INFO = 3;
const REQUEST = 0x25609513;
const REPLY = 0x67446698;
const COMMANDS = { read: 0, write: 1, disconnect: 2, flush: 3 } as const;

interface Waiting {
  resolve(data: Buffer): void;
  reject(error: Error): void;
  length: number;
}

export class NbdClient {
  readonly #socket: net.Socket;
  readonly #waiting = new Map<bigint, Waiting>();
  #handle = 0n;
  #buffered = Buffer.alloc(0);
  #wake: (() => void) | undefined;
  #gone = false;
  size = 0;

  private constructor(socket: net.Socket) {
    this.#socket = socket;
    socket.on('data', (data) => {
      this.#buffered = Buffer.concat([this.#buffered, data]);
      this.#wake?.();
    });
    socket.on('error', () => {});
    socket.on('close', () => {
      this.#gone = true;
      this.#wake?.();
    });
  }

  static async connect(path: string, name: string): Promise<NbdClient> {
    const socket = net.connect(path);
    await once(socket, 'connect');
    const client = new NbdClient(socket);
    await client.#negotiate(name);
    void client.#receive().catch(() => {});
    return client;
  }

  async #take(bytes: number): Promise<Buffer> {
    while (this.#buffered.length < bytes) {
      if (this.#gone) throw new Error('the server has gone');
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
    const taken = this.#buffered.subarray(0, bytes);
    this.#buffered = this.#buffered.subarray(bytes);
    return taken;
  }

  async #negotiate(name: string): Promise<void> {
    await this.#take(18);
    const length = Buffer.byteLength(name);
    const header = Buffer.alloc(4 + 8 + 8 + 4);
    header.writeUInt32BE(3, 0); // fixed newstyle, no zeroes
    OPTION.copy(header, 4);
    header.writeUInt32BE(GO, 12);
    header.writeUInt32BE(4 + length + 2, 16);
    header.writeUInt32BE(length, 20);
    this.#socket.write(Buffer.concat([header, Buffer.from(name), Buffer.alloc(2)]));
    for (;;) {
      const reply = await this.#take(20);
      if (reply.readBigUInt64BE(0) !== OPTION_REPLY) throw new Error('that is no reply to an option');
      const type = reply.readUInt32BE(12);
      const data = await this.#take(reply.readUInt32BE(16));
      if (type === ACK) return;
      if (type !== INFO) throw new Error(`export ${name} is refused: ${type.toString(16)} ${data}`);
      if (data.readUInt16BE(0) === 0) this.size = Number(data.readBigUInt64BE(2));
    }
  }

  async #receive(): Promise<void> {
    try {
      for (;;) {
        const reply = await this.#take(16);
        if (reply.readUInt32BE(0) !== REPLY) throw new Error('that is no reply');
        const error = reply.readUInt32BE(4);
        const handle = reply.readBigUInt64BE(8);
        const waiting = this.#waiting.get(handle);
        if (!waiting) throw new Error('nobody asked for this reply');
        const data = error === 0 ? await this.#take(waiting.length) : undefined;
        this.#waiting.delete(handle);
        if (data) waiting.resolve(data);
        else waiting.reject(new Error(`the server answers with error ${error}`));
      }
    } catch (error) {
      this.#gone = true;
      for (const { reject } of this.#waiting.values()) reject(error as Error);
      this.#waiting.clear();
    }
  }

  #ask(command: keyof typeof COMMANDS, offset: number, length: number, data?: Buffer): Promise<Buffer> {
    if (this.#gone) return Promise.reject(new Error('the server has gone'));
    const header = Buffer.alloc(28);
    header.writeUInt32BE(REQUEST, 0);
    header.writeUInt16BE(COMMANDS[command], 6);
    header.writeBigUInt64BE(this.#handle, 8);
    header.writeBigUInt64BE(BigInt(offset), 16);
    header.writeUInt32BE(length, 24);
    return new Promise((resolve, reject) => {
      this.#waiting.set(this.#handle++, { resolve, reject, length: command === 'read' ? length : 0 });
      this.#socket.write(data ? Buffer.concat([header, data]) : header);
    });
  }

  read(offset: number, length: number): Promise<Buffer> {
    return this.#ask('read', offset, length);
  }
  async write(offset: number, data: Buffer): Promise<void> {
    await this.#ask('write', offset, data.length, data);
  }
  async flush(): Promise<void> {
    await this.#ask('flush', 0, 0);
  }
  /** Reads no more answers. */
  pause(): void {
    this.#socket.pause();
  }
  close(): void {
    this.#socket.destroy();
  }
}
