// Slots for what requests are known by where the id may be ours: an id is a slot and the generation of its use, so that
// finding takes no hash and no comparison of keys, and an id that outlived its request is recognised.
//
// Thread contract: a slot belongs to a lane for ever. A lane is one thread's (or one lock's), which binds in it and
// releases what is its own by plain loads and stores. find from any thread. An id that was handed to another thread is
// released there, by that thread's lane or by giveBack; once, by whoever has the request. find of an id that is bound
// for the whole call finds it, and sees all that was written before bind; of one that is released meanwhile, it gives
// either answer; it never gives another id's value.
//
// Layout: a slot is one word, eight in a cache line, those of a lane side by side, so that lanes share no line. Of a
// lane, what its thread writes has a line, and what others write has another: a lane that nobody gives anything back to
// touches no line that another thread writes, and takes back all that it was given at once.
//
//   id     1 | generation, 39 bits | slot, 24 bits
//   word   1 | generation          | value               bound
//          0 | generation          | the next free slot  free; 0 also where it was never used
//
// Invariants:
//  - the generation of a slot grows at each bind: no id is handed out again before 2^39 others of its slot;
//  - a free slot is in one of three places: its lane's `free`, its lane's `returned`, or beyond `fresh`;
//  - `returned` is only pushed to, one slot at a time, and taken whole, by its lane: so a head that is seen again is
//    the head again, and there is no ABA.
#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>

#include "map/pages.h"

namespace sm {

class ContextSlots {
 public:
  static constexpr uint64_t kNoId = 0;
  static constexpr int kValueBits = 24;
  static constexpr uint32_t kLargest = (1u << kValueBits) - 1;    // value
  static constexpr uint32_t kMostSlots = (1u << kValueBits) / 2;  // of all lanes

  class alignas(64) Lane {
   public:
    // An id for the value, at most kLargest. kNoId: all of the lane's slots are bound.
    uint64_t bind(uint32_t value) {
      if (free_ == kEnd) [[unlikely]]
        return bindFirst(value);
      const uint32_t slot = free_;
      const uint64_t word = words_[slot].load(std::memory_order_relaxed);
      free_ = static_cast<uint32_t>(word & kValue);
      // Where the generation overflows, it does so into the mark.
      const uint64_t tag = ((word & ~kValue) + kNext) | kMark;
      words_[slot].store(tag | value, std::memory_order_release);
      return tag | slot;
    }
    // Of an id of any lane. Returns whether it was bound.
    bool release(uint64_t id) {
      const uint32_t slot = slotOf(id);
      if (slot - first_ > last_) return slots_->giveBack(id);
      if (!isId(id) || !same(words_[slot].load(std::memory_order_relaxed), id)) return false;
      words_[slot].store((id & ~(kValue | kMark)) | free_, std::memory_order_release);
      free_ = slot;
      return true;
    }

   private:
    friend class ContextSlots;
    uint64_t bindFirst(uint32_t value);

    std::atomic<uint64_t>* words_ = nullptr;  // of all lanes
    ContextSlots* slots_ = nullptr;
    uint32_t free_ = kEnd;
    uint32_t fresh_ = 0, end_ = 0;   // slots that never were in use
    uint32_t first_ = 0, last_ = 0;  // its slots: first_ … first_ + last_
    alignas(64) std::atomic<uint32_t> returned_{kEnd};
  };
  static_assert(sizeof(Lane) == 128);

  // `capacity`: how many each lane has room for. std::invalid_argument: that makes more than kMostSlots.
  explicit ContextSlots(uint32_t capacity, uint32_t lanes = 1);
  ContextSlots(const ContextSlots&) = delete;
  ContextSlots& operator=(const ContextSlots&) = delete;

  Lane& lane(uint32_t i) { return lanes_[i]; }

  // Whether `id` is bound; its value then goes to *value. Any word may be asked for.
  bool find(uint64_t id, uint32_t* value) const {
    const uint32_t slot = slotOf(id);
    if (slot >= count_) return false;
    const uint64_t word = words_[slot].load(std::memory_order_acquire);
    if (!isId(id) || !same(word, id)) return false;
    *value = static_cast<uint32_t>(word & kValue);
    return true;
  }
  // From a thread that has no lane. Returns whether `id` was bound.
  bool giveBack(uint64_t id);

  static bool isId(uint64_t word) { return word & kMark; }
  // What its slots lie in.
  const Pages& pages() const { return words_.pages(); }

 private:
  static constexpr uint64_t kMark = 1ull << 63, kNext = 1ull << kValueBits, kValue = kNext - 1;
  static constexpr uint32_t kEnd = kValue;

  static uint32_t slotOf(uint64_t id) { return static_cast<uint32_t>(id & kValue); }
  static bool same(uint64_t word, uint64_t id) { return (word ^ id) < kNext; }
  bool isBound(uint64_t id) const {
    return isId(id) && slotOf(id) < count_ && same(words_[slotOf(id)].load(std::memory_order_relaxed), id);
  }

  const uint32_t perLane_, count_;
  const uint64_t start_;  // the generation before the first
  PagedArray<std::atomic<uint64_t>> words_;
  std::unique_ptr<Lane[]> lanes_;
};

}  // namespace sm
