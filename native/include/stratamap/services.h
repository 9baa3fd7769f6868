/* What a host offers: sm_services to a volume, sm_stack to a tool that attaches to a running host. */
#ifndef STRATAMAP_SERVICES_H
#define STRATAMAP_SERVICES_H

#include <stddef.h>

#include "device.h"
#include "disk.h"
#include "filter.h"
#include "request.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Work to run later. The owner allocates it; it belongs to the host from the call that takes it until `run` begins. */
typedef struct sm_task {
  struct sm_task *next; /* the host's */
  void (*run)(struct sm_task *task);
} sm_task;

typedef struct sm_timer {
  uint64_t due;    /* the host's */
  size_t position; /* the host's; 0 while not armed. Zero-initialise */
  void (*run)(struct sm_timer *timer);
} sm_timer;

/* Memory from the pool: aligned to 4 KiB, registered with the ring where that is possible. */
typedef struct sm_buffer {
  void *data;
  uint64_t length; /* bytes, at least what was asked for */
} sm_buffer;

enum sm_log_level { SM_LOG_ERROR = 0, SM_LOG_WARNING = 1, SM_LOG_INFO = 2 };

/* One table for each volume; every entry runs on the volume's home I/O thread unless it says otherwise. */
typedef struct sm_services sm_services;
struct sm_services {
  uint32_t version; /* SM_CONTRACT_VERSION */
  uint32_t size;    /* sizeof(sm_services) */

  /* The time, taken once per batch of completions. */
  uint64_t (*now)(const sm_services *self);

  /* --- buffers. get returns 0, -ENOMEM while the pool has none (see wait), -EINVAL if it never can. */
  int32_t (*buffer_get)(const sm_services *self, uint64_t length, sm_buffer *out);
  void (*buffer_put)(const sm_services *self, sm_buffer *buffer);

  /* --- tasks and timers. post: from any thread; runs on the home I/O thread, in the order posted. call: from any
   * thread but an I/O thread; the same, and waits until it has run. timer_start re-arms an armed timer. */
  void (*post)(const sm_services *self, sm_task *task);
  void (*call)(const sm_services *self, void (*run)(void *context), void *context);
  void (*timer_start)(const sm_services *self, sm_timer *timer, uint64_t delay);
  void (*timer_stop)(const sm_services *self, sm_timer *timer);

  /* --- children. clone: a child for `length` bytes of the parent's data from byte `from`: it has the parent's op and
   * length `length`, its iov is that part of the parent's (null where the parent has none), and it carries the
   * parent's ioprio, flags, serial, private_data, spare and extension. fresh: a child that carries nothing, with a
   * serial of its own. Both leave the offset to the caller, who also may point iov elsewhere (at a copy; the
   * array must live until completion) or change the op, push frames, and then calls sm_device_submit. Both return null
   * while the pool has no request left. `wait` runs a task after a request or a buffer has been given back, in the
   * order of the calls; the task tries again, and waits again if need be; it cannot be taken back. A child is released
   * by its own bottom frame or later; until then it takes a place in the pool, so release as soon as it is done, not
   * when its siblings are. Children may outlive their parent. */
  sm_request *(*clone)(const sm_services *self, const sm_request *parent, uint64_t from, uint64_t length);
  sm_request *(*fresh)(const sm_services *self);
  void (*wait)(const sm_services *self, sm_task *task);
  void (*release)(const sm_services *self, sm_request *child);

  /* --- for the calls that may block (see sm_volume_ops). One I/O, and its completion awaited; through the device's
   * dispatch table as all others. From any thread but an I/O thread. `length` may exceed the device's max_transfer.
   * Returns 0 or a negative errno. */
  int32_t (*io)(const sm_services *self, sm_device *device, uint8_t op, uint64_t offset, void *data, uint64_t length);

  /* Says something to the user. From any thread. */
  void (*log)(const sm_services *self, int level, const char *message);

  /* --- devices of the volume's own, for one that keeps its data in files. For the calls that may block, on the thread
   * of the call; a table of `size` that ends before them has none. device_open opens a regular file or a block device
   * exclusively, past the page cache where that can be (SM_DEVICE_DIRECT). Tools find it as "VOLUME/name", with the
   * name that the volume was opened by, which must be unique in the host; of what is longer than SM_NAME_MAX the end is
   * replaced by its hash. Returns 0 or a negative errno, and `*error` then says why. device_close: no request is in
   * flight on it. A device that is opened by disk_open or disk_resize is that disk's, and is watched with it; one that
   * any other entry opens must be closed again before that returns. */
  int32_t (*device_open)(const sm_services *self, const char *name, const char *path, sm_device **out, sm_error *error);
  void (*device_close)(const sm_services *self, sm_device *device);
};

/* What a tool that attaches to a running host is given. Every entry may be called from any thread that is not an I/O
 * thread, unless it says otherwise. */
typedef struct sm_stack sm_stack;
struct sm_stack {
  uint32_t version; /* SM_CONTRACT_VERSION */
  uint32_t size;    /* sizeof(sm_stack) */

  /* Runs `run` once on every I/O thread, between two requests, and waits at most `timeout` ns for all of them. Returns
   * 0, or -ETIMEDOUT: then some threads have not run it yet and will not run it any more. */
  int32_t (*everywhere)(const sm_stack *self, void (*run)(void *context), void *context, uint64_t timeout);

  /* A point in the host's order of submissions, and how many requests (above and below the volumes) that were
   * allocated before that point have not been completed yet. Both from any thread. */
  uint64_t (*stamp)(const sm_stack *self);
  uint64_t (*busy_before)(const sm_stack *self, uint64_t stamp);

  /* Puts a filter at the top of a disk's chain (sees requests first, completions last); returns 0 or -ENOSPC, -EEXIST.
   * detach takes it out and waits at most `timeout` ns until none of its requests is in flight; -ETIMEDOUT: it is out,
   * but its complete may still be called. */
  int32_t (*filter_attach)(const sm_stack *self, sm_disk *disk, const sm_filter_ops *ops, void *context);
  int32_t (*filter_detach)(const sm_stack *self, sm_disk *disk, void *context, uint64_t timeout);

  /* Sends on a request that a filter has taken. On the disk's home I/O thread. */
  void (*resume)(const sm_stack *self, sm_request *request);

  /* The time, taken once per batch of completions; on an I/O thread (elsewhere: the clock is read). */
  uint64_t (*now)(const sm_stack *self);

  /* How many I/O threads there are, and which of them is calling: 0 to threads - 1, elsewhere UINT32_MAX. From any
   * thread. The number never changes. */
  uint32_t (*threads)(const sm_stack *self);
  uint32_t (*thread)(const sm_stack *self);

  /* Timers, on an I/O thread: a timer runs on the thread that started it, never before its time, and is started again
   * and stopped there alone. Its memory is its owner's, who stops it before it goes. */
  void (*timer_start)(const sm_stack *self, sm_timer *timer, uint64_t delay);
  void (*timer_stop)(const sm_stack *self, sm_timer *timer);
};

#ifdef __cplusplus
}
#endif
#endif
