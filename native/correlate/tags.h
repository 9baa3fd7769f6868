// Identifiers that we add to requests: a context's slot and the generation of its use, so that finding needs no lookup
// and a tag that outlived its request is recognised.
//
// Thread contract: next, enter and leave are serialised by the owner; find from any thread. Invariant: no tag is handed
// out twice before 2^39 others.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <random>

#include "correlate/association.h"

namespace sm {

class Tags {
 public:
  explicit Tags(uint32_t capacity) : capacity_(capacity), live_(new std::atomic<uint64_t>[capacity]) {
    // A random start: what a volume leaves in a field by accident is no tag of ours.
    std::random_device random;
    generation_ = (static_cast<uint64_t>(random()) << 8) | 1;
    for (uint32_t i = 0; i < capacity; ++i) live_[i].store(0, std::memory_order_relaxed);
  }
  uint64_t next(uint32_t slot) {
    const uint64_t generation = generation_++ & (kGenerations - 1);
    return (generation << kSlotBits) | slot | kMark;
  }
  bool enter(uint32_t slot, uint64_t tag) {
    if (slot >= capacity_) return false;
    live_[slot].store(tag, std::memory_order_release);
    return true;
  }
  void leave(uint32_t slot) { live_[slot].store(0, std::memory_order_release); }
  // The slot under which `tag` was entered, or Association::kNone.
  uint32_t find(uint64_t tag) const {
    const uint32_t slot = static_cast<uint32_t>(tag & (kSlots - 1));
    if (!isTag(tag) || slot >= capacity_) return Association::kNone;
    return live_[slot].load(std::memory_order_acquire) == tag ? slot : Association::kNone;
  }
  static bool isTag(uint64_t word) { return word & kMark; }

 private:
  static constexpr int kSlotBits = 24;
  static constexpr uint64_t kSlots = 1ull << kSlotBits, kMark = 1ull << 63, kGenerations = 1ull << (63 - kSlotBits);

  const uint32_t capacity_;
  std::unique_ptr<std::atomic<uint64_t>[]> live_;
  uint64_t generation_;
};

}  // namespace sm
