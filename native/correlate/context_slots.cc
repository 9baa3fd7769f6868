#include "correlate/context_slots.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace sm {

namespace {

// A line's worth at least, so that lanes share none.
uint32_t slotsOf(uint32_t capacity, uint32_t lanes) {
  const uint64_t each = std::bit_ceil(std::max<uint64_t>(capacity, 8));
  if (lanes == 0 || each > ContextSlots::kMostSlots / lanes) {
    throw std::invalid_argument("context slots: " + std::to_string(lanes) + " lanes of " + std::to_string(capacity));
  }
  return static_cast<uint32_t>(each);
}

}  // namespace

ContextSlots::ContextSlots(uint32_t capacity, uint32_t lanes)
    : perLane_(slotsOf(capacity, lanes)),
      count_(perLane_ * lanes),
      // A random start: what a volume leaves in a field by accident is no id of ours.
      start_([] {
        std::random_device random;
        return (static_cast<uint64_t>(random()) << 32 | random()) & ~(kMark | kValue);
      }()),
      words_(count_),
      lanes_(new Lane[lanes]) {
  for (uint32_t i = 0; i < lanes; ++i) {
    Lane& lane = lanes_[i];
    lane.words_ = &words_[0];
    lane.slots_ = this;
    lane.first_ = lane.fresh_ = i * perLane_;
    lane.last_ = perLane_ - 1;
    lane.end_ = lane.first_ + capacity;
  }
}

// What was given back, or else some that never were in use, by the page: a lane in which few are ever bound touches
// little memory.
uint64_t ContextSlots::Lane::bindFirst(uint32_t value) {
  if (returned_.load(std::memory_order_relaxed) != kEnd) {
    free_ = returned_.exchange(kEnd, std::memory_order_acquire);
    return bind(value);
  }
  const uint32_t end = std::min(end_, fresh_ + 64);
  for (uint32_t slot = end; slot > fresh_; --slot) {
    words_[slot - 1].store(slots_->start_ | free_, std::memory_order_relaxed);
    free_ = slot - 1;
  }
  fresh_ = end;
  return free_ == kEnd ? kNoId : bind(value);
}

bool ContextSlots::giveBack(uint64_t id) {
  if (!isBound(id)) return false;
  const uint32_t slot = slotOf(id);
  std::atomic<uint32_t>& returned = lanes_[slot / perLane_].returned_;
  uint32_t head = returned.load(std::memory_order_relaxed);
  do {
    words_[slot].store((id & ~(kValue | kMark)) | head, std::memory_order_relaxed);
  } while (!returned.compare_exchange_weak(head, slot, std::memory_order_release, std::memory_order_relaxed));
  return true;
}

}  // namespace sm
