import { getSystemErrorName } from 'node:util';
import { expect, test } from 'vitest';
import { AbortError, makeError, StratamapError } from '../../lib/errors.js';

test('a failure keeps what it is about', () => {
  const error = makeError('cannot', 'ENOSPC', -28, 'disk', undefined, 'vm-1', 'vda', 4096);
  expect(error).toBeInstanceOf(StratamapError);
  expect({ ...error }).toEqual({ code: 'ENOSPC', errno: -28, layer: 'disk', vm: 'vm-1', disk: 'vda', offset: 4096 });
  expect(error).toMatchObject({ name: 'StratamapError', message: 'cannot' });
  expect(getSystemErrorName((error as StratamapError).errno as number)).toBe('ENOSPC');
});

test('what a failure is not about is absent', () => {
  expect(Object.keys(makeError('cannot', 'EIO', -5, 'device', 'd0'))).toEqual(['code', 'errno', 'layer', 'device']);
});

test.each(['ERR_OUT_OF_RANGE', 'ERR_STRATAMAP_NAME'])('%s from below is a RangeError', (code) => {
  const error = makeError('no', code, -22, 'disk', undefined, 'vm-1', 'vda', 512);
  expect(error).toBeInstanceOf(RangeError);
  expect(error).toMatchObject({ code, vm: 'vm-1', disk: 'vda', offset: 512 });
});

test('an abort is an AbortError with its reason', () => {
  expect(makeError('The operation was aborted', 'ABORT_ERR')).toBeInstanceOf(AbortError);
  expect(new AbortError('enough')).toMatchObject({ name: 'AbortError', code: 'ABORT_ERR', cause: 'enough' });
});
