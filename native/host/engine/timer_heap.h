// Armed timers, the earliest first: a binary heap that knows each timer's place in it.
//
// Thread contract: one thread. Invariants: timers_[t->position] == t for every armed t, and position 0 means not armed;
// place 0 is never used. Allocates only beyond kReserved armed timers.
#pragma once

#include <stratamap/services.h>

#include <utility>
#include <vector>

namespace sm {

class TimerHeap {
 public:
  static constexpr size_t kReserved = 1024;
  static constexpr uint64_t kNever = UINT64_MAX;

  TimerHeap() {
    timers_.reserve(kReserved);
    timers_.push_back(nullptr);
  }

  // Arms the timer, or moves an armed one.
  void start(sm_timer* timer, uint64_t due) {
    if (timer->position == 0) {
      timer->position = timers_.size();
      timers_.push_back(timer);
    }
    timer->due = due;
    sift(timer);
  }

  void stop(sm_timer* timer) {
    const size_t hole = std::exchange(timer->position, 0);
    if (hole == 0) return;
    sm_timer* last = timers_.back();
    timers_.pop_back();
    if (last == timer) return;
    place(last, hole);
    sift(last);
  }

  uint64_t nextDue() const { return timers_.size() > 1 ? timers_[1]->due : kNever; }

  // Runs what is due at `now`; each is disarmed first, and may be armed again by what runs, for a time after `now`.
  void runDue(uint64_t now) {
    while (nextDue() <= now) {
      sm_timer* timer = timers_[1];
      stop(timer);
      timer->run(timer);
    }
  }

 private:
  void place(sm_timer* timer, size_t at) {
    timers_[at] = timer;
    timer->position = at;
  }

  void sift(sm_timer* timer) {
    size_t at = timer->position;
    for (; at > 1 && timers_[at / 2]->due > timer->due; at /= 2) place(timers_[at / 2], at);
    for (;;) {
      size_t child = 2 * at;
      if (child >= timers_.size()) break;
      if (child + 1 < timers_.size() && timers_[child + 1]->due < timers_[child]->due) ++child;
      if (timers_[child]->due >= timer->due) break;
      place(timers_[child], at);
      at = child;
    }
    place(timer, at);
  }

  std::vector<sm_timer*> timers_;
};

}  // namespace sm
