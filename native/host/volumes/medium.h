// Metadata on a device, read and written from a thread that may block. What all volumes put on a device, in order:
// a superblock, two copies of the directory (used on the first device alone), then what the volume's type puts there.
#pragma once

#include <stratamap/services.h>

#include <bit>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "durability.h"
#include "report.h"

namespace sm {

static_assert(std::endian::native == std::endian::little, "the structures on the medium are little-endian");

constexpr uint64_t kPage = 4096;  // bytes: metadata is written in these, so it suits any block size up to this
constexpr uint64_t kDirectoryBytes = 40 * kPage;  // one copy
constexpr uint64_t kDirectoryAt = kPage;          // the first copy; the second lies behind it
constexpr uint64_t kTypeAt = kDirectoryAt + 2 * kDirectoryBytes;

constexpr uint64_t roundUp(uint64_t value, uint64_t unit) { return (value + unit - 1) / unit * unit; }

struct FreeMemory {
  void operator()(void* memory) const { free(memory); }
};
using PageMemory = std::unique_ptr<uint8_t, FreeMemory>;

// Zeroed memory for whole pages, aligned to them; null where there is none.
inline PageMemory allocatePages(uint64_t bytes) {
  const uint64_t length = roundUp(bytes ? bytes : 1, kPage);
  PageMemory memory(static_cast<uint8_t*>(aligned_alloc(kPage, length)));
  if (memory) memset(memory.get(), 0, length);
  return memory;
}

// services->io with an error that names the device and the place.
inline int32_t mediumIo(const sm_services* services, sm_device* device, uint8_t op, uint64_t offset, void* data,
                        uint64_t length, sm_error* error) {
  static constexpr const char* kNames[] = {"", "read", "write", "flush", "discard", "write zeroes to"};
  const int32_t status = services->io(services, device, op, offset, data, length);
  if (status == 0) return 0;
  return report(error, status, "cannot %s device '%s' (offset %llu, %llu bytes): %s", kNames[op], device->name,
                static_cast<unsigned long long>(offset), static_cast<unsigned long long>(length), strerror(-status));
}

// A flush of an open volume's device.
inline int32_t mediumFlush(const sm_services* services, sm_device* device, Durability& durability, sm_error* error) {
  if (int32_t status = mediumIo(services, device, SM_OP_FLUSH, 0, nullptr, 0, error)) {
    durability.lose(status);
    return status;
  }
  return durability.check(error);
}

}  // namespace sm
