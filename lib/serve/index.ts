// What the package exports of it. The libraries that it needs are loaded when it is used: who only wants the API does not
// wait for them.
import type { ServeConfig } from './config.js';
import type { ControlClient } from './control_client.js';
import type { Service } from './service.js';

export type {
  ConfigError,
  ConfigProblem,
  DeviceConfig,
  DiskConfig,
  ExportConfig,
  LimitConfig,
  ServeConfig,
  VolumeConfig,
} from './config.js';
export type { ControlClient } from './control_client.js';
export type { LedgerAnswer, ProbeState } from './control_methods.js';
export type { ProbeRequest, ServedDevice, ServedDisk, Service } from './service.js';

/** Reads and checks a configuration. Rejects with a ConfigError (`ERR_STRATAMAP_CONFIG`) that tells every mistake. */
export async function readServeConfig(file: string): Promise<ServeConfig> {
  return (await import('./config.js')).readServeConfig(file);
}

/**
 * Opens everything that a configuration names, and serves it. Open servers keep the process alive. `signal` ends the
 * waiting for an NBD server that is not there yet.
 */
export async function serve(config: ServeConfig, { signal }: { signal?: AbortSignal } = {}): Promise<Service> {
  return (await import('./service.js')).Service.open(config, signal);
}

/** Connects to the control socket of a `stratamap serve` that runs. */
export async function connectControl(path: string): Promise<ControlClient> {
  return (await import('./control_client.js')).connectControl(path);
}
