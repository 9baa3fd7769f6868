// What cannot be reached through the package: there, a host ends after its probes.
import { expect, onTestFinished, test } from 'vitest';
import { openMap } from '../../lib/map.js';
import { native } from '../../lib/native.js';
import { attachProbe } from '../../lib/probe.js';

const openHost = () => native.openHost(1, 64, 2 ** 22, false);

test('where detaching fails, the map is free and the consumer done', async () => {
  const map = await openMap();
  const host = await openHost();
  const probe = await attachProbe(host, { map, capacity: 64 });
  const waiting = probe.completions().next();
  await native.closeHost(host);
  await expect(probe.detach()).rejects.toMatchObject({ code: 'ERR_STRATAMAP_CLOSED', layer: 'host' });
  expect(await waiting).toEqual({ done: true, value: undefined });

  const other = await openHost();
  onTestFinished(() => native.closeHost(other));
  const next = await attachProbe(other, { map, capacity: 64 });
  expect(await next.detach()).toBe(true);
});
