// Interposition below: a device's dispatch table is exchanged, at run time and with I/O in flight, for a chain of
// interposers that ends at the driver's own table.
//
// Thread contract: insert, remove, order and interposers from any thread that is not an I/O thread; they serialise
// themselves. The thunk, hold and letGo run on I/O threads and take no lock.
//
// Invariants (rule 10):
//  - The exchange is one atomic store to the device's `ops`. A chain never changes once it is published: a new order is
//    a new chain, a *generation*. So a request meets the interposers of the one generation that it entered, each once,
//    whatever is put in or moved while it is under way: one that is held back in a generation goes on through its rest,
//    and is seen there by a probe exactly as often as the probe stands in that generation, which is once.
//  - Taking an interposer out clears it from every generation. A late entrant, or a request that was held back above it
//    in an old generation, passes its link and goes on; whoever was put in again stands in new generations alone.
//  - Generations are never freed. One is used again when it has been replaced, after that every I/O thread has been
//  seen
//    between two requests (`seen`), and no request is held back in it (`held` is 0): then nothing can lead into it any
//    more. Who passes a request on later than in its submit counts it in `held` all the while (hold, letGo), and lets
//    go only after passing it on, so that `held` cannot touch 0 while a request moves from one holder to the next.
//  - So there are at most as many generations as requests that are held back, and those that no I/O thread has been
//  seen
//    since, because it did not answer in time.
#pragma once

#include <stratamap/device.h>
#include <stratamap/services.h>

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "intercept/deadline.h"

namespace sm {

// Sees each request to a device on its way down; pushes a completion frame to see it on its way up. An interposer may
// stand in one device's chain. Where there is no room for a frame, it passes the request on untouched.
class Interposer {
 public:
  virtual ~Interposer() = default;
  // Passes the request on by next->submit(next, device, request), now or later (see DispatchChain::hold), or completes
  // it itself. On an I/O thread; must not block.
  virtual void submit(const sm_device_ops* next, sm_device* device, sm_request* request) = 0;
  // Requests that it has seen or holds, and whose completion it has not seen.
  virtual uint64_t inside() const = 0;
  // It has been taken out: what it holds back goes on now. On each I/O thread, between two requests.
  virtual void release() {}
  virtual const char* name() const { return "interposer"; }
};

class DispatchChain {
 public:
  // The chain of a device; made at the first call, kept for the life of the process.
  static DispatchChain& of(sm_device* device);

  // Puts an interposer in, with `position` others above it: 0 is the top (it sees requests first), beyond the last is
  // the bottom. -EEXIST, -ENOSPC beyond kMost.
  int insert(Interposer* interposer, size_t position = 0);
  // Takes it out and lets what it holds go on, which waits for I/O threads to come by but for no I/O: at most `timeout`
  // ns, or a second where that is longer. 0, -ENOENT, or -ETIMEDOUT: it is out and passes everything through, but must
  // not be freed.
  int takeOut(const sm_stack* stack, Interposer* interposer, uint64_t timeout);
  // Waits until nothing runs inside what was taken out: then it may be freed.
  static bool left(const Interposer* interposer, const Deadline& deadline);
  // Both. `timeout` is obeyed by the wait alone. 0, -ENOENT or -ETIMEDOUT.
  int remove(const sm_stack* stack, Interposer* interposer, uint64_t timeout);
  // Brings those that are in into this order, top first, by one exchange. -EINVAL: it is not a permutation of them.
  int order(const sm_stack* stack, std::span<Interposer* const> order);
  std::vector<Interposer*> interposers() const;  // top first
  std::vector<const char*> names() const;

  // For an interposer that passes a request on later than in its submit: keeps the way down from `next` as it is until
  // letGo, which it calls after it has passed the request on.
  static void hold(const sm_device_ops* next);
  static void letGo(const sm_device_ops* next);

  // Each interposer takes at most one completion frame of a request; its issuer takes one, and a driver may. What is
  // left is for volumes.
  static constexpr size_t kMost = 6;
  static_assert(kMost + 2 <= SM_FRAMES / 4 * 3);

  size_t generations() const;  // that exist, in use or not; for tests

 private:
  struct Generation;
  struct Link {
    sm_device_ops ops;  // first: found from it
    const sm_device_ops* next = nullptr;
    std::atomic<Interposer*> interposer{nullptr};
    Generation* generation = nullptr;
  };
  struct Generation {
    std::array<Link, kMost> links;
    std::atomic<uint64_t> held{0};
    uint64_t replaced = 0;  // the turn at which it was; 0: it is in use
    bool seen = false;
  };

  explicit DispatchChain(sm_device* device);
  static void thunk(const sm_device_ops* self, sm_device* device, sm_request* request);
  void publish();
  Generation* takeGeneration();
  int settle(const sm_stack* stack, Interposer* leaving, uint64_t timeout);

  sm_device* const device_;
  const sm_device_ops* const driver_;
  mutable std::mutex mutex_;              // of what follows
  std::vector<Interposer*> interposers_;  // top first
  std::vector<std::unique_ptr<Generation>> generations_;
  Generation* current_ = nullptr;
  uint64_t turn_ = 0;  // counts what was replaced
};

}  // namespace sm
