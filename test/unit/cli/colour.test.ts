import { expect, test } from 'vitest';
import { wantsColour } from '../../../lib/cli/colour.js';

const terminal = { isTTY: true };
const pipe = {};

test.each([
  [terminal, {}, true],
  [terminal, { NO_COLOR: '1' }, false],
  [terminal, { NO_COLOR: '' }, true],
  [terminal, { TERM: 'dumb' }, false],
  [terminal, { FORCE_COLOR: '0' }, false],
  [terminal, { FORCE_COLOR: '1', NO_COLOR: '1' }, true],
  [pipe, {}, false],
  [pipe, { CI: 'true' }, false],
  [pipe, { FORCE_COLOR: '' }, false],
  [pipe, { FORCE_COLOR: '0' }, false],
  [pipe, { FORCE_COLOR: '1' }, true],
  [pipe, { FORCE_COLOR: 'true', CI: '1' }, true],
])('to %j under %j: %j', (stream, env, wanted) => {
  expect(wantsColour(stream, env)).toBe(wanted);
});
