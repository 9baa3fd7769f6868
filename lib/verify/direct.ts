// Files and block devices, read past the page cache: what is on the medium.
import { constants, type FileHandle, open } from 'node:fs/promises';
import { StratamapError } from '../errors.js';
import { native } from '../native.js';

export class DirectFile {
  readonly path: string;
  readonly #handle: FileHandle;
  readonly #alignment: number;

  private constructor(path: string, handle: FileHandle, alignment: number) {
    this.path = path;
    this.#handle = handle;
    this.#alignment = alignment;
  }

  /** Rejects where it cannot be opened, or not with O_DIRECT. */
  static async open(path: string): Promise<DirectFile> {
    let handle: FileHandle;
    try {
      handle = await open(path, constants.O_RDONLY | constants.O_DIRECT);
    } catch (error) {
      const { message, code = 'EIO', errno } = error as NodeJS.ErrnoException;
      const how = code === 'EACCES' || code === 'EPERM' ? ': run as root, or give this user rights to read it' : '';
      throw new StratamapError(`${path} cannot be read: ${message}${how}`, code, { layer: 'verify', errno });
    }
    const alignment = native.directAlignment(handle.fd);
    if (alignment > 0) return new DirectFile(path, handle, alignment);
    await handle.close();
    throw new StratamapError(`${path} cannot be read past the page cache (O_DIRECT)`, 'EINVAL', { layer: 'verify' });
  }

  /** Any range, aligned or not; shorter where the file ends before. */
  async read(offset: number, length: number): Promise<Buffer> {
    try {
      return await native.readDirect(this.#handle.fd, this.#alignment, offset, length);
    } catch (error) {
      const { message, code, errno, layer } = error as StratamapError;
      throw new StratamapError(`${this.path} at offset ${offset}: ${message}`, code, { errno, layer, offset });
    }
  }

  close(): Promise<void> {
    return this.#handle.close();
  }
}
