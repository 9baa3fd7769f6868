// One block of what a request carried, and where it was said to have gone, to be compared with what is there: a stack
// that transforms data (fscrypt, dm-crypt) is found out so.
//
// Thread contract: none; guarded by the map's lock. Invariant: while `taken`, no modification of the range or of a
// place has been submitted or has started since the request completed.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "map/types.h"

namespace sm {

struct Sample {
  static constexpr uint64_t kMost = 4096;  // bytes

  static constexpr uint32_t kWindow = 1024;  // requests among which one is looked for at a time

  uint32_t wanted = 0;  // so many of them are left
  bool taken = false;
  uint64_t number = 0;  // of the sample
  DiskKey disk = kNoKey;
  Range virt;
  std::vector<Place> places;  // top first
  std::array<std::byte, kMost> bytes;

  // Whether the next request may be it.
  bool wants() {
    if (wanted == 0) return false;
    --wanted;
    return true;
  }
  void modified(DiskKey by, Range range) {
    if (taken && by == disk && !intersect(range, virt).empty()) taken = false;
  }
  void modifiedPlace(DeviceKey device, Range phys) {
    if (!taken) return;
    for (const Place& place : places) {
      const Range here{place.offset, place.offset + virt.length()};
      if (place.device == device && !intersect(phys, here).empty()) taken = false;
    }
  }
};

}  // namespace sm
