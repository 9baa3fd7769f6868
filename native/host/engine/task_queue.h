// Tasks on their way to an I/O thread.
//
// Thread contract: push() from any thread; trySleep() and takeAll() on the one consumer thread. Invariants: a task is
// in the queue at most once; tasks come out in the order in which push() took effect. The consumer's sleep is a state
// of the same word that tasks are pushed onto, so exactly the push that ends a sleep sees it, and no other one has to
// wake.
#pragma once

#include <stratamap/services.h>

#include <atomic>

namespace sm {

class TaskQueue {
 public:
  // Returns true where the consumer has gone to sleep and must be woken.
  bool push(sm_task* task) {
    sm_task* head = head_.load(std::memory_order_relaxed);
    do {
      task->next = head == &asleep_ ? nullptr : head;
    } while (!head_.compare_exchange_weak(head, task, std::memory_order_acq_rel, std::memory_order_relaxed));
    return head == &asleep_;
  }

  // Announces sleep; false where there are tasks to run instead. takeAll ends it.
  bool trySleep() {
    sm_task* none = nullptr;
    return head_.compare_exchange_strong(none, &asleep_, std::memory_order_acq_rel) || none == &asleep_;
  }

  // Everything pushed so far as a list in order, linked by `next`.
  sm_task* takeAll() {
    if (head_.load(std::memory_order_relaxed) == nullptr) return nullptr;
    sm_task* task = head_.exchange(nullptr, std::memory_order_acq_rel);
    if (task == &asleep_) return nullptr;
    sm_task* list = nullptr;  // pushed last comes first: turn it round
    while (task) {
      sm_task* next = task->next;
      task->next = list;
      list = task;
      task = next;
    }
    return list;
  }

 private:
  sm_task asleep_{};  // never run; its address says that the consumer sleeps
  std::atomic<sm_task*> head_{nullptr};
};

}  // namespace sm
