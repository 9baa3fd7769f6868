// A policy: one function on any number of devices. On each it has an interposer of its own, so that it can be taken out
// of one device alone; what they have in common is the subclass's.
//
// Thread contract: addDevice, removeDevice, takeOut and detach from any thread that is not an I/O thread, one at a time
// (the owner serialises); on and the subclasses' counters from any such thread at any time. A Policy must be detached
// before it is destroyed; what a request in flight may still reach is never freed.
#pragma once

#include <stratamap/device.h>
#include <stratamap/services.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "intercept/dispatch.h"

namespace sm {

// What has been taken out of its devices and may still have requests inside. Any thread may wait; what has not been
// left when this is destroyed is kept for ever.
class Leaving {
 public:
  Leaving() = default;
  ~Leaving();
  Leaving(const Leaving&) = delete;
  Leaving& operator=(const Leaving&) = delete;
  // 0, or -ETIMEDOUT: something is still inside after `timeout` ns, or a thread may still be on its way into it.
  int wait(const Deadline& deadline) const;

 private:
  friend class Policy;
  struct Gone {
    std::unique_ptr<Interposer> interposer;
    bool late;  // a thread has not answered
  };
  std::vector<Gone> gone_;
};

class Policy {
 public:
  explicit Policy(const sm_stack* stack) : stack_(stack) {}
  virtual ~Policy() = default;
  Policy(const Policy&) = delete;
  Policy& operator=(const Policy&) = delete;

  // As DispatchChain::insert and remove; -EEXIST, -ENOENT as well where it has, or has not, the device.
  int addDevice(sm_device* device, size_t position = 0);
  int removeDevice(sm_device* device, uint64_t timeout);
  // From all devices, or from one where it is there. What it holds goes on at once; no I/O is waited for.
  std::shared_ptr<const Leaving> takeOut();
  std::shared_ptr<const Leaving> takeOut(sm_device* device);
  // takeOut, and the wait. Returns 0, or -ETIMEDOUT: it is out and passing through, but
  // something is still inside after `timeout` ns.
  int detach(uint64_t timeout);
  // Its interposer of a device, or null.
  Interposer* on(const sm_device* device) const;

 protected:
  virtual std::unique_ptr<Interposer> make() = 0;
  const sm_stack* stack() const { return stack_; }

  struct Point {
    sm_device* device;
    std::unique_ptr<Interposer> interposer;
  };
  // For the owner, who alone changes it.
  const std::vector<Point>& points() const { return points_; }
  // Requests inside, on all devices.
  uint64_t inside() const;

 private:
  void takeLast(Leaving& leaving);

  const sm_stack* const stack_;
  mutable std::mutex mutex_;   // never held while anything is waited for
  std::vector<Point> points_;  // changed under it
};

}  // namespace sm
