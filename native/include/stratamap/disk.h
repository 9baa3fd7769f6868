/* A virtual disk as filters, tools and events see it. */
#ifndef STRATAMAP_DISK_H
#define STRATAMAP_DISK_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct sm_disk {
  uint32_t id;         /* unique in the process, never reused */
  uint32_t block_size; /* bytes: offsets and lengths are multiples of it */
  uint64_t bytes;      /* size; changes by resize, on the home I/O thread */
  const char *vm;      /* the virtual machine's name */
  const char *name;    /* the disk's name in it; (vm, name) is unique in the host */
} sm_disk;

enum { SM_NAME_MAX = 63 }; /* bytes in the name of a VM or a disk, without the terminating zero */

#ifdef __cplusplus
}
#endif
#endif
