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

const { ParseError, InvalidRequest } = JSONRPCErrorCode;

export interface ControlServer {
  /** Answers what is being answered, and closes. */
  close(): Promise<void>;
}

/** A socket that nobody listens on any more is taken over. */
export async function openControlServer(service: Service, path: string): Promise<ControlServer> {
  const rpc = makeRpcServer(service);
  const { fd, handle } = await native.listenUnix(path, 'control');
  const open = new Map<net.Socket, Promise<void>>();
  const server = net.createServer((socket) => {
    const serving = serve(rpc, socket).finally(() => open.delete(socket));
    open.set(socket, serving);
  });
  server.maxConnections = CONNECTIONS;
  server.listen({ fd });
  await once(server, 'listening');
  return {
    async close() {
      native.unlinkUnix(handle);
      const closed = once(server, 'close');
      server.close();
      for (const socket of open.keys()) socket.resume().end().unref();
      await Promise.all(open.values());
      await closed;
    },
  };
}

/** One after the other, until the client goes, or says what is no message. */
async function serve(rpc: JSONRPCServer, socket: net.Socket): Promise<void> {
  socket.setTimeout(IDLE, () => socket.destroy());
  try {
    for await (const line of linesOf(socket, LONGEST)) {
      const answer = await answerTo(rpc, line);
      if (answer) await writeLine(socket, answer);
    }
  } catch (error) {
    if (error instanceof TooLong) {
      const message = `a request has at most ${LONGEST} bytes`;
      await writeLine(socket, createJSONRPCErrorResponse(null, InvalidRequest, message)).catch(() => {});
    }
    // Else the client has gone.
  } finally {
    socket.destroy();
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
