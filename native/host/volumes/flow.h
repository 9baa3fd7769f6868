// The way of requests through a volume: a request is cut into pieces, each becomes a child, and the request completes
// with the first error when all its children have. Where something is lacking a request stops, and goes on later.
//
// Thread contract: on the home I/O thread. Invariants: a request that is not complete either has children in flight, or
// stands in exactly one queue, or both; while it can issue more, `pending` counts one for that, so that it cannot
// complete. Nothing allocates.
#pragma once

#include <stratamap/services.h>

#include "children.h"
#include "durability.h"

namespace sm {

// What a volume notes about a request while it has it: in the request's scratch, so there is always room.
struct __attribute__((may_alias)) RequestState {
  sm_request* next;  // in a RequestQueue
  void* disk;        // the volume's
  uint64_t cursor;   // bytes issued; of a flush: devices
  uint32_t pending;  // children in flight, and one while more may be issued; the upper bits are flags
  int32_t status;    // the first error
};
static_assert(sizeof(RequestState) <= sizeof(sm_request::driver));

enum : uint32_t {
  kCommitFirst = 1u << 31,  // metadata must be durable before it completes
  kParked = 1u << 30,       // has enough children in flight: goes on when some have completed
  kPendingMask = kParked - 1,
};

inline RequestState& stateOf(sm_request* request) { return *reinterpret_cast<RequestState*>(request->driver); }

// First in, first out. A request is in one at a time.
class RequestQueue {
 public:
  bool empty() const { return !head_; }
  void push(sm_request* request) {
    stateOf(request).next = nullptr;
    (head_ ? stateOf(tail_).next : head_) = request;
    tail_ = request;
  }
  void pushFront(sm_request* request) {
    stateOf(request).next = head_;
    if (!head_) tail_ = request;
    head_ = request;
  }
  sm_request* pop() {
    sm_request* request = head_;
    if (request) head_ = stateOf(request).next;
    return request;
  }
  void append(RequestQueue& other) {
    while (sm_request* request = other.pop()) push(request);
  }

 private:
  sm_request* head_ = nullptr;
  sm_request* tail_ = nullptr;
};

class Flow {
 public:
  Flow(const sm_services* services, sm_device* const* devices, uint32_t deviceCount, Issue issue,
       Durability& durability);
  virtual ~Flow() = default;
  Flow(const Flow&) = delete;
  Flow& operator=(const Flow&) = delete;

  const std::vector<sm_device*>& devices() const { return devices_; }

  // Whether the host has nothing that belongs to it. Without requests in flight it soon will be.
  bool idle() const { return !armed_; }

  // Where a submitted request begins.
  void start(void* disk, sm_request* request) {
    stateOf(request) = {nullptr, disk, 0, 1, 0};
    if (paused_) return ready_.push(request);
    advance(request);
  }

 protected:
  // Issues what can be issued, then calls issued(); or returns with the request in a queue.
  virtual void advance(sm_request* request) = 0;
  // All children have completed.
  virtual void finish(sm_request* request) { complete(request, stateOf(request).status); }
  void complete(sm_request* request, int32_t status) {
    if (status == 0 && mustBeDurable(request)) status = durability_.failure();
    sm_request_complete(request, status);
  }
  // Goes on with what stopped for want of a child and is not a request.
  virtual void drainOwn() {}

  void advanceFlush(sm_request* request);
  void issued(sm_request* request) { settle(request, 0); }
  // One of what `pending` counts is done.
  void settle(sm_request* request, int32_t status) {
    RequestState& state = stateOf(request);
    if (status && !state.status) state.status = status;
    --state.pending;
    if (!(state.pending & kPendingMask)) return finish(request);
    if ((state.pending & kParked) && (state.pending & kPendingMask) <= kWindow / 2) unpark(request);
  }
  // Whether a request has so many children in flight that it stops here until some have completed.
  bool park(sm_request* request) {
    RequestState& state = stateOf(request);
    if ((state.pending & kPendingMask) < kWindow) return false;
    state.pending |= kParked;
    return true;
  }
  // No child was to be had: the request goes on, before all others, when one has been given back.
  void starve(sm_request* request) {
    ready_.pushFront(request);
    pauseFor(services_->wait);
  }
  void starve() { pauseFor(services_->wait); }
  // The request has kept the thread for long enough: it goes on when others have had their turn.
  void yield(sm_request* request) {
    ready_.push(request);
    pauseFor(services_->post);
  }
  void goOnLater(RequestQueue& queue) { ready_.append(queue); }
  void goOnLater(sm_request* request) { ready_.push(request); }
  // Runs what is ready. Harmless anywhere: does nothing inside itself, or while there is no child.
  void drain();
  bool paused() const { return paused_; }

  const sm_services* services_;
  Durability& durability_;
  Children children_;
  std::vector<sm_device*> devices_;
  uint64_t maxTransfer_;  // bytes: no child is longer, on any of the devices

 private:
  static constexpr uint32_t kWindow = 256;  // children of one request in flight at once

  struct Task {
    sm_task task{};  // first: found from it
    Flow* flow = nullptr;
  };

  void unpark(sm_request* request);
  void pauseFor(void (*when)(const sm_services*, sm_task*));

  RequestQueue ready_;
  Task task_;
  bool armed_ = false;   // task_ is the host's
  bool paused_ = false;  // until task_ runs
  bool draining_ = false;
};

}  // namespace sm
