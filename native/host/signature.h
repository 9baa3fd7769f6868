// What a device may carry that a format must not destroy unasked.
//
// Thread contract: from any thread but an I/O thread.
#pragma once

#include <stratamap/device.h>

#include <functional>
#include <string>

#include "engine/failure.h"

namespace sm {

struct Signature {
  std::string name;     // "ext2/3/4", … ; empty: none that is known
  uint64_t offset = 0;  // bytes from the start of the device
};

// Reads `length` bytes at `offset` of the device; 0 or a negative errno. Both are multiples of its block size.
using ReadDevice = std::function<int(uint64_t offset, void* data, uint64_t length)>;

// Looks for every signature that is known. 0, or the negative errno with which a read failed, at `out->offset`.
int findSignature(const sm_device& device, const ReadDevice& read, Signature* out);

// Why a device must not be formatted: it has one (ERR_STRATAMAP_SIGNATURE), or cannot be read; or nothing.
Failure checkUnsigned(const sm_device& device, const ReadDevice& read);

}  // namespace sm
