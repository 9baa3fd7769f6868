// An I/O thread: one ring, its buffers, its requests, its timers; everything that a request needs from submission to
// completion. Also the place where work from other threads arrives.
//
// Thread contract: post() and wake-ups from any thread; call() from any thread but an I/O thread; everything else on
// the thread itself. Invariants: a request is allocated and released on one and the same thread; nothing here allocates
// after the constructor, except task queues of other owners.
#pragma once

#include <stratamap/services.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace sm {

class BufferPool;  // engine/buffer_pool.h
class Ring;        // sys/ring.h

struct IoThreadOptions {
  uint32_t index = 0;
  uint32_t requests = 8192;         // preallocated requests, above and below together
  uint64_t bufferBytes = 32 << 20;  // size of the pool of buffers
  uint32_t ringEntries = 1024;
  bool uring = true;  // false: never try io_uring
};

// The host-wide order of submissions (sm_stack.stamp): a request remembers the epoch in which it was allocated.
struct HostClock {
  std::atomic<uint64_t> epoch{1};
  std::atomic<uint32_t> threads{1};  // serials are handed out with this stride, so that threads share nothing
};

class IoThread {
 public:
  IoThread(const IoThreadOptions& options, HostClock& clock);
  ~IoThread();  // stops the thread; everything posted before has run
  IoThread(const IoThread&) = delete;
  IoThread& operator=(const IoThread&) = delete;

  // The I/O thread that is running this code, or null.
  static IoThread* current();

  uint32_t index() const;
  uint32_t requests() const;  // how many are preallocated
  // Null where io_uring is refused or was not built in; whyNoRing then says why.
  Ring* ring();
  const std::string& whyNoRing() const;
  // False where locked memory did not suffice; the pool works all the same.
  bool buffersRegistered() const;
  const std::string& whyBuffersUnregistered() const;

  // --- from any thread
  void post(sm_task* task);
  void call(void (*run)(void*), void* context);
  // Requests allocated in an epoch before `stamp` that are not released yet.
  uint64_t busyBefore(uint64_t stamp) const;

  // --- on the thread
  uint64_t now() const;  // once per pass of the loop
  BufferPool& buffers();
  // A zeroed request with its extension and an own serial; null when there is none left.
  sm_request* allocate();
  // See sm_services.clone; null too where the slice is not inside the parent.
  sm_request* clone(const sm_request* parent, uint64_t from, uint64_t length);
  void release(sm_request* request);
  // Runs `task` after a request or a buffer has been given back; in the order of the calls.
  void wait(sm_task* task);
  // Runs `task` at the end of this pass of the loop, after everything else that is done in it: the place to send on at
  // once what came of a batch of completions. What is handed in by such a task runs in the next pass.
  void atEndOfPass(sm_task* task);
  // Completes a request from the loop, not from within the caller: no recursion, whatever the driver's speed.
  void completeLater(sm_request* request, int32_t status);
  void timerStart(sm_timer* timer, uint64_t delay);
  void timerStop(sm_timer* timer);
  // CPU time that this thread has used, ns.
  uint64_t cpuTime() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace sm
