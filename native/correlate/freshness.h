// When each block of a disk was last seen to lie where it does, to within half of the greatest age: two bits for each
// block of 4 KiB, for the current half and the one before.
//
// Thread contract: none; guarded by the map's lock. Memory is taken when a part of 16 MiB is first confirmed.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "map/types.h"

namespace sm {

class Freshness {
 public:
  static constexpr uint64_t kBlock = 4096;  // bytes

  // Every block that lies in `range` as a whole was seen in `half`, a number that grows with time.
  void confirm(Range range, uint64_t half) {
    const uint64_t end = range.end / kBlock;
    for (uint64_t block = (range.begin + kBlock - 1) / kBlock; block < end;) {
      const size_t part = static_cast<size_t>(block / kBlocks);
      if (parts_.size() <= part) parts_.resize(part + 1);
      if (!parts_[part]) parts_[part] = std::make_unique<Part>();
      parts_[part]->turn(half);
      const uint64_t stop = std::min(end, (part + 1) * kBlocks);
      for (; block < stop; ++block) parts_[part]->now[block % kBlocks / 64] |= uint64_t{1} << block % 64;
    }
  }

  // Whether each block that `range` touches was seen in `half` or the one before.
  bool isFresh(Range range, uint64_t half) {
    const uint64_t end = (range.end + kBlock - 1) / kBlock;
    for (uint64_t block = range.begin / kBlock; block < end;) {
      const size_t part = static_cast<size_t>(block / kBlocks);
      if (parts_.size() <= part || !parts_[part]) return false;
      Part& bits = *parts_[part];
      bits.turn(half);
      const uint64_t stop = std::min(end, (part + 1) * kBlocks);
      for (; block < stop; ++block) {
        const size_t word = block % kBlocks / 64;
        if (!((bits.now[word] | bits.before[word]) >> block % 64 & 1)) return false;
      }
    }
    return true;
  }

 private:
  static constexpr uint64_t kBlocks = 4096;  // in a part
  struct Part {
    uint64_t half = 0;
    std::array<uint64_t, kBlocks / 64> now{}, before{};
    void turn(uint64_t to) {
      if (half == to) return;
      before = half + 1 == to ? now : std::array<uint64_t, kBlocks / 64>{};
      now = {};
      half = to;
    }
  };
  std::vector<std::unique_ptr<Part>> parts_;
};

}  // namespace sm
