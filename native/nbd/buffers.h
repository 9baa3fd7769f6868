// Memory for the payloads of one I/O thread's connections: from the thread's registered pool, as long as half of that
// stays free for those who cannot go on without it; beyond that, and for what is longer than one request of a disk,
// from memory of our own, which nobody touches before it is needed.
//
// Thread contract: constructed anywhere, then the I/O thread alone. Invariants: what is given out is bounded by half of
// the thread's pool and `bytes`; while nothing is given out, the longest payload can be; who waits is served in order,
// and nobody overtakes.
#pragma once

#include <cstdint>

#include "engine/buffer_pool.h"
#include "engine/io_thread.h"

namespace sm::nbd {

class Buffers {
 public:
  // Someone who waits: `retry` runs on the thread, once, when it is worth asking again.
  struct Waiter {
    void (*retry)(Waiter* waiter) = nullptr;
    Waiter* next = nullptr;
    bool waiting = false;
  };

  Buffers(IoThread& thread, uint64_t bytes);

  // At least `length` bytes, aligned to 4 KiB; null: `waiter` waits from now on.
  uint8_t* get(uint64_t length, Waiter* waiter);
  void put(uint8_t* data);
  void forget(Waiter* waiter);  // it waits no longer

 private:
  struct Wake : sm_task {
    Buffers* owner;
    bool queued = false;
  };

  uint8_t* take(uint64_t length);
  void wait(Waiter* waiter);
  void wake();

  IoThread& thread_;
  BufferPool own_;
  Waiter *first_ = nullptr, *last_ = nullptr;
  Wake wake_;
};

}  // namespace sm::nbd
