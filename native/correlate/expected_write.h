/* What a write of the known priority is expected to do, as one word in memory that is shared with a program in the
 * kernel (intercept/kernel/block_events.bpf.c): that program finds the word of a write that begins, and marks it, once.
 * A language that both C for BPF and C++ read.
 *
 * Thread contract: a word is put and taken by its owner; in between the kernel may set its highest bit, atomically.
 */
#pragma once

typedef unsigned long long sm_expected_word;

enum { SM_EXPECTED_SLOTS = 1024 };

/* Bits: 63 it has begun, 55 to 62 the device, 43 to 54 its sectors, 0 to 42 the first one. */
#define SM_EXPECTED_BEGUN (1ull << 63)

/* Of a device's sectors of 512 bytes. 0: it cannot be said in a word. */
static inline sm_expected_word sm_expected(unsigned device, unsigned long long sector, unsigned long long sectors) {
  if (device >= 1 << 8 || sector >> 43 || sectors == 0 || sectors >= 1 << 12) return 0;
  return (sm_expected_word)device << 55 | sectors << 43 | sector;
}

/* Where it stands: there, or in the neighbour (^ 1). */
static inline unsigned sm_expected_slot(sm_expected_word word) {
  return (unsigned)((word * 0x9e3779b97f4a7c15ull) >> 54);
}
