#include "nbd/buffers.h"

#include <bit>
#include <utility>

#include "nbd/protocol.h"

namespace sm::nbd {

namespace {
constexpr uint64_t kRegisteredMost = 1 << 20;  // bytes: the longest request of a disk
}

Buffers::Buffers(IoThread& thread, uint64_t bytes)
    : thread_(thread), own_(bytes < kPayloadMost ? uint64_t{kPayloadMost} : std::bit_floor(bytes)) {
  wake_.owner = this;
  wake_.run = [](sm_task* task) { static_cast<Wake*>(task)->owner->wake(); };
}

uint8_t* Buffers::get(uint64_t length, Waiter* waiter) {
  uint8_t* data = first_ ? nullptr : take(length);
  if (!data) wait(waiter);
  return data;
}

uint8_t* Buffers::take(uint64_t length) {
  void* data = nullptr;
  uint64_t capacity;
  BufferPool& registered = thread_.buffers();
  if (length <= kRegisteredMost && registered.freeBytes() >= registered.bytes() / 2 + std::bit_ceil(length) &&
      registered.get(length, &data, &capacity)) {
    return static_cast<uint8_t*>(data);
  }
  return own_.get(length, &data, &capacity) ? static_cast<uint8_t*>(data) : nullptr;
}

void Buffers::put(uint8_t* data) {
  if (own_.contains(data, 1)) {
    own_.put(data);
  } else {
    thread_.buffers().put(data);
  }
  if (!first_ || wake_.queued) return;
  wake_.queued = true;
  thread_.atEndOfPass(&wake_);
}

void Buffers::wait(Waiter* waiter) {
  waiter->next = nullptr;
  waiter->waiting = true;
  (last_ ? last_->next : first_) = waiter;
  last_ = waiter;
}

void Buffers::forget(Waiter* waiter) {
  if (!waiter->waiting) return;
  waiter->waiting = false;
  Waiter* previous = nullptr;
  for (Waiter* each = first_; each != waiter; each = each->next) previous = each;
  (previous ? previous->next : first_) = waiter->next;
  if (last_ == waiter) last_ = previous;
}

// Each asks again, and waits again if need be: behind the others that wait again, so in the same order.
void Buffers::wake() {
  wake_.queued = false;
  Waiter* waiter = std::exchange(first_, nullptr);
  last_ = nullptr;
  while (waiter) {
    Waiter* next = waiter->next;
    waiter->waiting = false;
    waiter->retry(waiter);
    waiter = next;
  }
}

}  // namespace sm::nbd
