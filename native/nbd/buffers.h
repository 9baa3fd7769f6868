// Memory for the payloads of one I/O thread's connections: from the thread's registered pool, as long as half of that
// stays free for those who cannot go on without it; beyond that, and for what is longer than one request of a disk,
// from memory of our own, which nobody touches before it is needed.
//
// Thread contract: constructed anywhere, then the I/O thread alone. Invariants: what is given out is bounded by half of
// the thread's pool and `bytes`; while nothing is given out, the longest payload can be; of those who wait for what the
// pool can have, and of those who wait for more, each are served in order, and neither can keep the others waiting.
#pragma once

#include <cstdint>

#include "engine/buffer_pool.h"
#include "engine/io_thread.h"

namespace sm::nbd {

class Buffers {
 public:
  struct Waiter;
  // In the order in which they came.
  struct Queue {
    void add(Waiter* waiter);
    void remove(Waiter* waiter);
    void wake();
    Waiter *first = nullptr, *last = nullptr;
  };

  // Someone who waits: `retry` runs on the thread, once, when it is worth asking again.
  struct Waiter {
    void (*retry)(Waiter* waiter) = nullptr;
    Waiter* next = nullptr;
    Queue* queue = nullptr;  // while it waits
    bool waiting() const { return queue; }
  };

  Buffers(IoThread& thread, uint64_t bytes);

  // At least `length` bytes, aligned to 4 KiB; null: `waiter` waits from now on.
  uint8_t* get(uint64_t length, Waiter* waiter);
  void put(uint8_t* data);
  void forget(Waiter* waiter);  // it waits no longer
  // What one connection may hold at most, beside the one request that it may always have: a client that reads no
  // replies does not keep the others from theirs.
  uint64_t share() const { return own_.bytes() / 8; }

 private:
  struct Wake : sm_task {
    Buffers* owner;
    bool queued = false;
  };

  uint8_t* take(uint64_t length);
  void wake();

  IoThread& thread_;
  BufferPool own_;
  Queue small_, large_;
  Wake wake_;
};

}  // namespace sm::nbd
