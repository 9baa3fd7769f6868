// The names that the package exports, frozen: what is added or taken away is a decision. The same for both module
// systems, and the same objects.
import { createRequire } from 'node:module';
import * as esm from 'stratamap';
import { expect, test } from 'vitest';

test('the exports are these, and the same for import and require', () => {
  const cjs = createRequire(import.meta.url)('stratamap') as Record<string, unknown>;
  expect(Object.keys(cjs).sort()).toEqual([
    'AbortError',
    'StratamapError',
    'associations',
    'attachLoop',
    'capabilities',
    'connectControl',
    'inspectMachine',
    'openHost',
    'openMap',
    'readJournal',
    'readServeConfig',
    'replayCrash',
    'runWorkload',
    'serve',
    'verify',
  ]);
  expect({ ...esm }).toEqual(cjs);
  for (const [name, value] of Object.entries(esm)) expect(value, name).toBe(cjs[name]);
});
