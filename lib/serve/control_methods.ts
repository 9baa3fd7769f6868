// What can be asked by the control socket. Answers are bounded: who asks for more goes on where the last one ended.
import { JSONRPCErrorCode, JSONRPCErrorException, JSONRPCServer } from 'json-rpc-2.0';
import { z } from 'zod';
import type { StratamapError } from '../errors.js';
import type { Extent, Ledger, Owner } from '../map.js';
import type { ProbeStats } from '../probe.js';
import { type Verification, verify } from '../verify/index.js';
import type { ProbeRequest, ServedDisk, Service } from './service.js';

/** How much of a disk or device one answer covers, bytes; and how many extents one has. */
const WINDOW = 2 ** 24;
const EXTENTS = 1024;
/** The code of what was asked rightly and has failed; `data` has the error's own code, and layer. */
const FAILED = 1;

export interface ProbeState {
  attached: boolean;
  association?: string;
  correlation?: string;
  /** Whether what passes now teaches. */
  learning?: boolean;
  stats?: ProbeStats;
  /** What the user should know. */
  notices?: string[];
}

export interface LedgerAnswer extends Ledger {
  probe: ProbeState;
}

/** Methods, by name: what they take, and what they give. Offsets and lengths are bytes; `disk` is VM/DISK. */
export interface ControlMethods {
  disks(params: object): ServedDisk[];
  /** Covers [offset, end): the rest is asked for from `end` on. */
  locate(params: { disk: string; offset: number; length: number }): { extents: Extent[]; end: number };
  owners(params: { device: string; offset: number; length: number }): { owners: Owner[]; end: number };
  /** The known extents behind `from`; `next` is null where there are no more. */
  extents(params: { disk: string; from: number }): { extents: Extent[]; next: number | null };
  ledger(params: object): LedgerAnswer;
  /** Covers [offset, end): the rest is asked for from `end` on. Of disks that are files. */
  verify(params: {
    disk: string;
    offset: number;
    length: number;
  }): Promise<{ verification: Verification; end: number }>;
  'probe.state'(params: object): ProbeState;
  'probe.attach'(params: ProbeRequest): Promise<ProbeState>;
  'probe.detach'(params: object): Promise<ProbeState>;
}

const offset = z.int().min(0);
const length = z.int().min(1);
const name = z.string().min(1).max(127);
const nothing = z.strictObject({});
const PARAMS = {
  disks: nothing,
  locate: z.strictObject({ disk: name, offset, length }),
  owners: z.strictObject({ device: name, offset, length }),
  extents: z.strictObject({ disk: name, from: offset }),
  ledger: nothing,
  verify: z.strictObject({ disk: name, offset, length }),
  'probe.state': nothing,
  'probe.attach': z.strictObject({
    association: name.optional(),
    correlation: name.optional(),
    capacity: z.int().optional(),
    tagging: name.optional(),
    maxAge: z.number().optional(),
    levels: z.array(z.int()).optional(),
  }) as z.ZodType<ProbeRequest>,
  'probe.detach': nothing,
} satisfies Record<keyof ControlMethods, z.ZodType>;

/** [offset, end) within `size`, at most a window. */
function windowOf(what: string, size: number, from: number, bytes: number): { bytes: number; end: number } {
  if (from >= size || bytes > size - from) {
    const message = `${bytes} bytes at offset ${from} lie outside of ${what}, which has ${size} bytes`;
    throw new JSONRPCErrorException(message, JSONRPCErrorCode.InvalidParams);
  }
  const window = Math.min(bytes, WINDOW);
  return { bytes: window, end: from + window };
}

function methodsOf(service: Service): ControlMethods {
  const { map } = service;
  const state = (): ProbeState => {
    const { probe } = service;
    if (!probe) return { attached: false };
    const { association, correlation, learning, stats, notices } = probe;
    return { attached: true, association, correlation, learning, stats, notices };
  };
  return {
    disks: () => service.disks(),
    locate({ disk, offset: from, length: bytes }) {
      const window = windowOf(`disk ${disk}`, service.sizeOfDisk(disk), from, bytes);
      return { extents: map.locate(disk, from, window.bytes), end: window.end };
    },
    owners({ device, offset: from, length: bytes }) {
      const window = windowOf(`device ${device}`, service.sizeOfDevice(device), from, bytes);
      return { owners: map.owners(device, from, window.bytes), end: window.end };
    },
    extents({ disk, from }) {
      service.sizeOfDisk(disk);
      const extents: Extent[] = [];
      for (const extent of map.extents(disk, from)) if (extents.push(extent) === EXTENTS) break;
      const last = extents.at(-1);
      return { extents, next: last && extents.length === EXTENTS ? last.diskOffset + last.length : null };
    },
    ledger: () => ({ ...map.ledger(), probe: state() }),
    async verify({ disk, offset: from, length: bytes }) {
      const file = service.imageOf(disk);
      const window = windowOf(`disk ${disk}`, service.sizeOfDisk(disk), from, bytes);
      const verification = await verify(map, { disk, file, offset: from, length: window.bytes });
      return { verification, end: window.end };
    },
    'probe.state': state,
    async 'probe.attach'(request) {
      await service.attachProbe(request);
      return state();
    },
    async 'probe.detach'() {
      await service.detachProbe();
      return state();
    },
  };
}

/** What of an error a client is told. */
function told(error: unknown): JSONRPCErrorException {
  if (error instanceof JSONRPCErrorException) return error;
  const { message, code, layer } = error as StratamapError;
  const wrong = error instanceof TypeError || error instanceof RangeError;
  return new JSONRPCErrorException(message, wrong ? JSONRPCErrorCode.InvalidParams : FAILED, { code, layer });
}

export function makeRpcServer(service: Service): JSONRPCServer {
  const server = new JSONRPCServer({ errorListener: () => {} });
  const methods = methodsOf(service);
  for (const [method, schema] of Object.entries(PARAMS)) {
    server.addMethod(method, async (given: unknown) => {
      const parsed = schema.safeParse(given ?? {});
      if (!parsed.success) {
        const message = parsed.error.issues
          .map((issue) => `${issue.path.join('.')} ${issue.message}`.trim())
          .join('; ');
        throw new JSONRPCErrorException(`${method}: ${message}`, JSONRPCErrorCode.InvalidParams);
      }
      try {
        return await methods[method as keyof ControlMethods](parsed.data as never);
      } catch (error) {
        throw told(error);
      }
    });
  }
  return server;
}
