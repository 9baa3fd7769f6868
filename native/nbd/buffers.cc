#include "nbd/buffers.h"

#include <bit>
#include <utility>

#include "devices/nbd_protocol.h"

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
  Queue& queue = length > kRegisteredMost ? large_ : small_;
  uint8_t* data = queue.first ? nullptr : take(length);
  if (!data) queue.add(waiter);
  return data;
}

uint8_t* Buffers::take(uint64_t length) {
  void* data = nullptr;
  uint64_t capacity;
  BufferPool& registered = thread_.buffers();
  if (length <= kRegisteredMost) {
    if (registered.freeBytes() >= registered.bytes() / 2 + std::bit_ceil(length) &&
        registered.get(length, &data, &capacity)) {
      return static_cast<uint8_t*>(data);
    }
    if (large_.first) return nullptr;
  }
  return own_.get(length, &data, &capacity) ? static_cast<uint8_t*>(data) : nullptr;
}

void Buffers::put(uint8_t* data) {
  if (own_.contains(data, 1)) {
    own_.put(data);
  } else {
    thread_.buffers().put(data);
  }
  if ((!small_.first && !large_.first) || wake_.queued) return;
  wake_.queued = true;
  thread_.atEndOfPass(&wake_);
}

void Buffers::forget(Waiter* waiter) {
  if (waiter->queue) waiter->queue->remove(waiter);
}

void Buffers::wake() {
  wake_.queued = false;
  large_.wake();
  small_.wake();
}

void Buffers::Queue::add(Waiter* waiter) {
  waiter->next = nullptr;
  waiter->queue = this;
  (last ? last->next : first) = waiter;
  last = waiter;
}

void Buffers::Queue::remove(Waiter* waiter) {
  waiter->queue = nullptr;
  Waiter* previous = nullptr;
  for (Waiter* each = first; each != waiter; each = each->next) previous = each;
  (previous ? previous->next : first) = waiter->next;
  if (last == waiter) last = previous;
}

// Each asks again, and waits again if need be: behind the others that wait again, so in the same order.
void Buffers::Queue::wake() {
  Waiter* waiter = std::exchange(first, nullptr);
  last = nullptr;
  while (waiter) {
    Waiter* next = waiter->next;
    waiter->queue = nullptr;
    waiter->retry(waiter);
    waiter = next;
  }
}

}  // namespace sm::nbd
