#include "engine/request_pool.h"

#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace sm {

// The extension starts a cache line; birth shares one with what every allocation writes.
struct alignas(64) RequestPool::Slot {
  std::atomic<uint64_t> birth{0};
  sm_request request;
  uint8_t extension[SM_EXTENSION];
  iovec iov[SM_IOV_MAX];  // a clone's slice of its parent's

  static Slot* of(sm_request* request) {
    return reinterpret_cast<Slot*>(reinterpret_cast<char*>(request) - offsetof(Slot, request));
  }
};

RequestPool::RequestPool(uint32_t count, uint32_t threadIndex, const HostClock& clock)
    : clock_(clock),
      count_(count),
      stride_(clock.threads.load()),
      nextSerial_(threadIndex + 1),
      slots_(new Slot[count]),
      free_(new Slot*[count]),
      freeCount_(count),
      asymmetric_(syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0) {
  static_assert(offsetof(Slot, request) == sizeof(uint64_t) && offsetof(Slot, extension) % 64 == 0);
  for (uint32_t i = 0; i < count; ++i) free_[i] = &slots_[count - 1 - i];
}

RequestPool::~RequestPool() = default;

RequestPool::Slot* RequestPool::take() {
  if (freeCount_ == 0) return nullptr;
  Slot* slot = free_[--freeCount_];
  slot->birth.store(clock_.epoch.load(std::memory_order_relaxed), std::memory_order_relaxed);
  if (!asymmetric_) __sync_synchronize();
  // The frames need no clearing, nor the driver's scratch.
  sm_request* request = &slot->request;
  std::memset(request, 0, offsetof(sm_request, extension));
  request->extension = slot->extension;
  request->frame_count = 0;
  request->reserved1 = 0;
  return slot;
}

sm_request* RequestPool::allocate() {
  Slot* slot = take();
  if (!slot) return nullptr;
  std::memset(slot->extension, 0, SM_EXTENSION);
  slot->request.serial = nextSerial_;
  nextSerial_ += stride_;
  return &slot->request;
}

sm_request* RequestPool::clone(const sm_request* parent, uint64_t from, uint64_t length) {
  if (from > parent->length || length > parent->length - from) return nullptr;
  Slot* slot = take();
  if (!slot) return nullptr;
  sm_request* child = &slot->request;
  child->op = parent->op;
  child->ioprio = parent->ioprio;
  child->flags = parent->flags;
  child->length = length;
  child->serial = parent->serial;
  child->private_data = parent->private_data;
  std::memcpy(child->spare, parent->spare, sizeof child->spare);
  std::memcpy(slot->extension, parent->extension, SM_EXTENSION);
  if (!parent->iov) return child;
  child->iov = slot->iov;
  for (uint32_t i = 0; i < parent->iov_count && length > 0; ++i) {
    const iovec& part = parent->iov[i];
    if (from >= part.iov_len) {
      from -= part.iov_len;
      continue;
    }
    const uint64_t size = std::min<uint64_t>(length, part.iov_len - from);
    slot->iov[child->iov_count++] = {static_cast<char*>(part.iov_base) + from, size};
    length -= size;
    from = 0;
  }
  return child;
}

void RequestPool::release(sm_request* request) {
  Slot* slot = Slot::of(request);
  if (slot->birth.load(std::memory_order_relaxed) == 0) {
    std::fputs("stratamap: a request was released twice\n", stderr);
    std::abort();
  }
  slot->birth.store(0, std::memory_order_release);
  free_[freeCount_++] = slot;
  ++returns_;
}

uint64_t RequestPool::busyBefore(uint64_t stamp) const {
  // The barrier that take() does without: afterwards either a birth is visible here, or whatever its thread does after
  // it sees what was done before this call. Where the kernel refuses it, take() has one of its own.
  if (!asymmetric_ || syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) != 0) {
    __sync_synchronize();
  }
  uint64_t busy = 0;
  for (uint32_t i = 0; i < count_; ++i) {
    const uint64_t birth = slots_[i].birth.load(std::memory_order_acquire);
    busy += birth != 0 && birth < stamp;
  }
  return busy;
}

}  // namespace sm
