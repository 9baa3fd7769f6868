// What a workload's options come to: which operations in which shares, over which part of the disk.
#pragma once

#include <cstdint>

#include "disks/workload.h"

namespace sm {

// The shares of the operations, in percent; what is left is writes.
struct Mix {
  double read = 0, discard = 0, zeroes = 0, flush = 0;
  bool random = true;
};

// False where pattern or shares make no sense.
bool mixOf(const WorkloadOptions& options, Mix* mix);

// The part of the disk that is used, in units of one I/O.
uint64_t unitsOf(const VirtualDisk& disk, const WorkloadOptions& options);

}  // namespace sm
