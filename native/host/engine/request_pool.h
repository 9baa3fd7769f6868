// The requests of one I/O thread, all allocated at the start.
//
// Thread contract: busyBefore() from any thread, everything else on the owning thread. Invariants: a slot's birth is
// the epoch of its allocation while it is in use and 0 while it is not; serials are unique in the host, because thread
// i of n hands out n*k + i + 1.
#pragma once

#include <stratamap/request.h>

#include <atomic>
#include <cstdint>
#include <memory>

#include "engine/io_thread.h"

namespace sm {

class RequestPool {
 public:
  RequestPool(uint32_t count, uint32_t threadIndex, const HostClock& clock);
  ~RequestPool();
  RequestPool(const RequestPool&) = delete;
  RequestPool& operator=(const RequestPool&) = delete;

  sm_request* allocate();
  // Null too where the slice is not inside the parent.
  sm_request* clone(const sm_request* parent, uint64_t from, uint64_t length);
  void release(sm_request* request);

  uint64_t busyBefore(uint64_t stamp) const;
  uint64_t returns() const { return returns_; }  // how often release was called
  uint32_t capacity() const { return count_; }

 private:
  struct Slot;
  Slot* take();

  const HostClock& clock_;
  const uint32_t count_;
  const uint64_t stride_;
  uint64_t nextSerial_;
  uint64_t returns_ = 0;
  std::unique_ptr<Slot[]> slots_;
  std::unique_ptr<Slot*[]> free_;  // a stack: what was used last is warm
  uint32_t freeCount_;
  const bool asymmetric_;  // busyBefore() has the barrier of both sides
};

}  // namespace sm
