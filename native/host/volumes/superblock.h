// The first page of every device of a volume: whose it is, and of what shape. Written by format alone.
#pragma once

#include <stratamap/services.h>

namespace sm {

constexpr uint32_t kSuperblockWords = 6;
constexpr uint32_t kMaxDevices = 64;

// As on the medium, at offset 0.
struct Superblock {
  char magic[8];
  uint32_t version;
  uint32_t deviceIndex;
  uint32_t deviceCount;
  uint32_t blockSize;    // bytes: the largest of the devices' at format
  uint64_t deviceBytes;  // this device's size at format
  uint8_t uuid[16];      // of the volume
  char type[32];
  uint64_t words[kSuperblockWords];  // the type's own
  uint8_t reserved[512 - 132];
  uint32_t crc;  // of the bytes before it
};
static_assert(sizeof(Superblock) == 512);

// Makes the devices nobody's, durably, zeroes what others may be known by, and makes up the superblock that will be
// written. -EINVAL where they do not suit.
int32_t superblockErase(const sm_services* services, sm_device* const* devices, uint32_t count, const char* type,
                        Superblock* out, sm_error* error);
// Makes everything on the devices durable, then writes their superblocks: the last step of format.
int32_t superblockWrite(const sm_services* services, sm_device* const* devices, Superblock superblock, sm_error* error);

// Reads and checks every device's superblock; `out` has `count` of them. Errors: -EMEDIUMTYPE not ours, or another type
// of volume; -EPROTONOSUPPORT another version; -EBADMSG torn or damaged; -ENODEV too few or too many devices; -EXDEV a
// device of another volume, or devices in another order; -EOVERFLOW a device smaller than it was; -EINVAL a block size
// larger than it was.
int32_t superblockOpen(const sm_services* services, sm_device* const* devices, uint32_t count, const char* type,
                       Superblock* out, sm_error* error);

}  // namespace sm
