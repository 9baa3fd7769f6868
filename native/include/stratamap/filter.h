/* A filter of a virtual disk: sees each request before the volume, and its completion after it.
 *
 * A whole filter that counts writes:
 *
 *   static int submit(void *self, sm_request *request) {
 *     if (request->op == SM_OP_WRITE) ++*(uint64_t *)self;
 *     return SM_FILTER_NEXT;
 *   }
 *   static const sm_filter_ops count_writes = {SM_CONTRACT_VERSION, sizeof(sm_filter_ops), "count", submit, 0};
 */
#ifndef STRATAMAP_FILTER_H
#define STRATAMAP_FILTER_H

#include "disk.h"
#include "request.h"

#ifdef __cplusplus
extern "C" {
#endif

enum sm_filter_verdict {
  SM_FILTER_NEXT = 0, /* go on to the next filter, then to the volume */
  SM_FILTER_TAKEN = 1 /* the filter has it: it completes it, or sends it on by sm_stack.resume */
};

typedef struct sm_filter_ops {
  uint32_t version; /* SM_CONTRACT_VERSION */
  uint32_t size;    /* sizeof(sm_filter_ops) */
  const char *name;
  /* Runs on the disk's home I/O thread, before the volume. Null: passes through. Returns an sm_filter_verdict. */
  int (*submit)(void *self, sm_request *request);
  /* Runs on the same thread after the volume, before the issuer sees the completion; status is set. Null: passes
   * through. The host pops on when it returns. It is called for exactly the requests whose submit was called on this
   * attachment, whatever the verdict. */
  void (*complete)(void *self, sm_request *request);
} sm_filter_ops;

#ifdef __cplusplus
}
#endif
#endif
