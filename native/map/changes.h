// What of the disks' address spaces has changed and is not written yet: regions of 256 KiB, each once, and long ranges
// as they are. Smaller than a node (16 MiB), for what is written of one is all that is known of it: random writes over
// a large disk would else have some 40 KiB written for each.
//
// Thread contract: `mark` under the map's lock, and no more than a probe of a hash table; the rest while the map does
// not mark in it (AddressMap::markIn). Invariants: all memory is taken at the beginning; `slots_` has the number, from
// 1, of every part that is one region; what finds no room sets everything().
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "map/region.h"
#include "map/types.h"

namespace sm {

class Changes {
 public:
  struct Part {
    DiskKey disk = kNoKey;
    Range virt;
  };
  static constexpr size_t kMost = 1 << 17;
  static constexpr size_t kMany = kMost / 4;
  static constexpr uint64_t kLong = 64;  // regions, from which on a range is one part

  // `many` is called once there are kMany parts, under the map's lock.
  explicit Changes(std::function<void()> many);

  void mark(DiskKey disk, Range virt);
  void markEverything() { everything_ = true; }
  void clear();

  bool empty() const { return parts_.empty() && !everything_; }
  bool everything() const { return everything_; }
  std::span<const Part> parts() const { return parts_; }

 private:
  void markRegion(DiskKey disk, uint64_t region);
  void append(DiskKey disk, Range virt);

  const std::function<void()> many_;
  const std::unique_ptr<uint32_t[]> slots_;
  std::vector<Part> parts_;
  bool everything_ = false;
};

}  // namespace sm
