// What a failed call gives. A wrong argument is a TypeError or RangeError, before anything is touched; everything else
// is a StratamapError.

/** The error codes of this package; beside them `code` may be the name of an errno, as `EIO` or `ENOSPC`. */
export type StratamapCode =
  /** The device, volume, disk or file is in use. */
  | 'ERR_STRATAMAP_BUSY'
  /** A buffer was detached or changed size while an operation on it was under way. */
  | 'ERR_STRATAMAP_BUFFER'
  /** The handle, or what it belongs to, is closed. */
  | 'ERR_STRATAMAP_CLOSED'
  /** A configuration file is wrong: the message has a line for each mistake. */
  | 'ERR_STRATAMAP_CONFIG'
  /** A shared object was built against another version of the contracts. */
  | 'ERR_STRATAMAP_CONTRACT'
  /** There is no such device driver. */
  | 'ERR_STRATAMAP_DRIVER'
  /** A file is no stored map, is damaged, or is of another version. */
  | 'ERR_STRATAMAP_MAP'
  /** A file is no journal of a recording device; or the journal's path is missing. */
  | 'ERR_STRATAMAP_JOURNAL'
  /** A name is empty, too long or holds control characters. */
  | 'ERR_STRATAMAP_NAME'
  /** An order that names not each of a device's interposers once. */
  | 'ERR_STRATAMAP_ORDER'
  /** A path that is neither a block device nor a regular file. */
  | 'ERR_STRATAMAP_NOT_A_DEVICE'
  /** A device carries a signature that formatting would destroy. */
  | 'ERR_STRATAMAP_SIGNATURE'
  /** A device has no size, or not one that fits. */
  | 'ERR_STRATAMAP_SIZE'
  /** A file of certificates or keys is not what it should be; or there is no GnuTLS. */
  | 'ERR_STRATAMAP_TLS'
  /** An address beyond loopback is served with TLS alone. */
  | 'ERR_STRATAMAP_TLS_REQUIRED'
  /** No such association or correlation, or none that a limit can rely on. */
  | 'ERR_STRATAMAP_UNSUPPORTED'
  /** The URI of an NBD device is none that can be used. */
  | 'ERR_STRATAMAP_URI'
  /** There is no such type of volume, or its shared object cannot be loaded. */
  | 'ERR_STRATAMAP_VOLUME_TYPE';

/** What an error is about, beside its message. */
export interface ErrorDetails {
  /** The errno, negative as in Node's own errors; see `util.getSystemErrorName`. */
  readonly errno?: number | undefined;
  /**
   * `host`, `device`, `volume`, `disk`, `loop`, `map`, `probe`, `interposer`, `nbd`, `verify`, `serve` or `control`.
   */
  readonly layer?: string | undefined;
  /** The device's name. */
  readonly device?: string | undefined;
  /** The virtual machine and the disk. */
  readonly vm?: string | undefined;
  readonly disk?: string | undefined;
  /** Bytes from the start of the disk, or of the device where there is no disk. */
  readonly offset?: number | undefined;
}

/** A failed call. The message says what was asked, what was found, and what to do. */
export class StratamapError extends Error implements ErrorDetails {
  static {
    StratamapError.prototype.name = 'StratamapError';
  }
  readonly code: StratamapCode | (string & {});
  declare readonly errno?: number | undefined;
  declare readonly layer?: string | undefined;
  declare readonly device?: string | undefined;
  declare readonly vm?: string | undefined;
  declare readonly disk?: string | undefined;
  declare readonly offset?: number | undefined;

  constructor(message: string, code: StratamapCode | (string & {}), details: ErrorDetails = {}) {
    super(message);
    this.code = code;
    for (const [key, value] of Object.entries(details)) if (value !== undefined) Object.assign(this, { [key]: value });
  }
}

/** What `AbortSignal` ends: `name` is `AbortError`, `cause` the signal's reason. */
export class AbortError extends Error {
  static {
    AbortError.prototype.name = 'AbortError';
  }
  readonly code = 'ABORT_ERR';

  constructor(reason?: unknown) {
    super('The operation was aborted', { cause: reason });
  }
}

function coded<E extends Error>(error: E, code: string): E & { code: string } {
  return Object.assign(error, { code });
}

/** A value of the wrong type. */
export function wrongType(message: string, code = 'ERR_INVALID_ARG_TYPE'): TypeError {
  return coded(new TypeError(message), code);
}

/** A value of the right type that is not allowed. */
export function outOfRange(message: string, code = 'ERR_OUT_OF_RANGE'): RangeError {
  return coded(new RangeError(message), code);
}

/** Use after close. */
export function closed(layer: string, what: string, details: ErrorDetails = {}): StratamapError {
  return new StratamapError(
    `${what} is closed: open it again, or close it after its last use`,
    'ERR_STRATAMAP_CLOSED',
    {
      layer,
      ...details,
    },
  );
}

/** Called by the addon for each failure. */
export function makeError(
  message: string,
  code: string,
  errno?: number,
  layer?: string,
  device?: string,
  vm?: string,
  disk?: string,
  offset?: number,
): Error {
  if (code === 'ABORT_ERR') return new AbortError();
  const details = { errno, layer, device, vm, disk, offset };
  if (code === 'ERR_OUT_OF_RANGE' || code === 'ERR_STRATAMAP_NAME') {
    const { errno: _, ...where } = details;
    return Object.assign(outOfRange(message, code), where);
  }
  return new StratamapError(message, code, details);
}
