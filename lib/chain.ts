// What stands in the dispatch tables of devices: interposers, and probes among them.
import { wrongType } from './errors.js';
import { type DeviceHandle, type InterposerHandle, native, type ProbeHandle } from './native.js';

type Member = { readonly handle: ProbeHandle; readonly probe: true } | { handle: InterposerHandle; probe: false };

const members = new WeakMap<object, Member>();

/** Whoever stands in a device's table says so, when it is made. */
export function enlist(member: object, as: Member): void {
  members.set(member, as);
}

export function memberOf(member: unknown): Member | undefined {
  return typeof member === 'object' && member !== null ? members.get(member) : undefined;
}

export function reorder(device: DeviceHandle, order: readonly object[]): Promise<void> {
  if (!Array.isArray(order)) throw wrongType('order must be an array of interposers and probes');
  const found = order.map((each) => {
    const member = memberOf(each);
    if (member === undefined) throw wrongType('order must hold what host.interpose and host.attachProbe gave');
    return member;
  });
  return native.reorderDevice(
    device,
    found.map(({ handle }) => handle),
    found.map(({ probe }) => probe),
  );
}
