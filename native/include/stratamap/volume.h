/* A volume: the opaque layer. It places the bytes of virtual disks on devices, and tells nobody where.
 *
 * A third party's volume is a shared object that exports `stratamap_volume`. Compile it against these headers alone:
 *   cc -shared -fPIC -I include my_volume.c -o my_volume.so
 *
 * The entries before `submit` may block: the host calls them on a thread that is not an I/O thread, never two at a time
 * for one volume, but while `submit` runs on the home I/O thread. They do their I/O by sm_services.io and reach state
 * that submit uses by sm_services.call. `submit` must not block: a volume that has to does it in threads of its own,
 * which hand the request on by sm_services.post. */
#ifndef STRATAMAP_VOLUME_H
#define STRATAMAP_VOLUME_H

#include "services.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct sm_disk_info {
  char vm[SM_NAME_MAX + 1];
  char name[SM_NAME_MAX + 1];
  uint64_t bytes;
} sm_disk_info;

enum sm_volume_flag {
  SM_VOLUME_NO_DEVICES = 1u << 0, /* is given no device, and opens its own; without it: always one or more */
};

typedef struct sm_volume_ops {
  uint32_t version; /* SM_CONTRACT_VERSION */
  uint32_t size;    /* sizeof(sm_volume_ops) */
  const char *type; /* the name under which it is opened */

  /* Writes empty metadata to the devices; the host has checked that the user wants that. Unknown options are an error.
   * Null: the volume keeps no metadata. */
  int32_t (*format)(const sm_services *services, sm_device *const *devices, uint32_t device_count,
                    const sm_option *options, uint32_t option_count, sm_error *error);

  /* Opens what format wrote; must not write to media that are not its own. `*volume` is passed to all other entries.
   * `services` and the devices live until close returns; the array of device pointers only during the call. */
  int32_t (*open)(const sm_services *services, sm_device *const *devices, uint32_t device_count,
                  const sm_option *options, uint32_t option_count, void **volume, sm_error *error);
  /* All disks are closed and no request is in flight. Makes metadata durable, then frees everything; frees everything
   * also where it fails. */
  int32_t (*close)(void *volume, sm_error *error);

  /* `bytes` is a multiple of the block size of the devices, at least of 512. -EEXIST, -ENOSPC, -EFBIG (can never hold
   * it). */
  int32_t (*disk_create)(void *volume, const char *vm, const char *name, uint64_t bytes, sm_error *error);
  int32_t (*disk_list)(void *volume, void (*each)(void *context, const sm_disk_info *info), void *context,
                       sm_error *error);
  /* `*disk` is passed to submit. -ENOENT. The host opens a disk at most once at a time. */
  int32_t (*disk_open)(void *volume, const char *vm, const char *name, void **disk, uint64_t *bytes, sm_error *error);
  void (*disk_close)(void *volume, void *disk);
  int32_t (*disk_delete)(void *volume, const char *vm, const char *name, sm_error *error); /* not while it is open */
  /* No request is in flight on the disk. Bytes that shrinking cuts off read as zeroes when it grows again. */
  int32_t (*disk_resize)(void *volume, void *disk, uint64_t bytes, sm_error *error);

  /* One request to a disk, on the home I/O thread. The host has checked that it lies inside the disk, is aligned to the
   * block size, has at most SM_IOV_MAX segments and is not longer than 1 MiB if it carries data. The volume issues
   * children and completes the request by sm_request_complete. */
  void (*submit)(void *volume, void *disk, sm_request *request);

  uint32_t flags; /* enum sm_volume_flag; 0 where a table ends before it */
} sm_volume_ops;

/* The one symbol that a shared object exports. */
#define SM_VOLUME_ENTRY "stratamap_volume"
typedef const sm_volume_ops *(*sm_volume_entry_fn)(void);

#ifdef __cplusplus
}
#endif
#endif
