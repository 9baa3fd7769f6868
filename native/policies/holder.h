// An interposer that holds requests back until a time, and completes some from the I/O thread's loop.
//
// A request stays on the thread that submitted it. Each thread has a lane: what it holds, as a heap by due time that is
// threaded through the requests' own scratch (so that nothing is allocated, and as many can be held as there are), and
// one timer. No lane is touched by another thread but for its counts.
//
// Thread contract: hold, complete, pass, holdAgain and release on I/O threads; inside and waiting from any. Invariants:
// what is in a lane has its way down counted as held in its generation (dispatch.h); the timer is armed while a lane
// holds anything, for its earliest.
#pragma once

#include <stratamap/services.h>

#include <atomic>
#include <cstdint>
#include <memory>

#include "intercept/dispatch.h"

namespace sm {

struct HolderCounters {
  uint64_t held = 0, waiting = 0, passed = 0;  // operations: ever held back, held back now, passed through at once
};

// What the holders of one policy did, all its devices together; it outlasts them. Each thread counts in a row of its
// own, others read.
class HolderTally {
 public:
  struct alignas(64) Row {
    std::atomic<uint64_t> held{0}, passed{0};
    static void add(std::atomic<uint64_t>& count) {
      count.store(count.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    }
  };
  explicit HolderTally(const sm_stack* stack) : count_(stack->threads(stack)), rows_(new Row[count_]) {}
  Row& of(uint32_t thread) { return rows_[thread]; }
  HolderCounters sum() const;  // `waiting` is not in it

 private:
  const uint32_t count_;
  const std::unique_ptr<Row[]> rows_;
};

class Holder : public Interposer {
 public:
  Holder(const sm_stack* stack, std::shared_ptr<HolderTally> tally);

  uint64_t inside() const override { return waiting(); }
  void release() override;
  uint64_t waiting() const;

 protected:
  // Keeps the request until `due`, then passes it to `next`. On a thread that is none of the host's, at once.
  void hold(const sm_device_ops* next, sm_request* request, uint64_t due);
  // Completes it, not from within its issuer's call.
  void complete(sm_request* request, int32_t status);
  void pass(const sm_device_ops* next, sm_device* device, sm_request* request);
  // A request that was held back until `due` goes on.
  virtual void goesOn(const sm_request* /*request*/, uint64_t /*due*/) {}
  // What is held on this thread gets another time: due(request) for each, in the order in which it was due.
  template <class F>
  void holdAgain(F&& due) {
    Lane* lane = here();
    sm_request* request = lane ? takeAll(lane) : nullptr;
    while (request) {
      sm_request* following = nodeOf(request)->sibling;
      const sm_device_ops* next = nodeOf(request)->next;
      add(lane, next, request, next ? due(request) : 0);
      request = following;
    }
  }
  const sm_stack* stack() const { return stack_; }

 private:
  // In the scratch of a request that is held. `next` null: it is to be completed with the status that it has.
  struct Node {
    sm_request *child, *sibling;
    uint64_t due;
    const sm_device_ops* next;
  };
  static_assert(sizeof(Node) <= sizeof(sm_request::driver));
  struct alignas(64) Lane {
    sm_timer timer{};  // first: found from it
    Holder* holder = nullptr;
    sm_request* first = nullptr;  // due first
    uint64_t armed = UINT64_MAX;  // for when
    std::atomic<uint64_t> waiting{0};
  };

  static Node* nodeOf(sm_request* request) { return reinterpret_cast<Node*>(request->driver); }
  static sm_request* merge(sm_request* a, sm_request* b);
  static sm_request* takeFirst(Lane* lane);
  static sm_request* takeAll(Lane* lane);
  Lane* here() const;
  void add(Lane* lane, const sm_device_ops* next, sm_request* request, uint64_t due);
  void arm(Lane* lane);
  void goOn(sm_request* request);
  void releaseUntil(Lane* lane, uint64_t now);

  const sm_stack* const stack_;
  const std::shared_ptr<HolderTally> tally_;
  const uint32_t laneCount_;
  const std::unique_ptr<Lane[]> lanes_;  // by the thread's index
};

}  // namespace sm
