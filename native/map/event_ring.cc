#include "map/event_ring.h"

#include <algorithm>

namespace sm {

EventRing::EventRing(size_t capacity, uint64_t origin)
    : mask_(capacity - 1), origin_(origin), words_(new double[capacity]) {}

bool EventRing::begin(size_t words) {
  uint64_t tail = tail_.load(std::memory_order_relaxed);
  if (tail + words - head_.load(std::memory_order_acquire) > mask_ + 1) {
    dropped_.fetch_add(1, std::memory_order_relaxed);
    return false;
  }
  return true;
}

bool EventRing::commit(size_t words) {
  tail_.store(tail_.load(std::memory_order_relaxed) + words, std::memory_order_seq_cst);
  // Pairs with arm(): either it sees the new tail, or this sees it armed.
  return armed_.load(std::memory_order_seq_cst) && armed_.exchange(false, std::memory_order_seq_cst);
}

size_t EventRing::drain(double* out, size_t room) {
  const uint64_t head = head_.load(std::memory_order_relaxed);
  const uint64_t tail = tail_.load(std::memory_order_acquire);
  const size_t most = static_cast<size_t>(std::min<uint64_t>(room, tail - head));
  const size_t from = head & mask_, first = std::min(most, mask_ + 1 - from);
  std::copy_n(&words_[from], first, out);
  std::copy_n(&words_[0], most - first, out + first);
  // As many as are whole: looked for where they are in the cache by now.
  size_t count = 0;
  while (count < most && static_cast<size_t>(out[count]) <= most - count) count += static_cast<size_t>(out[count]);
  head_.store(head + count, std::memory_order_release);
  return count;
}

bool EventRing::arm() {
  armed_.store(true, std::memory_order_seq_cst);
  if (tail_.load(std::memory_order_seq_cst) == head_.load(std::memory_order_relaxed)) return true;
  // Where a commit has taken it meanwhile, its wake-up is on the way.
  return !armed_.exchange(false, std::memory_order_seq_cst);
}

}  // namespace sm
