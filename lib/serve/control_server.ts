// The control socket: JSON-RPC 2.0 over a unix socket that only the same user can open, a line for each message.
import { once } from 'node:events';
import net from 'node:net';
import { createJSONRPCErrorResponse, JSONRPCErrorCode, type JSONRPCRequest, type JSONRPCServer } from 'json-rpc-2.0';
import { native } from '../native.js';
import { makeRpcServer } from './control_methods.js';
import { linesOf, TooLong, writeLine } from './lines.js';
import type { Service } from './service.js';

const CONNECTIONS = 32;
const LONGEST = 2 ** 16; // bytes of a request
const IDLE = 300_000; // ms
const GRACE = 5_000; // ms

const { ParseError, InvalidRequest } = JSONRPCErrorCode;

export interface ControlServer {
  /** Answers what is being answered, for at most five seconds, and closes. */
  close(): Promise<void>;
}

/** A socket that nobody listens on any more is taken over. */
export async function openControlServer(service: Service, path: string): Promise<ControlServer> {
  const rpc = makeRpcServer(service);
  const { fd, handle } = await native.listenUnix(path, 'control');
  const open = new Set<Connection>();
  const server = net.createServer((socket) => {
    const connection = new Connection(rpc, socket);
    open.add(connection);
    void connection.ended.then(() => open.delete(connection));
  });
  server.maxConnections = CONNECTIONS;
  server.listen({ fd });
  await once(server, 'listening');
  return {
    async close() {
      native.unlinkUnix(handle);
      const closed = once(server, 'close');
      server.close();
      for (const each of open) each.end();
      const late = setTimeout(() => open.forEach((each) => void each.destroy()), GRACE);
      await closed; // it waits for the connections
      clearTimeout(late);
    },
  };
}

/** A client: its requests one after the other, until it goes, or says what is no message, or `end`. */
class Connection {
  readonly #socket: net.Socket;
  readonly ended: Promise<void>;
  #answering = false;
  #ending = false;

  constructor(rpc: JSONRPCServer, socket: net.Socket) {
    this.#socket = socket;
    socket.setTimeout(IDLE, () => socket.destroy());
    socket.on('error', () => {}); // the client has gone
    this.ended = this.#serve(rpc).catch(() => {});
  }

  async #serve(rpc: JSONRPCServer): Promise<void> {
    try {
      for await (const line of linesOf(this.#socket, LONGEST)) {
        this.#answering = true;
        const answer = await answerTo(rpc, line);
        if (answer) await writeLine(this.#socket, answer);
        this.#answering = false;
        if (this.#ending) break;
      }
    } catch (error) {
      if (!(error instanceof TooLong)) throw error;
      const message = `a request has at most ${LONGEST} bytes`;
      await writeLine(this.#socket, createJSONRPCErrorResponse(null, InvalidRequest, message));
    } finally {
      this.#socket.destroy();
    }
  }

  /** After what is being answered. */
  end(): void {
    this.#ending = true;
    if (!this.#answering) this.#socket.destroy();
  }

  destroy(): void {
    this.#socket.destroy();
  }
}

async function answerTo(rpc: JSONRPCServer, line: string) {
  let request: unknown;
  try {
    request = JSON.parse(line);
  } catch {
    return createJSONRPCErrorResponse(null, ParseError, 'that is no JSON: send one request in each line');
  }
  // One answer at a time is in memory.
  if (typeof request !== 'object' || request === null || Array.isArray(request)) {
    return createJSONRPCErrorResponse(null, InvalidRequest, 'send one request in each line, and no batch');
  }
  return rpc.receive(request as JSONRPCRequest);
}
