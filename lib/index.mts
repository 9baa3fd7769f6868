// The same for `import`: it wraps the one CommonJS build, so that both module systems share one native state. Named one
// by one, because `export *` would also give what Node adds to a CommonJS module's names (`__esModule`, …).

export type * from './index.js';
export {
  AbortError,
  associations,
  attachLoop,
  capabilities,
  connectControl,
  inspectMachine,
  openHost,
  openMap,
  readJournal,
  readServeConfig,
  replayCrash,
  runWorkload,
  StratamapError,
  serve,
  verify,
} from './index.js';
