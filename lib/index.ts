// Everything that the package exports.
export { type Capability, capabilities, type Recall } from './capabilities.js';
export type { Completions } from './completion_iterator.js';
export type { Completion, CompletionBatch, CompletionRecord, Operation, Piece, PieceCursor } from './completions.js';
export type {
  Device,
  DeviceOptions,
  Driver,
  NbdDeviceOptions,
  NullDeviceOptions,
  RealDeviceOptions,
  RecordingDeviceOptions,
} from './device.js';
export type { Disk, DiskOperation, IoOptions, WriteOptions } from './disk.js';
export { inspectMachine, type MachineFact, type MachineReport } from './doctor.js';
export { AbortError, type ErrorDetails, type StratamapCode, StratamapError } from './errors.js';
export { type Host, type HostOptions, openHost } from './host.js';
export type {
  CountersOf,
  CountOptions,
  DelayCounters,
  DelayOptions,
  FaultCounters,
  FaultOptions,
  FaultRule,
  Interposer,
  InterposerOptions,
  InterposerType,
  LimitCounters,
  LimitOptions,
  LimitRates,
  LimitUpdate,
  OperationCounters,
  OptionsOf,
  RequestMatch,
} from './interposer.js';
export { attachLoop, type LoopDevice, type LoopOptions } from './loop.js';
export {
  type AddressMap,
  type DeviceLedger,
  type DiskReference,
  type Extent,
  type Ledger,
  type MapOptions,
  type Owner,
  openMap,
  type Place,
  type State,
  type Tally,
  type UnmappedReason,
} from './map.js';
export type { NbdCounters, NbdCounts, NbdOptions, NbdServer, NbdTls } from './nbd.js';
export {
  type Association,
  type AssociationInfo,
  associations,
  type CompletionOptions,
  type Correlation,
  type KernelStats,
  type Probe,
  type ProbeOptions,
  type ProbeStats,
  type Tagging,
} from './probe.js';
export { type CrashOptions, type Journal, readJournal, replayCrash } from './replay.js';
export {
  type ConfigError,
  type ConfigProblem,
  type ControlClient,
  connectControl,
  type DeviceConfig,
  type DiskConfig,
  type ExportConfig,
  type LedgerAnswer,
  type LimitConfig,
  type ProbeRequest,
  type ProbeState,
  readServeConfig,
  type ServeConfig,
  type ServedDevice,
  type ServedDisk,
  type Service,
  serve,
  type VolumeConfig,
} from './serve/index.js';
export {
  type BytesTally,
  type DeviceVerification,
  type FiemapTally,
  type MapReader,
  type Verification,
  type VerifyOptions,
  verify,
  type WrongPlace,
} from './verify/index.js';
export type {
  CreateDiskOptions,
  DiskEntry,
  DiskName,
  FormatOptions,
  Volume,
  VolumeOptions,
  VolumeSettings,
  VolumeType,
} from './volume.js';
export {
  type HistogramBucket,
  type Latency,
  type Pattern,
  runWorkload,
  type WorkloadOptions,
  type WorkloadResult,
} from './workload.js';
