/* A request: one I/O. Above a volume it addresses a virtual disk, below it a device. The host allocates every request;
 * all its memory is preallocated, so that nothing on the path of an I/O allocates.
 *
 * Life of a request: the issuer fills it in, pushes its own completion frame, and submits it. Whoever passes it on and
 * wants to see it come back pushes a frame. Whoever executes it calls sm_request_complete once, on the I/O thread that
 * submitted it. The frames then run, last pushed first; each ends by calling sm_request_pop (now or later, on the same
 * thread), and the bottom frame, the issuer's, does not, because the request is its own again. */
#ifndef STRATAMAP_REQUEST_H
#define STRATAMAP_REQUEST_H

#include <stdint.h>
#include <sys/uio.h>

#include "contract.h"

#ifdef __cplusplus
extern "C" {
#endif

struct sm_device;
struct sm_disk;
struct sm_request;

enum sm_op {
  SM_OP_READ = 1,         /* data: iov is written to */
  SM_OP_WRITE = 2,        /* data: iov is read from, and must not be written to by anyone until completion */
  SM_OP_FLUSH = 3,        /* no offset, no data: everything completed before is durable at completion */
  SM_OP_DISCARD = 4,      /* no data: the content of the range is undefined afterwards on a device, zeroes on a disk */
  SM_OP_WRITE_ZEROES = 5, /* no data: the range reads as zeroes afterwards */
};

enum sm_flag {
  SM_FLAG_FUA = 1u << 0, /* a write or write-zeroes is durable at its own completion */
};

enum {
  SM_FRAMES = 12,   /* completion frames in a request */
  SM_IOV_MAX = 16,  /* buffer segments in a request */
  SM_EXTENSION = 64 /* bytes of room behind a request */
};

/* A completion frame's function. `word` is what was pushed with it: room for per-request state without allocation. */
typedef void (*sm_done_fn)(struct sm_request *request, void *context, uint64_t word);

typedef struct sm_frame {
  sm_done_fn done;
  void *context;
  uint64_t word;
} sm_frame;

typedef struct sm_request {
  /* What is asked. Set by the issuer before submission, left alone by everyone after it. */
  uint8_t op; /* enum sm_op */
  uint8_t reserved0;
  uint16_t ioprio;         /* the kernel's 16-bit I/O priority; 0: none given. Copied by clone */
  uint32_t flags;          /* enum sm_flag. Copied by clone */
  uint64_t offset;         /* bytes from the start of the target */
  uint64_t length;         /* bytes; 0 for a flush */
  const struct iovec *iov; /* the data; null where there is none. Its segments add up to `length` */
  uint32_t iov_count;      /* at most SM_IOV_MAX */

  /* What came of it. Set by sm_request_complete; frames above may change it before they pop. */
  int32_t status; /* 0, or a negative errno. A request succeeds as a whole or fails as a whole */

  /* Who it is. */
  uint64_t serial;          /* the host's plain counter, unique in the host, never 0. Copied by clone, new for fresh */
  struct sm_disk *disk;     /* the target above, null below */
  struct sm_device *device; /* the target below, null above; set by sm_device_submit */

  /* What the host carries and never reads. Zero at allocation; copied by clone. */
  void *private_data;
  uint64_t spare[4];
  void *extension; /* SM_EXTENSION bytes behind the request, zero at allocation, copied by clone */

  /* Scratch of whoever has the request: above, the volume; below, an interposer while it holds the request back, then
   * the driver. From when it is submitted to it until it passes it on or calls sm_request_complete; undefined to
   * everyone else and at any other time. */
  uint64_t driver[4];

  /* Completion. Use the functions below. */
  uint32_t frame_count;
  uint32_t reserved1;
  sm_frame frames[SM_FRAMES];
} sm_request;

/* Pushes a frame. Returns 0, or -1 when there is no room: the caller must then pass the request on unseen. */
static inline int sm_request_push(sm_request *request, sm_done_fn done, void *context, uint64_t word) {
  if (request->frame_count >= SM_FRAMES) return -1;
  sm_frame *frame = &request->frames[request->frame_count++];
  frame->done = done;
  frame->context = context;
  frame->word = word;
  return 0;
}

/* Takes the top frame off and runs it: the step by which a completion travels up. */
static inline void sm_request_pop(sm_request *request) {
  const sm_frame *frame = &request->frames[--request->frame_count];
  frame->done(request, frame->context, frame->word);
}

/* Ends a request: called once, by whoever executed it. `status` is 0 or a negative errno. */
static inline void sm_request_complete(sm_request *request, int32_t status) {
  request->status = status;
  sm_request_pop(request);
}

/* Whether an operation changes what its range holds. */
static inline int sm_op_modifies(uint8_t op) {
  return op == SM_OP_WRITE || op == SM_OP_WRITE_ZEROES || op == SM_OP_DISCARD;
}

#ifdef __cplusplus
}
#endif
#endif
