// Interposition below: a device's dispatch table is exchanged, at run time and with I/O in flight, for a chain of
// interposers that ends at the driver's own table.
//
// Thread contract: insert, remove and order from any thread that is not an I/O thread; they serialise themselves. The
// thunk runs on I/O threads, takes no lock and writes nothing.
//
// Invariants (rule 10): the exchange is one atomic store to the device's `ops`. A chain never changes once it is
// published: a new order is a new chain. Links are never freed, so that a thread that loaded the old table and was held
// up enters the old chain later, passes the interposers that are gone, and reaches the driver. Links are used again
// only after every I/O thread has been seen between two requests.
#pragma once

#include <stratamap/device.h>
#include <stratamap/services.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

namespace sm {

// Sees each request to a device on its way down; pushes a completion frame to see it on its way up.
class Interposer {
 public:
  virtual ~Interposer() = default;
  // Passes the request on by next->submit(next, device, request), now or later, or completes it itself. On an I/O
  // thread; must not block.
  virtual void submit(const sm_device_ops* next, sm_device* device, sm_request* request) = 0;
  // Requests that it has seen or holds, and whose completion it has not seen.
  virtual uint64_t inside() const = 0;

 private:
  friend class DispatchChain;
  std::atomic<bool> active_{false};
};

class DispatchChain {
 public:
  // The chain of a device; made at the first call, kept for the life of the process.
  static DispatchChain& of(sm_device* device);

  // Puts an interposer at the top (it sees requests first). -EEXIST, -ENOSPC beyond kMost.
  int insert(Interposer* interposer);
  // Takes it out, then waits at most `timeout` ns until nothing runs inside it. 0, -ENOENT, or -ETIMEDOUT: it is out
  // and passes everything through, but must not be freed.
  int remove(const sm_stack* stack, Interposer* interposer, uint64_t timeout);

  static constexpr size_t kMost = 6;  // completion frames of a request are limited

 private:
  struct Link {
    sm_device_ops ops;
    const sm_device_ops* next = nullptr;
    Interposer* interposer = nullptr;
  };

  explicit DispatchChain(sm_device* device);
  static void thunk(const sm_device_ops* self, sm_device* device, sm_request* request);
  void publish();
  Link* takeLink();

  sm_device* const device_;
  const sm_device_ops* const driver_;
  std::mutex mutex_;                      // of what follows
  std::vector<Interposer*> interposers_;  // top first
  std::vector<std::unique_ptr<Link>> links_;
  std::vector<Link*> current_, retired_, free_;
};

}  // namespace sm
