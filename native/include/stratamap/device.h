/* A physical device and its dispatch table.
 *
 * Everyone who sends a request to a device calls it through the table that `ops` points to at that moment. `ops` may be
 * replaced at any time by one atomic store: that is how an interposer comes and goes with I/O in flight. A table, and
 * what it leads to, must therefore stay valid for as long as any I/O thread may be inside it. */
#ifndef STRATAMAP_DEVICE_H
#define STRATAMAP_DEVICE_H

#include "request.h"

#ifdef __cplusplus
extern "C" {
#endif

struct sm_device;
typedef struct sm_device_ops sm_device_ops;

struct sm_device_ops {
  uint32_t version; /* SM_CONTRACT_VERSION */
  uint32_t size;    /* sizeof(sm_device_ops) */
  /* Executes `request` on `device`, or passes it on. `self` is the table that the call came through, so that a table
   * embedded in a larger structure finds that structure. Runs on any I/O thread, never blocks, never fails: errors are
   * the request's status. It may complete the request before it returns. */
  void (*submit)(const sm_device_ops *self, struct sm_device *device, sm_request *request);
};

enum sm_device_flag {
  SM_DEVICE_READ_ONLY = 1u << 0,
  SM_DEVICE_SHARED = 1u << 1,         /* others may write to the medium at any time */
  SM_DEVICE_DISCARD = 1u << 2,        /* discards reach the medium; without it they complete and do nothing */
  SM_DEVICE_DISCARD_ZEROES = 1u << 3, /* and what was discarded reads as zeroes */
  SM_DEVICE_DIRECT = 1u << 4,         /* I/O goes past the page cache */
};

typedef struct sm_device {
  const sm_device_ops *ops; /* load with acquire, replace with release; never null */
  uint32_t id;              /* unique in the process, never reused */
  uint32_t flags;           /* enum sm_device_flag */
  const char *name;         /* as the user named it; unique in the host */
  uint64_t bytes;           /* size */
  uint32_t block_size;      /* bytes: offsets and lengths are multiples of it */
  uint32_t max_transfer;    /* bytes: no request is longer */
  void *driver;             /* the driver's own */
} sm_device;

/* Sends a request through the device's dispatch table as it is now. */
static inline void sm_device_submit(sm_device *device, sm_request *request) {
  const sm_device_ops *ops = __atomic_load_n(&device->ops, __ATOMIC_ACQUIRE);
  request->device = device;
  ops->submit(ops, device, request);
}

#ifdef __cplusplus
}
#endif
#endif
