/* The version of the contracts, and the words that all of them share. Plain C11; every header here compiles alone.
 *
 * A table of functions begins with `version` and `size`. The host accepts a table whose `version` equals
 * SM_CONTRACT_VERSION and whose `size` is at least the size that version defines; anything else is refused with
 * ERR_STRATAMAP_CONTRACT before one of its functions is called. A null entry passes through: see each table for what
 * that means there.
 *
 * Units: offsets and lengths are bytes, times are nanoseconds of CLOCK_MONOTONIC, errors are negative errno values.
 *
 * Threads: an I/O thread is one that the host runs to carry I/O. Every volume has one of them as its home; unless an
 * entry says otherwise, a function of these contracts runs on the home I/O thread, must not block there, and may be
 * called there alone. A volume that has to block does so in threads of its own and comes back by sm_services.post. */
#ifndef STRATAMAP_CONTRACT_H
#define STRATAMAP_CONTRACT_H

#include <stdint.h>

#define SM_CONTRACT_VERSION 1u

#ifdef __cplusplus
extern "C" {
#endif

/* Filled in by whoever fails; `code` is a negative errno, the message says what was asked, found, and what to do. */
typedef struct sm_error {
  int32_t code;
  char message[508];
} sm_error;

/* One setting by name, as the user wrote it. */
typedef struct sm_option {
  const char *key;
  const char *value;
} sm_option;

#ifdef __cplusplus
}
#endif
#endif
