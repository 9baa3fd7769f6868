// Loop devices.
import * as check from './arguments.js';
import { outOfRange } from './errors.js';
import { Handle } from './handle.js';
import { type LoopHandle, native } from './native.js';

export interface LoopOptions {
  /** Past the page cache, to the file itself. Where the kernel refuses it, `loop.directIo` says so. Default true. */
  directIo?: boolean | undefined;
  readOnly?: boolean | undefined;
  /** Bytes: a power of two from 512 to the page size, on newer kernels to 64 KiB. Default 512. */
  blockSize?: number | undefined;
  /** The kernel detaches the device when the last of its users is gone, this process among them. Default false. */
  autoclear?: boolean | undefined;
}

class LoopDevice extends Handle {
  readonly #handle: LoopHandle;
  /** `/dev/loop7` */
  readonly path: string;
  /** The file behind it. */
  readonly file: string;
  readonly directIo: boolean;

  constructor(handle: LoopHandle, path: string, file: string, directIo: boolean) {
    super();
    this.#handle = handle;
    this.path = path;
    this.file = file;
    this.directIo = directIo;
  }

  /** Takes the file off the device. `ERR_STRATAMAP_BUSY` while someone has the device open. */
  detach(): Promise<void> {
    return this.close();
  }

  protected override describe() {
    return { layer: 'loop', what: `loop device ${this.path}`, details: { device: this.path } };
  }

  protected override closeNative(): Promise<void> {
    return native.detachLoop(this.#handle);
  }
}

export type { LoopDevice };

/** Attaches a regular file to a free loop device. It stays attached until `detach`, also beyond this process. */
export async function attachLoop(file: string, options: LoopOptions = {}): Promise<LoopDevice> {
  check.string(file, 'file');
  const { directIo = true, readOnly = false, blockSize = 512, autoclear = false } = check.object(options, 'options');
  check.boolean(directIo, 'directIo');
  check.boolean(readOnly, 'readOnly');
  check.boolean(autoclear, 'autoclear');
  check.integer(blockSize, 'blockSize', 512, 65536);
  if ((blockSize & (blockSize - 1)) !== 0) throw outOfRange(`blockSize is ${blockSize}, which is not a power of two`);
  const loop = await native.attachLoop(file, directIo, readOnly, autoclear, blockSize);
  return new LoopDevice(loop.handle, loop.path, file, loop.directIo);
}
